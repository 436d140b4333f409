//! A log over real files, on a ring of its own, whose steps end as a test says.

use tempfile::TempDir;

use super::super::doorbell::Doorbell;
use super::super::net::{Event, Net};
use super::pin::Pin;
use super::{Log, LogIdentity, Way, open};
use crate::config::Sync;
use crate::id::{ClusterId, NodeId, ShardId};
use crate::shard::{Append, LogState};
use crate::time::{Duration, Instant};

const EIO: i32 = -5;

struct Course {
    log: Log,
    net: Net,
    now: Instant,
    records: u64,
    _root: TempDir,
}

impl Course {
    fn new() -> Self {
        let root = tempfile::tempdir_in(".").unwrap();
        let directory = root.path().join("shard-0");
        std::fs::create_dir(&directory).unwrap();
        let identity = LogIdentity {
            directory,
            cluster: ClusterId(1),
            node: NodeId(2),
            shard: ShardId(0),
            segment_bytes: 16 * 4096,
            record_bytes_max: 4096,
            adopt: false,
        };
        let opened = open(&identity, |_, _, _| Ok(false)).unwrap();
        let pin = Pin::of(root.path()).unwrap();
        let log = Log::new(ShardId(0), Sync::Always, opened, pin).unwrap();
        let net = Net::new(&Doorbell::new().unwrap(), Vec::new(), 1 << 20).unwrap();
        Self { log, net, now: Instant(1_000_000_000), records: 0, _root: root }
    }

    fn append(&mut self) {
        self.records += 1;
        let append = Append { sequence: self.records, record: 0..100, is_marker: false };
        self.log.append(&append, &[7; 100]);
    }

    fn work(&mut self) {
        self.log.work(self.now, &mut self.net);
    }

    /// Until the kernel holds nothing of the log.
    fn finish(&mut self) {
        while self.log.is_under_way() {
            self.now = self.now + Duration::from_millis(1);
            let Self { log, net, .. } = self;
            net.poll(self.now, |net| {
                while let Some(event) = net.next_event() {
                    let Event::Disk { step, result } = event else { panic!("nobody is connected") };
                    log.on_done(step, result);
                }
            });
        }
    }
}

/// Both may end in one turn, in either order.
#[test]
fn a_group_that_ends_after_another_step_has_failed_is_told_to_nobody() {
    let mut course = Course::new();
    course.append();
    course.work();
    assert!(course.log.under_way[Way::Group as usize].is_some());
    course.log.under_way[Way::Manifest as usize] = Some(0);
    course.log.on_done(Way::Manifest as usize, EIO);
    assert_eq!(course.log.state(), LogState::Failed);
    course.finish();
    assert_eq!(course.log.take_acknowledged(), None);
}

/// A moment for which it waited was over for ever, and its shard took a whole core.
#[test]
fn a_log_that_has_failed_wants_nothing_any_more() {
    let mut course = Course::new();
    // Whoever was answered by the first group is waited for before the second.
    course.append();
    course.work();
    course.append();
    course.append();
    course.finish();
    course.append();
    course.work();
    assert!(course.log.next_timeout().is_some() || course.log.is_under_way());
    course.finish();
    course.append();
    course.log.under_way[Way::Manifest as usize] = Some(0);
    course.log.on_done(Way::Manifest as usize, EIO);
    course.now = course.now + Duration::from_secs(10);
    course.work();
    assert_eq!((course.log.next_timeout(), course.log.is_busy()), (None, false));
}

/// What was acknowledged is what was appended, and no mark is wanted before the last group is written.
#[test]
fn groups_are_acknowledged_in_their_order() {
    let mut course = Course::new();
    for last in 1..=20 {
        course.append();
        while course.log.take_acknowledged() != Some(last) {
            course.work();
            course.finish();
            course.now = course.now + Duration::from_millis(10);
        }
    }
    assert_eq!(course.log.state(), LogState::Open);
    course.now = course.now + Duration::from_secs(1);
    course.work();
    course.finish();
    assert_eq!(course.log.next_timeout(), None, "the mark is written");
}
