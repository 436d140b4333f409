//! What is left out of a run, so as to find the smallest one that still fails.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A kind of fault or of strain that a plan may hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// Messages are lost.
    Loss,
    /// Messages come twice.
    Duplication,
    /// Messages are late, and overtake one another.
    Delay,
    /// Links stand still for seconds.
    Clog,
    /// Groups of nodes don't hear one another.
    Partition,
    /// Processes die.
    Crash,
    /// Processes stand still.
    Pause,
    /// Disks come back empty.
    Wipe,
    /// Disks come back as they were long ago.
    OldImage,
    /// What was not synced is lost in part.
    Torn,
    /// A disk fails to sync.
    SyncError,
    /// A disk is full for a while.
    DiskFull,
    /// Wall clocks jump.
    ClockJump,
    /// Rare choices are forced.
    RareChoices,
    /// Tables are small.
    SmallTables,
    /// Values expire.
    TimeToLive,
    /// A node of another cluster calls.
    Stranger,
    /// All nodes die at once.
    PowerLoss,
    /// The operator changes the members.
    Churn,
    /// A second process starts under a node's name.
    Clone,
    /// Removed machines come back.
    Return,
    /// Inputs wait for shards that have much to do.
    Waits,
    /// Disks come back with sectors that are wrong.
    Damage,
    /// The cluster has a secret, and somebody calls who doesn't know it.
    Secret,
    /// Nodes stand in several racks, and writes ask for some of them.
    Racks,
    /// What was deleted is forgotten.
    Reaping,
    /// Nodes have a limit on their memory.
    Memory,
}

impl Fault {
    /// All of them, with their names.
    pub const ALL: [(Self, &str); 27] = [
        (Self::Loss, "loss"),
        (Self::Duplication, "duplication"),
        (Self::Delay, "delay"),
        (Self::Clog, "clog"),
        (Self::Partition, "partition"),
        (Self::Crash, "crash"),
        (Self::Pause, "pause"),
        (Self::Wipe, "wipe"),
        (Self::OldImage, "old-image"),
        (Self::Torn, "torn"),
        (Self::SyncError, "sync-error"),
        (Self::DiskFull, "disk-full"),
        (Self::ClockJump, "clock-jump"),
        (Self::RareChoices, "rare-choices"),
        (Self::SmallTables, "small-tables"),
        (Self::TimeToLive, "time-to-live"),
        (Self::Stranger, "stranger"),
        (Self::PowerLoss, "power-loss"),
        (Self::Churn, "churn"),
        (Self::Clone, "clone"),
        (Self::Return, "return"),
        (Self::Waits, "waits"),
        (Self::Damage, "damage"),
        (Self::Secret, "secret"),
        (Self::Racks, "racks"),
        (Self::Reaping, "reaping"),
        (Self::Memory, "memory"),
    ];
}

/// What is left out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cut {
    /// These kinds of faults.
    pub without: BTreeSet<Fault>,
    /// All operations after so many.
    pub operations: Option<u32>,
    /// Deeds, by their number in the plan.
    pub deeds: BTreeSet<usize>,
}

/// `loss,crash;operations=120;deeds=3,7`: what `--cut` takes.
impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Fault::ALL.iter().filter(|(fault, _)| self.without.contains(fault));
        let mut parts = vec![named.map(|(_, name)| (*name).to_owned()).collect::<Vec<_>>().join(",")];
        parts.extend(self.operations.map(|most| format!("operations={most}")));
        if !self.deeds.is_empty() {
            let deeds: Vec<_> = self.deeds.iter().map(ToString::to_string).collect();
            parts.push(format!("deeds={}", deeds.join(",")));
        }
        parts.retain(|part| !part.is_empty());
        f.write_str(&parts.join(";"))
    }
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cut = Self::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let number = |text: &str| text.parse().map_err(|_| format!("'{text}' is no number"));
            if let Some(most) = part.strip_prefix("operations=") {
                cut.operations = Some(number(most)?);
            } else if let Some(deeds) = part.strip_prefix("deeds=") {
                for deed in deeds.split(',') {
                    cut.deeds.insert(number(deed)? as usize);
                }
            } else {
                for name in part.split(',') {
                    let fault = Fault::ALL.iter().find(|(_, known)| *known == name);
                    let (fault, _) = fault.ok_or_else(|| {
                        let known: Vec<_> = Fault::ALL.iter().map(|(_, name)| *name).collect();
                        format!("'{name}' is no fault; there are {}", known.join(", "))
                    })?;
                    cut.without.insert(*fault);
                }
            }
        }
        Ok(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_survives_the_command_line() {
        let cut =
            Cut { without: [Fault::Loss, Fault::Crash].into(), operations: Some(120), deeds: [3, 7].into() };
        assert_eq!(cut.to_string(), "loss,crash;operations=120;deeds=3,7");
        assert_eq!(cut.to_string().parse(), Ok(cut));
        assert_eq!("".parse(), Ok(Cut::default()));
        assert!("los".parse::<Cut>().unwrap_err().contains("there are loss, dup"));
    }
}
