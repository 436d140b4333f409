//! Small traces by hand, and the real one where it is at hand.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use super::*;

fn read(rows: &str) -> Result<Trace, TraceError> {
    Trace::read(format!("{}\n{rows}", blocks::HEADER).as_bytes())
}

#[test]
fn requests_keep_their_moments_sizes_and_lifetimes() {
    let trace = "time,op,key,size,ttl\n1700000000.5,set,user:7,120,3600\n1700000000.500000001,get,user:7,,\n\
                 1700000002,get,b,9,\n1700000002.25,delete,user:7,,0\n";
    let trace = Trace::read(trace.as_bytes()).expect("a trace");
    assert_eq!((trace.requests(), trace.objects()), (4, 2));
    assert_eq!(trace.preload(), [Preload { key: Key(1), value_len: 9, lifetime: None }]);
    let operations: Vec<Operation> = trace.into_operations(Speed::Times(0.5), 0).collect();
    let due: Vec<u64> = operations.iter().map(|operation| operation.due_ns).collect();
    assert_eq!(due, [0, 2, 3_000_000_000, 3_500_000_000]);
    assert_eq!(operations[0].lifetime, Some(Duration::from_secs(7200)), "at half the speed, twice as long");
    assert!(operations[1..].iter().all(|operation| operation.lifetime.is_none()));
    let lengths: Vec<u32> = operations.iter().map(|operation| operation.value_len).collect();
    assert_eq!(lengths, [120, 0, 0, 0]);
}

/// At a hundred times the speed, a value that lived for a minute lives for 0.6 s: else every read of the trace that found
/// nothing would find it.
#[test]
fn lifetimes_are_as_fast_as_the_trace() {
    let lifetime = |speed: Speed, seconds: u32| {
        let trace = format!("time,op,key,size,ttl\n0,set,a,5,{seconds}\n");
        let trace = Trace::read(trace.as_bytes()).expect("a trace");
        trace.into_operations(speed, 0).next().expect("a request").lifetime
    };
    let millis = |millis| Some(Duration::from_millis(millis));
    assert_eq!(lifetime(Speed::Times(100.0), 60), millis(600));
    assert_eq!(lifetime(Speed::Times(1.0), 60), millis(60_000));
    assert_eq!(lifetime(Speed::Times(1e6), 1), millis(1), "no less");
    assert_eq!(lifetime(Speed::Max, 60), millis(60_000), "there is no speed to scale it by");
    assert!(lifetime(Speed::Times(0.001), u32::MAX) > millis(1));
}

/// A value that may be gone at once is never lost: whoever replays a hundred times as fast must know how many are such.
#[test]
fn values_whose_loss_cannot_be_told_are_counted() {
    let trace = "time,op,key,size,ttl\n0,set,a,5,100\n1,set,b,5,110\n2,set,c,5,1\n3,set,d,5,0\n4,get,a,,1\n";
    let trace = Trace::read(trace.as_bytes()).expect("a trace");
    for (speed, forgiven) in [
        (Speed::Times(100.0), 2),
        (Speed::Times(1.0), 1),
        (Speed::Times(0.5), 0),
        (Speed::Times(1000.0), 3),
        (Speed::Max, 1),
    ] {
        assert_eq!(trace.forgiven(speed), (forgiven, 4), "{speed}");
    }
}

/// No run is longer than a thousand hours, and the sum of nanoseconds must not overflow before that is told.
#[test]
fn a_trace_that_takes_too_long_is_refused() {
    let last = u64::MAX / SECOND_NS;
    let trace = format!("time,op,key\n0,get,a\n{last},get,a\n{last},get,b\n{last},get,c\n{last},get,d\n");
    let trace = Trace::read(trace.as_bytes()).expect("a trace");
    let error = trace.refuse_too_long(Speed::Times(100.0)).expect_err("585 years").to_string();
    assert!(error.starts_with("at 100x the trace takes 51241 hours, and a run 1000 at most"), "{error}");
    assert!(trace.refuse_too_long(Speed::Times(1e6)).is_ok() && trace.refuse_too_long(Speed::Max).is_ok());
    let due: Vec<u64> =
        trace.into_operations(Speed::Times(1.0), 0).map(|operation| operation.due_ns).collect();
    assert!(due.is_sorted(), "{due:?}");
}

/// What somebody's editor or archive made of a trace.
#[test]
fn other_files_are_told_as_what_they_are() {
    let trace =
        Trace::read("\u{feff}time,op,key\n0,get,a\n".as_bytes()).expect("a byte order mark is no text");
    assert_eq!(trace.requests(), 1);
    for (bytes, expected) in [
        (&[0x28, 0xb5, 0x2f, 0xfd, 4, 0, 0xff][..], "compressed by zstd: decompress it first"),
        (&[0x1f, 0x8b, 8, 0, 0xff][..], "compressed by gzip"),
        (&[0xff, 0xfe, b't', 0][..], "line 1: "),
        (&b"time,op,key\n0,get,\xff\n"[..], "line 2: invalid utf-8"),
    ] {
        let error = Trace::read(bytes).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// A file without an end of line is read no further than a line may reach.
#[test]
fn an_endless_line_takes_no_memory() {
    let endless = || io::BufReader::new(io::repeat(b'x'));
    let error = Trace::read(endless()).expect_err("no end").to_string();
    assert_eq!(error, "line 1: it is longer than 131072 bytes");
    let second = (&b"time,op,key\n0,get,"[..]).chain(io::repeat(b'x'));
    let error = Trace::read(io::BufReader::new(second)).expect_err("no end").to_string();
    assert!(error.starts_with("line 2: it is longer"), "{error}");
    let long = "k".repeat(65_536);
    assert!(Trace::read(format!("time,op,key\n0,get,{long}\n").as_bytes()).is_ok());
}

#[test]
fn columns_stand_in_any_order_and_more_may_be_there() {
    let trace = "client,key,time,op\n4,a,7,get\n4,a,7,get\n5,b,8,gets\n";
    let trace = Trace::read(trace.as_bytes()).expect("a trace");
    let due: Vec<u64> =
        trace.into_operations(Speed::Times(1.0), 0).map(|operation| operation.due_ns).collect();
    assert_eq!(
        due,
        [0, 500_000_000, 1_000_000_000],
        "without decimals, a second's requests are spread over it"
    );
}

#[test]
fn mistakes_in_requests_are_named_with_their_line() {
    for (rows, expected) in [
        ("1,set,a,5,0\n2,set,a,x,0", "line 3: size 'x' is no number"),
        ("1,set,a,,0", "line 2: size '' is no number"),
        ("1,scan,a,5,0", "line 2: op 'scan' is no operation"),
        ("1,get,,5,0", "line 2: the key is empty"),
        ("-1,get,a,5,0", "line 2: time '-1' is no number of seconds"),
        ("1.0000000001,get,a,5,0", "line 2: time '1.0000000001'"),
        ("99999999999999999999,get,a,5,0", "line 2: time"),
        ("1,get,a,5,soon", "line 2: ttl 'soon' is no number"),
        ("1,set,a,8388609,0", "line 2: 8388609 bytes are beyond"),
        ("1,get,a", "line 2: 3 columns, where the header has 5"),
        ("2.5,get,a,5,0\n2.25,get,a,5,0", "line 3: second 2.25 comes after second 2.5"),
        ("", "no requests"),
    ] {
        let text = format!("time,op,key,size,ttl\n{rows}");
        let error = Trace::read(text.as_bytes()).expect_err(rows).to_string();
        assert!(error.contains(expected), "{rows:?}: {error}");
    }
    for header in ["time,op", "time,op,key,key", "key"] {
        assert!(matches!(Trace::read(header.as_bytes()), Err(TraceError::Header(_))), "{header}");
    }
}

#[test]
fn speeds_are_times_or_max() {
    let parse = |text: &str| text.parse::<Speed>();
    for (text, speed) in [
        ("1x", Speed::Times(1.0)),
        ("10", Speed::Times(10.0)),
        ("0.5x", Speed::Times(0.5)),
        ("max", Speed::Max),
    ] {
        assert_eq!(parse(text), Ok(speed), "{text}");
    }
    for text in ["", "x", "0x", "-1x", "fast", "NaN", "2000000x"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn requests_are_spread_over_their_second() {
    let trace = read("1,100,2a,512,7\n1,100,28,512,7\n1,100,28,4096,8\n1,100,42,0,7\n1,103,2a,100,9\n");
    let trace = trace.expect("a trace");
    assert_eq!((trace.requests(), trace.objects()), (5, 3));
    assert_eq!((trace.length_min(), trace.length_max()), (0, 4096));
    assert_eq!(trace.span_ns(), 3_000_000_000);
    assert_eq!(trace.preload(), [Preload { key: Key(1), value_len: 4096, lifetime: None }]);

    let operations: Vec<Operation> = trace.into_operations(Speed::Times(100.0), 50).collect();
    let due: Vec<u64> = operations.iter().map(|operation| operation.due_ns).collect();
    assert_eq!(due, [0, 2_500_000, 5_000_000, 7_500_000, 30_000_000]);
    let kinds: Vec<Kind> = operations.iter().map(|operation| operation.kind).collect();
    assert_eq!(kinds, [Kind::Write, Kind::Read, Kind::Read, Kind::Delete, Kind::Write]);
    let first = operations[0];
    assert_eq!((first.number, first.key, first.value_len), (50, Key(0), 512));
    assert_eq!(operations[1].value_len, 0, "a read writes nothing");
}

#[test]
fn mistakes_are_named_with_their_line() {
    let mistakes = [
        ("1,100,2a,512", "line 2: 4 columns, where the header has 5"),
        ("1,100,2a,512,7,8", "line 2: 6 columns"),
        ("", "no requests"),
        ("1,100,2a,512,7\n\n", "line 3: 1 columns"),
        ("1,100,2a,512,7\n1,x,2a,512,7", "line 3: time 'x' is no number"),
        ("2,100,2a,512,7", "line 2: version 2"),
        ("1,100,zz,512,7", "line 2: op 'zz' is no number"),
        ("1,100,12,512,7", "line 2: operation code 12 is no read"),
        ("1,100,2a,8388609,7", "line 2: 8388609 bytes are beyond"),
        ("1,100,2a,512,7\n1,99,2a,512,7", "line 3: second 99 comes after second 100"),
    ];
    for (rows, expected) in mistakes {
        let error = read(rows).expect_err(rows).to_string();
        assert!(error.contains(expected), "{rows:?}: {error}");
    }
    let other = Trace::read("time,key\n1,2\n".as_bytes()).expect_err("another format").to_string();
    assert!(other.contains("'time,key' is no header of a trace"), "{other}");
    assert!(matches!(Trace::read("".as_bytes()), Err(TraceError::Empty)));
}

/// The figures of the trace's own description hold, and most reads come before any write of their object.
#[test]
#[ignore = "needs cloudphysics-io.csv: RINGMAIN_DATA=FOLDER cargo test -p loadgen the_real_trace -- --ignored"]
fn the_real_trace_is_read_whole() {
    let folder = std::env::var_os("RINGMAIN_DATA").expect("RINGMAIN_DATA names the folder of the trace");
    let file = File::open(PathBuf::from(folder).join("cloudphysics-io.csv")).expect("the trace");
    let trace = Trace::read(BufReader::new(file)).expect("the real trace");
    assert_eq!((trace.requests(), trace.objects()), (113_872, 48_974));
    assert_eq!((trace.length_min(), trace.length_max()), (512, 69_632));
    assert!((7000..7400).contains(&(trace.span_ns() / SECOND_NS)), "{} s", trace.span_ns() / SECOND_NS);
    let preload = trace.preload().len();
    assert!((1000..48_974).contains(&preload), "{preload}");
    let operations: Vec<Operation> = trace.into_operations(Speed::Times(100.0), 0).collect();
    assert!(operations.is_sorted_by_key(|operation| operation.due_ns));
    assert_eq!(operations.iter().filter(|operation| operation.kind == Kind::Read).count(), 46_974);
}
