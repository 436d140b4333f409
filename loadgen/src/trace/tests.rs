//! Small traces by hand, and the real one where it is at hand.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use super::*;

fn read(rows: &str) -> Result<Trace, TraceError> {
    Trace::read(format!("{HEADER}\n{rows}").as_bytes())
}

#[test]
fn requests_are_spread_over_their_second() {
    let trace = read("1,100,2a,512,7\n1,100,28,512,7\n1,100,28,4096,8\n1,100,42,0,7\n1,103,2a,100,9\n");
    let trace = trace.expect("a trace");
    assert_eq!((trace.requests(), trace.objects()), (5, 3));
    assert_eq!((trace.length_min(), trace.length_max()), (0, 4096));
    assert_eq!(trace.span_ns(), 3_000_000_000);
    assert_eq!(trace.preload(), [Preload { key: Key(1), value_len: 4096, lifetime: None }]);

    let operations: Vec<Operation> = trace.into_operations(100.0, 50).collect();
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
        ("1,100,2a,512", "line 2: 4 columns"),
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
    assert!(other.contains("'time,key' is not the header"), "{other}");
    assert!(matches!(Trace::read("".as_bytes()), Err(TraceError::Empty)));
}

/// The figures of the trace's own description hold, and most reads come before any write of their object.
#[test]
fn the_real_trace_is_read_whole() {
    let folder = std::env::var_os("RINGMAIN_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let path = folder.join("cloudphysics-io.csv");
    let Ok(file) = File::open(&path) else {
        eprintln!("skipped: {} is absent; set RINGMAIN_DATA to the folder that has it", path.display());
        return;
    };
    let trace = Trace::read(BufReader::new(file)).expect("the real trace");
    assert_eq!((trace.requests(), trace.objects()), (113_872, 48_974));
    assert_eq!((trace.length_min(), trace.length_max()), (512, 69_632));
    assert!((7000..7400).contains(&(trace.span_ns() / SECOND_NS)), "{} s", trace.span_ns() / SECOND_NS);
    let preload = trace.preload().len();
    assert!((1000..48_974).contains(&preload), "{preload}");
    let operations: Vec<Operation> = trace.into_operations(100.0, 0).collect();
    assert!(operations.is_sorted_by_key(|operation| operation.due_ns));
    assert_eq!(operations.iter().filter(|operation| operation.kind == Kind::Read).count(), 46_974);
}
