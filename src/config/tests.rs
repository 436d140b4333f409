use std::io::Write;

use super::*;

const CORES: u16 = 4;

fn from_toml(text: &str) -> Result<Config, ConfigError> {
    Config::from_settings(parse(text).expect("valid TOML"), CORES)
}

/// The settings are refused with a sentence that has all of `words`.
#[track_caller]
fn is_refused(text: &str, words: &[&str]) {
    let error = from_toml(text).expect_err(text).to_string();
    assert_eq!(error.lines().count(), 1, "one sentence: {error}");
    for word in words {
        assert!(error.contains(word), "'{error}' doesn't say '{word}'");
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn without_settings_it_is_a_cluster_of_one_in_memory() {
    let config = from_toml("").unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:7400");
    assert_eq!((config.name.as_str(), config.cluster.as_str()), ("127.0.0.1:7400", "ringmain"));
    assert_eq!((config.advertise.as_str(), config.members.len(), config.seeds.len()), ("127.0.0.1", 0, 0));
    assert_eq!((config.shards, config.pin, config.spin_us), (CORES, true, 0));
    assert_eq!((config.replicas, config.partitions, config.read, config.write), (Some(3), Some(1024), 0, 0));
    assert_eq!((config.timeout, config.timeout_max), (Duration::from_secs(1), Duration::from_secs(10)));
    assert_eq!(config.anti_entropy, Duration::from_secs(10));
    assert_eq!((config.background_latency, config.background_bytes_min), (Duration::ZERO, 1 << 20));
    assert_eq!(config.reap, Duration::from_secs(300));
    assert_eq!((config.value_bytes_max, config.weight, config.mode), (8 << 20, 100, Mode::Memory));
}

const EVERYTHING: &str = r#"
listen = "0.0.0.0:7401"
advertise = "10.0.0.1"
name = "n1"
cluster = "orders"
members = ["n1=10.0.0.1:7401", "n2=10.0.0.2:7401"]
shards = 2
pin = false
shard_ports = [7411, 7412]
replicas = 5
read = 1
write = 4
partitions = 65536
data_center = "east"
rack = "r7"
weight = 250
timeout = "50ms"
timeout_max = "2s"
value_bytes_max = "64KiB"
requests_in_flight_max = 16
anti_entropy = "2s"
reap = "1m"
hint_bytes_max = "1MiB"
background_latency = "5ms"
background_bytes_min = "2MiB"
mode = "durable"
data = "some/where"
sync = "100ms"
segment_bytes = "2MiB"
spin_us = 20
"#;

#[test]
fn what_is_printed_reads_back_as_itself() {
    let partitions = |text: &str| text.replace("partitions = 65536", "partitions = 32768");
    let with_seeds = "seeds = ['10.0.0.9:7400', '[::1]:7400']\nlisten = '[::1]:7500'";
    for text in ["", with_seeds, &partitions(EVERYTHING)] {
        let config = from_toml(text).unwrap();
        let printed = config.to_toml();
        assert_eq!(from_toml(&printed).unwrap(), config, "{printed}");
        assert_eq!(from_toml(&printed).unwrap().to_toml(), printed);
    }
}

#[test]
fn everything_set_is_everything_printed() {
    let config = from_toml(&EVERYTHING.replace("partitions = 65536", "partitions = 32768")).unwrap();
    let printed = config.to_toml();
    for line in EVERYTHING.lines().filter(|line| !line.is_empty() && !line.starts_with("partitions")) {
        assert!(printed.lines().any(|other| other == line), "{line} is missing from\n{printed}");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let (line, reason) = parse("name = 'n1'\n\nlissten = '127.0.0.1:1'\n").unwrap_err();
    assert_eq!(line, 3);
    assert!(
        reason.starts_with("there is no key `lissten`; the keys are listen, advertise, name,"),
        "{reason}"
    );
    let (line, reason) = parse("\n[zone]\nrack = 'r1'\n").unwrap_err();
    assert_eq!(line, 2);
    assert!(reason.contains("`zone`"), "{reason}");
}

#[test]
fn a_wrong_value_is_told_with_its_line() {
    for (text, words) in [
        ("\ntimeout = '50'", "is not a span of time"),
        ("\ntimeout = 50", "is not a span of time"),
        ("\nvalue_bytes_max = '8MB'", "is not a size"),
        ("\nmode = 'disk'", "use 'memory' or 'durable'"),
        ("\nsync = 'often'", "'always', 'never', or a time"),
        ("\nlisten = '7400'", "is not HOST:PORT"),
        ("\nshards = 'two'", "invalid type"),
        ("\nread = 256", "256"),
        ("\nname = ", ""),
    ] {
        let (line, reason) = parse(text).unwrap_err();
        assert_eq!(line, 2, "{text}: {reason}");
        assert!(reason.contains(words) && !reason.contains('\n'), "{text}: {reason}");
    }
}

#[test]
fn a_data_directory_makes_it_durable() {
    let config = from_toml("data = 'some/where'").unwrap();
    assert_eq!(
        (config.mode, config.sync, config.data.as_deref()),
        (Mode::Durable, Sync::Always, Some("some/where"))
    );
    assert_eq!(config.segment_bytes, 66 << 20, "eight values of 8 MiB, and what goes with them");
    assert_eq!(from_toml("data = 'd'\nvalue_bytes_max = '1MiB'").unwrap().segment_bytes, 32 << 20);
    let refused = |text| from_toml(text).unwrap_err().to_string();
    assert!(refused("mode = 'durable'").contains("--data DIR"));
    assert!(refused("mode = 'memory'\ndata = 'd'").contains("leave one of them out"));
    assert!(refused("data = 'd'\nsegment_bytes = '1MiB'").contains("from 66624KiB"));
    assert!(refused("data = 'd'\nsegment_bytes = '100000001B'").contains("a multiple of 4KiB"));
}

#[test]
fn a_size_may_be_a_bare_number() {
    assert_eq!(from_toml("value_bytes_max = 4096").unwrap().value_bytes_max, 4096);
}

#[test]
fn arguments_override_the_file() {
    let file = file("name = 'from-file'\nweight = 7\nlisten = '127.0.0.1:7500'");
    let arguments = ServeArguments {
        config: Some(file.path().to_owned()),
        stop_with_stdin: true,
        settings: Settings { name: Some("from-argument".into()), ..Settings::default() },
        ..ServeArguments::default()
    };
    let config = Config::load(arguments).unwrap();
    assert_eq!((config.name.as_str(), config.weight, config.listen.port), ("from-argument", 7, 7500));
    assert!(config.stop_with_stdin);
}

#[test]
fn every_setting_of_an_argument_overrides_the_file() {
    let all = parse(EVERYTHING).unwrap();
    let all = Settings { seeds: Some(Vec::new()), secret_file: Some("s".into()), ..all };
    assert_eq!(all.clone().or(parse("listen='h:1'\nspin_us=1\nmembers=[]\npin=true").unwrap()), all);
    assert_eq!(Settings::default().or(all.clone()), all);
}

#[test]
fn a_file_that_is_not_there_or_wrong_is_named() {
    let missing = ServeArguments { config: Some("no/such/file.toml".into()), ..ServeArguments::default() };
    let error = Config::load(missing).unwrap_err().to_string();
    assert!(error.contains("no/such/file.toml"), "{error}");
    let file = file("x = 1");
    let wrong = ServeArguments { config: Some(file.path().to_owned()), ..ServeArguments::default() };
    let error = Config::load(wrong).unwrap_err().to_string();
    assert!(error.contains(" line 1: there is no key `x`"), "{error}");
}

#[test]
fn an_address_of_every_interface_needs_one_to_advertise() {
    is_refused("listen = '0.0.0.0:7400'", &["0.0.0.0:7400", "--advertise HOST"]);
    is_refused("listen = '[::]:7400'", &["--advertise HOST"]);
    is_refused("advertise = '10.0.0.1:7400'\nname = 'n1'", &["without a port", "10.0.0.1:7400"]);
    assert_eq!(from_toml("listen = '0.0.0.0:1'\nadvertise = 'h'").unwrap().name, "h:1");
}

#[test]
fn names_are_plain() {
    is_refused("name = ''", &["name of a node", "1 to 64"]);
    is_refused("cluster = 'a b'", &["'a b'", "name of a cluster"]);
    is_refused("rack = 'a,b'", &["name of a rack"]);
    is_refused("data_center = 'a=b'", &["name of a data centre"]);
}

#[test]
fn a_node_finds_itself_among_the_members() {
    let members = "members = ['n1=10.0.0.1:7400', 'n2=10.0.0.2:7400']\nlisten = '10.0.0.2:7400'";
    assert_eq!(from_toml(members).unwrap().name, "n2");
    is_refused(&format!("{members}\nname = 'n3'"), &["'n3'", "--name", "n1, n2"]);
    is_refused("members = ['n1=10.0.0.1:7400']", &["'127.0.0.1:7400' is not among the members"]);
    is_refused("members = ['n1=h:1', 'n2=h:2']\nname = 'n1'", &["'n1' on port 1", "listens on 7400"]);
}

#[test]
fn the_list_of_members_makes_sense() {
    is_refused("members = []", &["empty", "leave it out"]);
    is_refused("members = ['a=h:1', 'a=h:2']", &["two members have the name 'a'"]);
    is_refused("members = ['a=h:1', 'b=h:1']", &["two members have the address h:1"]);
    is_refused("members = ['a=h:0']", &["h:0 has port 0"]);
    is_refused("seeds = ['h:0']", &["h:0 has port 0"]);
    is_refused("members = ['a=h:1']\nseeds = ['h:2']", &["both members and seeds", "keep one"]);
    let many: Vec<_> = (0..=MEMBERS_MAX).map(|n| format!("'n{n}=h{n}:1'")).collect();
    is_refused(&format!("members = [{}]", many.join(",")), &["4097 members", "4096"]);
}

#[test]
fn a_node_that_others_must_find_needs_a_port() {
    assert_eq!(from_toml("listen = '127.0.0.1:0'").unwrap().listen.port, 0);
    is_refused("listen = 'h:0'\nseeds = ['i:1']", &["--listen HOST:PORT"]);
    is_refused("listen = 'h:0'\nname = 'a'\nmembers = ['a=h:1', 'b=i:1']", &["--listen HOST:PORT"]);
}

#[test]
fn shards_have_cores_and_ports() {
    is_refused("shards = 0", &["shards is 0", "1 to"]);
    is_refused("shards = 5", &["5 shards pinned to 4 cores", "--pin false"]);
    assert_eq!(from_toml("shards = 5\npin = false").unwrap().shards, 5);
    is_refused("shards = 2\nshard_ports = [1]", &["1 shard ports for 2 shards"]);
    is_refused("shards = 2\nshard_ports = [1, 1]", &["shard port 1 is taken"]);
    is_refused("shards = 2\nshard_ports = [1, 7400]", &["shard port 7400 is taken"]);
    is_refused("shards = 2\nshard_ports = [1, 0]", &["shard port 0"]);
}

#[test]
fn anti_entropy_is_off_or_in_range() {
    for off in ["0", "0s", "0us"] {
        let config = from_toml(&format!("anti_entropy = '{off}'")).unwrap();
        assert_eq!(config.anti_entropy, Duration::ZERO);
    }
    assert_eq!(from_toml("reap = '0'").unwrap().reap, Duration::ZERO);
    is_refused("reap = '2h'", &["reap is 2h", "1ms to 1h"]);
    is_refused("anti_entropy = '2h'", &["anti_entropy is 2h", "1ms to 1h"]);
}

#[test]
fn background_work_has_a_floor_and_an_objective_in_range() {
    for learned in ["0", "0ms"] {
        let config = from_toml(&format!("background_latency = '{learned}'")).unwrap();
        assert_eq!(config.background_latency, Duration::ZERO);
    }
    is_refused("background_latency = '2h'", &["background_latency is 2h", "1ms to 1h"]);
    is_refused("background_bytes_min = '0B'", &["background_bytes_min is 0B"]);
    is_refused("background_bytes_min = '2GiB'", &["background_bytes_min is 2GiB"]);
}

#[test]
fn quorums_fit_the_replicas() {
    is_refused("replicas = 0", &["replicas is 0"]);
    is_refused("replicas = 17", &["replicas is 17", "1 to 8"]);
    is_refused("read = 4", &["read is 4", "3 replicas", "0 for a majority"]);
    is_refused("replicas = 1\nwrite = 2", &["write is 2", "1 replicas"]);
}

#[test]
fn partitions_are_a_power_of_two_whose_map_can_be_sent() {
    for wrong in [0, 3, 1000, 131_072] {
        is_refused(&format!("partitions = {wrong}"), &[&wrong.to_string(), "power of two"]);
    }
    assert_eq!(from_toml("partitions = 65536").unwrap().partitions, Some(65_536));
    is_refused(EVERYTHING, &["65536 partitions of 5 replicas", "at most 262144"]);
}

#[test]
fn numbers_are_in_their_ranges() {
    is_refused("weight = 0", &["weight is 0", "1 to 10000"]);
    is_refused("requests_in_flight_max = 0", &["requests_in_flight_max is 0"]);
    is_refused("spin_us = 1000001", &["spin_us is 1000001"]);
    is_refused("value_bytes_max = 0", &["value_bytes_max is 0B", "256MiB"]);
    is_refused("value_bytes_max = '1GiB'", &["value_bytes_max is 1GiB", "256MiB"]);
    is_refused("value_bytes_max = '5GiB'", &["value_bytes_max is 5GiB", "256MiB"]);
    is_refused("timeout = '999us'", &["timeout is 999us", "1ms to 1h"]);
    is_refused("timeout_max = '2h'", &["timeout_max is 2h", "1ms to 1h"]);
    is_refused("timeout_max = '500ms'", &["timeout is 1s", "timeout_max, which is 500ms"]);
}

#[test]
fn a_secret_is_read_but_never_printed() {
    let config = from_toml("secret = 'xyzzy'").unwrap();
    assert_eq!(config.secret.as_ref().unwrap().as_bytes(), b"xyzzy");
    assert!(config.to_toml().contains("not shown"));
    for shown in [config.to_toml(), format!("{config:?}")] {
        assert!(!shown.contains("xyzzy"), "{shown}");
    }

    let file = file("xyzzy\n");
    let named = format!("secret_file = '{}'", file.path().display());
    let config = from_toml(&named).unwrap();
    assert_eq!(config.secret.as_ref().unwrap().as_bytes(), b"xyzzy");
    assert_eq!(from_toml(&config.to_toml()).unwrap(), config);

    is_refused(&format!("{named}\nsecret = 'other'"), &["keep one"]);
    is_refused("secret = ''", &["0 bytes", "1 to 1024"]);
    is_refused("secret_file = 'no/such/secret'", &["no/such/secret"]);
}

/// What the founders fixed is fixed for whoever joins: two rings of the same members would lose each other's keys.
#[test]
fn a_guest_takes_over_what_the_cluster_was_founded_with() {
    let guest = |text: &str| from_toml(&format!("seeds = ['h:1']\n{text}")).unwrap();
    let of = |config: &Config| (config.partitions, config.replicas);
    assert_eq!(of(&guest("")), (None, None));
    assert_eq!(of(&guest("").joining(64, 2).unwrap()), (Some(64), Some(2)));
    assert_eq!(of(&guest("partitions = 64\nreplicas = 2").joining(64, 2).unwrap()), (Some(64), Some(2)));
    assert_eq!(of(&guest("").joining(0, 0).unwrap()), (Some(1024), Some(3)), "an older node doesn't say");
    for (text, words) in [
        ("partitions = 32", "partitions is 32 here and 64"),
        ("replicas = 3", "leave replicas out"),
        ("read = 3", "there are 2 replicas"),
    ] {
        let error = guest(text).joining(64, 2).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_limit_of_memory_is_for_memory_and_leaves_room_to_work() {
    let config = from_toml("memory_max = '1GiB'\nshards = 2\nvalue_bytes_max = '1MiB'\npin = false").unwrap();
    assert_eq!(config.memory_max, 1 << 30);
    assert!(config.to_toml().contains("memory_max = \"1GiB\""));
    let refusal = |text: &str| from_toml(text).unwrap_err().to_string();
    assert!(from_toml("memory_max = '1GiB'\ndata = 'there'\nshards = 2\npin = false").is_ok());
    let small = refusal("memory_max = '58MiB'\nshards = 2\nvalue_bytes_max = '1MiB'\npin = false");
    assert!(
        small.contains("is 58MiB, and with shards = 2 and partitions = 1024 a node needs 59MiB at least"),
        "{small}"
    );
    assert!(from_toml("memory_max = '59MiB'\nshards = 2\nvalue_bytes_max = '1MiB'\npin = false").is_ok());
}

/// Rings between shards and hash trees grow with the shards and the partitions, and are nobody's to put out.
#[test]
fn a_limit_of_memory_is_for_so_many_shards_and_partitions() {
    let of = |memory: &str, shards: u16, partitions: u32| {
        let least = "value_bytes_max = '64KiB'\npin = false";
        from_toml(&format!("memory_max = '{memory}'\nshards = {shards}\npartitions = {partitions}\n{least}"))
    };
    assert!(of("16MiB", 1, 64).is_ok());
    assert!(of("64MiB", 1, 1024).is_ok());
    for (memory, shards, partitions) in [("64MiB", 1, 8192), ("1100MiB", 64, 1024), ("1GiB", 1, 65_536)] {
        let error = of(memory, shards, partitions).unwrap_err().to_string();
        assert!(error.starts_with("memory_max is "), "{error}");
    }
}

/// How many partitions there are a guest learns only when it joins.
#[test]
fn a_guest_whose_limit_is_too_small_for_the_cluster_does_not_join() {
    let guest =
        from_toml("seeds = ['h:1']\nmemory_max = '64MiB'\nshards = 1\nvalue_bytes_max = '64KiB'").unwrap();
    assert!(guest.clone().joining(1024, 3).is_ok());
    let error = guest.joining(16_384, 3).unwrap_err().to_string();
    assert!(error.contains("partitions = 16384 a node needs 292MiB at least"), "{error}");
}
