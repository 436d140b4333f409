//! Command lines as users type them.

use super::*;

fn parse_line(line: &str) -> Result<Command, Refusal> {
    understand(format!("loadgen {line}").split_whitespace().map(OsString::from))
}

fn demo(line: &str) -> Demo {
    match parse_line(line) {
        Ok(Command::Demo(demo)) => demo,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn demo_is_the_default_with_and_without_its_name() {
    for line in ["--rate 1B/day", "demo --rate 1B/day"] {
        let demo = demo(line);
        assert_eq!(demo.load.rate.to_string(), "11574/s");
        assert_eq!(demo.embedded.nodes, 3);
        assert!(!demo.no_kill);
        assert_eq!(Command::Demo(demo).objective().to_string(), SLO_DEFAULT);
    }
    assert_eq!(demo("").load.rate.to_string(), "579/s");
}

#[test]
fn every_option_reaches_its_place() {
    let demo = demo(
        "--rate 10k/s --duration 1500ms --arrivals poisson --keys 500 --popularity latest --zipf 1.2 \
         --value-size 10..20 --mix read=90,delete=10 --preload --seed 7 --slo p50<1ms,errors<1% \
         --json out.json --timeout 50ms --read-quorum 1 --write-quorum 1 --in-flight 100 --spin 0us \
         --nodes 5 --shards 2 --no-kill --quiet",
    );
    assert_eq!(demo.judging.consistency(demo.embedded.copies()), Consistency::Eventual);
    assert_eq!(demo.load.preload().len(), 500);
    assert_eq!(demo.load.operations(0).count(), demo.load.operations(0).count());
    let command = Command::Demo(demo);
    assert_eq!((command.limits().in_flight_max, command.limits().beyond), (100, Beyond::Fail));
    assert_eq!(command.timeout(), Duration::from_millis(50));
    let settings = command.describe(3);
    for (name, value) in [
        ("command", "demo"),
        ("rate", "10000/s"),
        ("duration", "1.5s"),
        ("arrivals", "poisson"),
        ("popularity", "latest"),
        ("mix", "read=90,delete=10"),
        ("slo", "p50<1ms,errors<1%"),
        ("consistency", "eventual"),
        ("nodes", "5"),
        ("kill", "false"),
    ] {
        assert_eq!(settings[name], value, "{name}");
    }
}

/// What only Ringmain has is refused by its name, and so is what only others have.
#[test]
fn other_servers_have_options_of_their_own() {
    let line = "check --target redis://h:1 --wait 2 --may-evict --connections 9 --consistency eventual";
    let Ok(command) = parse_line(line) else { panic!("a check") };
    let settings = command.describe(1);
    for (name, value) in [
        ("target", "redis://h:1"),
        ("wait", "2"),
        ("may_evict", "true"),
        ("connections", "9"),
        ("consistency", "eventual"),
        ("writes", "overwrite"),
    ] {
        assert_eq!(settings[name], value, "{name}");
    }
    assert!(["read_quorum", "copies", "routing", "servers"].iter().all(|name| !settings.contains_key(name)));
    assert!(parse_line("replay trace.csv --target memcached://h").is_ok());
    assert!(parse_line("check --target redis://h --workload ycsb-f --writes overwrite").is_ok());
    for (line, expected) in [
        ("check --target rediss://h:1", "rediss:// is TLS"),
        ("check --target redis://h:1 --read-quorum 2", "--read-quorum means nothing to redis://h:1"),
        ("check --target redis://h:1 --write-quorum 2", "--write-quorum means nothing"),
        ("check --target memcached://h:1 --zones 2", "--zones means nothing"),
        ("check --target memcached://h:1 --routing wrong", "--routing means nothing"),
        (
            "check --target redis://h:1 --writes update",
            "--writes update, for which redis://h:1 has no contexts",
        ),
        ("check --target redis://h:1 --workload ycsb-f", "--workload asks for --writes update"),
        ("check --target redis://h:1 --servers a:1", "cannot be used"),
        ("check --target redis://h:1 --secret-file f", "cannot be used"),
        ("check --target memcached://h:1 --wait 1", "--wait means nothing to memcached"),
        ("check --target memcached://h:1 --key-size 10..300", "--key-size of up to 300 bytes is too long"),
        ("check --servers a:1 --wait 1", "--wait needs --target"),
        ("check --servers a:1 --may-evict", "--may-evict needs --target"),
        ("check --servers a:1 --connections 3", "--connections needs --target"),
        ("replay x --target redis://h --nodes 5", "cannot be used"),
        ("replay x --target redis://h --zones 2", "--zones means nothing"),
        ("check --target redis://h:1 --inject at=1s", "--inject needs nodes"),
    ] {
        let Err(Refusal::Wrong(text)) = parse_line(line) else { panic!("{line} was accepted") };
        assert!(text.contains(expected) && !text.contains('\n'), "{line}: {text}");
    }
}

/// What can't be done is told before anything starts.
#[test]
fn injections_are_held_against_the_run() {
    let inject = |words: &[&str], deeds: &str| {
        let line = [&["loadgen"], words, &["--inject", deeds]].concat();
        understand(line.into_iter().map(OsString::from)).err()
    };
    assert_eq!(inject(&["--duration", "30s"], "at=10s kill n2; at=20s restart n2"), None);
    assert_eq!(inject(&["replay", "x.csv"], "at=1h kill n3"), None, "how long it takes is in the trace");
    for (words, deeds, expected) in [
        (&["--duration", "10s"][..], "at=10s kill n2", "--inject: character 1: the run is over by 10s"),
        (&["--nodes", "2"], "at=1s kill n3", "there is no n3: there is n1 to n2"),
        (&["replay", "x.csv"], "at=1s restart n3", "n3 isn't down"),
        (&["replay", "x.csv", "--servers", "a:1"], "at=1s kill n3", "--inject needs nodes"),
        (&["replay", "x.csv", "--target", "redis://a"], "at=1s kill n3", "--inject needs nodes"),
    ] {
        let Some(Refusal::Wrong(text)) = inject(words, deeds) else { panic!("{deeds} was accepted") };
        assert!(text.contains(expected) && !text.contains('\n'), "{deeds}: {text}");
    }
}

/// Whatever a name stands for can be overridden, one by one.
#[test]
fn a_named_load_fills_in_what_is_left_open() {
    let twelve = demo("--preset twitter-12").load.recipe();
    assert_eq!(
        (twelve.mix.to_string(), twelve.zipf, twelve.preload),
        ("read=20,write=80".into(), Some(0.3048), true)
    );
    let changed =
        demo("--preset twitter-43 --zipf 1.1 --mix read=100 --keys 70 --no-preload --ttl none").load;
    let settings = changed.describe();
    for (name, value) in
        [("load", "twitter-43"), ("zipf", "1.1"), ("mix", "read=100"), ("keys", "70"), ("ttl", "none")]
    {
        assert!(settings.contains(&(name, value.to_owned())), "{name}: {settings:?}");
    }
    assert!(changed.preload().is_empty());
    assert_eq!(Command::Demo(demo("--workload ycsb-f")).writes(), Writes::Update);
    assert_eq!(Command::Demo(demo("--workload ycsb-f --writes blind")).writes(), Writes::Blind);
    assert_eq!(Command::Demo(demo("--workload ycsb-a")).writes(), Writes::Overwrite);
}

/// Every insert has a key below the limit, also where chance brings more of them than the mean.
#[test]
fn inserts_stay_below_the_limit() {
    let load = demo("--workload ycsb-d --rate 20k/s --duration 2s --arrivals poisson").load;
    let highest = load.operations(0).map(|operation| operation.key.0).max().expect("operations");
    assert!(highest > 2500 && highest + 1 < load.key_numbers().end, "{highest} of {:?}", load.key_numbers());
    assert_eq!(load.preload().len(), 1000);
    let load = demo("--keys 10 --key-first 500 --preload").load;
    assert_eq!((load.key_numbers(), load.preload()[9].key), (500..510, Key(509)));
    assert!(load.operations(0).all(|operation| (500..510).contains(&operation.key.0)));
}

#[test]
fn phases_stand_instead_of_a_duration() {
    let line = [
        "loadgen",
        "--rate",
        "2k",
        "--phases",
        "warmup 1s, steady 2s, ramp 1k..3k 1s",
        "--arrivals",
        "poisson",
    ];
    let Ok(Command::Demo(demo)) = understand(line.map(OsString::from)) else { panic!("a demo") };
    assert_eq!(demo.load.profile().duration(), Duration::from_secs(4));
    let count = demo.load.operations(0).count();
    // 8000 expected, deviation 89: five of them on either side.
    assert!((7550..8450).contains(&count), "{count}");
    assert!(demo.load.describe().contains(&("phases", "warmup 1s, steady 2s, ramp 1k..3k 1s".to_owned())));
    let both = understand(["loadgen", "--duration", "5s", "--phases", "steady 5s"].map(OsString::from));
    assert!(matches!(both, Err(Refusal::Wrong(text)) if text.contains("cannot be used")));
}

#[test]
fn check_and_replay_know_their_servers() {
    let Ok(Command::Check(check)) = parse_line("check --servers a:1,b:2 --servers c:3 --keys 9") else {
        panic!("a check")
    };
    assert_eq!(check.servers, ["a:1", "b:2", "c:3"].map(|address| Server(address.to_owned())));
    let Ok(command) = parse_line("replay trace.csv --speed 0.5 --preload --servers a:1") else {
        panic!("a replay")
    };
    assert_eq!(command.objective().to_string(), SLO_REPLAY_DEFAULT);
    assert_eq!(command.describe(3)["trace_speed"], "0.5x");
    assert_eq!((command.limits().beyond, command.timeout()), (Beyond::Wait, Duration::from_secs(10)));
    let Ok(command) = parse_line("replay trace.csv --trace-speed max") else { panic!("a replay") };
    assert!(command.limits().unpaced && parse_line("replay trace.csv").is_ok());
}

/// The default of a cluster that is not known yet is its own.
#[test]
fn quorums_follow_the_cluster() {
    let judging = demo("--read-quorum 1").judging;
    assert_eq!([1, 3, 5].map(|copies| judging.quorums(copies)), [(1, 1), (1, 2), (1, 3)]);
    assert_eq!(judging.consistency(1), Consistency::Strict);
    assert_eq!(judging.consistency(3), Consistency::Eventual);
    assert_eq!(demo("--nodes 1").embedded.copies(), 1);
    assert!(judging.refuse_quorums(1).is_ok() && demo("--read-quorum 3").judging.refuse_quorums(2).is_err());
}

#[test]
fn mistakes_take_one_line() {
    for (line, expected) in [
        ("--rate fast", "doesn't start with a number"),
        ("--rate 5/fortnight", "no known period"),
        ("--duration 20", "has no unit of time"),
        ("--duration 0s", "not a positive number"),
        ("--mix read=50", "add up to 50"),
        ("--workload ycsb-x", "did you mean ycsb-a, ycsb-b, ycsb-c?"),
        ("--workload ycsb-e", "protocol has none"),
        ("--preset twitter-77", "did you mean twitter-7, "),
        ("--preset twitter-5", "no figures for twitter-5"),
        ("--preset twitter-43", "choose one with --zipf"),
        ("--preset etc --workload ycsb-a", "cannot be used"),
        ("--preload --no-preload", "cannot be used"),
        ("--ttl 5", "no unit"),
        ("--phases steady", "'steady [RATE] TIME'"),
        ("--phases warmup,1s", "'warmup [RATE] TIME'"),
        ("--key-size gev:1", "makes no distribution"),
        ("--slo p99.9", "bounds nothing"),
        ("--keys 0", "--keys"),
        ("--zipf=-1", "from 0 to 20"),
        ("--zipf NaN", "from 0 to 20"),
        ("--bogus", "--bogus"),
        ("bogus", "bogus"),
        ("check", "--servers"),
        ("check --servers localhost", "no address"),
        ("check --servers :7400", "no address"),
        ("check --servers a:99999", "no address"),
        ("replay", "FILE"),
        ("replay x --servers a:1 --nodes 5", "cannot be used"),
        ("replay x --speed 0", "from 0.001"),
        ("replay x --trace-speed 10y", "10x, or max"),
        ("--replicas 3 --read-quorum 4", "can never be reached"),
        ("--nodes 2 --write-quorum 3", "can never be reached"),
        ("--writes once", "no known way of writing"),
        ("--routing right", "no known routing"),
        ("--inject at=10s", "--inject <DEEDS>': character 7: something is missing"),
        ("check --servers a:1 --inject at=1s", "--inject needs nodes that loadgen starts itself"),
        ("check --servers a:1 --nodes 2", "--nodes"),
        ("replay x --secret-file f", "--servers"),
        ("node --members none", "NAME=HOST:PORT"),
        ("--spin 1s", "whole core"),
        ("--rate 5/s demo", "demo"),
    ] {
        let Err(Refusal::Wrong(text)) = parse_line(line) else { panic!("{line} was accepted") };
        assert!(text.contains(expected), "{line}: {text}");
        assert!(!text.contains('\n'), "{line}: {text}");
    }
}

#[test]
fn help_and_version_are_no_mistakes() {
    for line in
        ["--help", "-h", "--version", "check --help", "--preset list", "check --servers a:1 --workload list"]
    {
        assert!(matches!(parse_line(line), Err(Refusal::Shown(_))), "{line}");
    }
    let Err(Refusal::Shown(help)) = parse_line("--help") else { panic!("help") };
    assert!(!help.contains("  node"), "the node subcommand is hidden");
}

/// What would be wrong in the last run is told before the first.
#[test]
fn studies_check_their_runs_before_they_begin() {
    let Ok(Command::Search(search)) =
        parse_line("search --slo p99<5ms --confirm 2 check --servers a:1 --keys 9")
    else {
        panic!("a search")
    };
    assert_eq!((search.line().words().len(), search.confirm, search.precision), (5, 2, 0.05));
    let Ok(Command::Search(search)) = parse_line("search --slo p99<5ms") else { panic!("a search") };
    assert_eq!(search.line().words()[..2], ["demo", "--no-kill"]);
    let Ok(Command::Sweep(sweep)) =
        parse_line("sweep --vary rate=1,2 --vary mix=read=100;read=50,write=50 demo --keys 9")
    else {
        panic!("a sweep")
    };
    let combinations = sweep.combinations();
    assert_eq!(combinations[1], ["1", "read=50,write=50"]);
    assert_eq!((combinations.len(), sweep.more(&combinations[2], 0)[0].clone()), (4, "--rate=2".into()));
    for (line, expected) in [
        ("search --slo p99<5ms check --servers a:1 --rate 5/s", "multiple times"),
        ("search --slo p99<5ms check", "--servers"),
        ("search --slo p99<5ms demo --phases ramp", "ramp FROM..TO"),
        ("search --slo p99<5ms sweep --vary rate=1 demo", "demo or check with its options, and not 'sweep'"),
        ("search --slo p99", "bounds nothing"),
        ("search demo", "--slo"),
        ("search --slo p99<5ms --precision 0% demo", "1 to 50"),
        ("sweep demo", "--vary"),
        ("sweep --vary rate=1,,2 demo", "varies nothing"),
        ("sweep --vary json=a,b demo", "multiple times"),
        ("sweep --vary keys=1,0 demo", "--keys"),
        ("sweep --vary keys=1,2 compare a b", "and not 'compare'"),
        ("compare a.json", "<B>"),
        ("merge a.json", "values required"),
        ("merge a.json b.json --slo p99", "bounds nothing"),
        ("search --slo p99<5ms demo --hlog a.hlog", "--hlog names one file"),
        ("sweep --vary keys=1,2 check --servers a:1 --hlog a.hlog", "--hlog names one file"),
        ("sweep --vary hlog=a.hlog,b.hlog --repeat 2 demo", "--hlog names one file"),
    ] {
        let Err(Refusal::Wrong(text)) = parse_line(line) else { panic!("{line} was accepted") };
        assert!(text.contains(expected) && !text.contains('\n'), "{line}: {text}");
    }
}

/// What a sweep leaves behind by default must be enough to be compared.
#[test]
fn a_sweep_is_long_enough_to_be_compared() {
    let Ok(Command::Sweep(sweep)) = parse_line("sweep --vary keys=1,2") else { panic!("a sweep") };
    let line = sweep.line();
    let words: Vec<_> = line.words().iter().map(|word| word.to_string_lossy()).collect();
    let duration = demo(&words.join(" ")).load.duration;
    assert!(duration.as_secs() as usize >= 2 * crate::statistics::jackknife::INTERVALS_MIN, "{duration:?}");
}

/// Where every rate is named, `--rate` changes nothing, and a search would go up to ten million a second.
#[test]
fn a_rate_is_not_varied_where_phases_name_theirs() {
    let refused = |phases: &str, words: &[&str]| {
        let load = ["demo", "--phases", phases];
        let line = std::iter::once("loadgen").chain(words.iter().copied()).chain(load);
        understand(line.map(OsString::from)).err()
    };
    let (search, sweep) = (&["search", "--slo", "p99<5ms"][..], &["sweep", "--vary", "rate=1k,2k"][..]);
    for phases in ["steady 1k 20s", "warmup 5s, steady 1k 20s", "ramp 1k..2k 10s, spike 1k..2k 1s 9s"] {
        for words in [search, sweep] {
            let Some(Refusal::Wrong(text)) = refused(phases, words) else { panic!("{phases} was accepted") };
            assert!(text.contains("leave a rate open") && !text.contains('\n'), "{text}");
        }
        assert_eq!(refused(phases, &["sweep", "--vary", "keys=10,20"]), None);
    }
    for phases in ["steady 20s", "warmup 1k 5s, steady 20s, ramp 1k..2k 10s"] {
        assert_eq!((refused(phases, search), refused(phases, sweep)), (None, None), "{phases}");
    }
}

/// One seed for all would repeat one run's luck.
#[test]
fn repetitions_have_seeds_of_their_own() {
    let sweep = |line: &str| match parse_line(&format!("sweep --repeat 3 {line}")) {
        Ok(Command::Sweep(sweep)) => sweep,
        other => panic!("{line}: {other:?}"),
    };
    let seeds = |sweep: &Sweep, combination: usize| {
        let combination = &sweep.combinations()[combination];
        [0, 1, 2].map(|repetition| sweep.seed(combination, repetition).expect("a made-up load has one"))
    };
    let keys = sweep("--vary keys=1,2 demo --seed 7 --quiet");
    let [first, second, third] = seeds(&keys, 0);
    assert_eq!(first, 7);
    assert!(second != 7 && third != 7 && second != third);
    assert_eq!(seeds(&keys, 1), [first, second, third], "combinations are offered the same");
    assert_ne!(seeds(&sweep("--vary keys=1 demo --seed=8"), 0)[1], second);
    let words = [keys.line().words().to_vec(), keys.more(&["1".to_owned()], 1)].concat();
    assert_eq!(words, ["demo", "--quiet", "--keys=1", "--seed", &second.to_string()]);
    let varied = sweep("--vary seed=7,9 demo");
    assert_eq!((seeds(&varied, 0)[1], seeds(&varied, 1)[0]), (second, 9));
    assert_eq!(sweep("--vary trace-speed=1x,2x replay a.csv").seed(&["1x".to_owned()], 1), None);
    assert!(parse_line("sweep --vary keys=1,2 demo --seed 7 --seed 8").is_err());
    assert!(parse_line("sweep --vary keys=1,2 demo --seed x").is_err());
}
