//! Membership: who is in the cluster, who serves, and who seems to be away.
//!
//! Each node keeps a record of each member and gossips them, once a second, with one random member (paper
//! §4.8.1). A record has two halves with a version each: what the member says of itself (address, heartbeat,
//! whether it serves), and what the operator wants of it. Both are merged by taking the newer, so that all
//! nodes come to hold the same records whatever the order of messages.
//!
//! **Birth.** A cluster starts from a list of founders that each of them was given, and serves when all have
//! met: each has heard from each, has chosen its incarnation, and knows that the others know it. So nobody
//! serves on a list that somebody else doesn't share, and the first reads already know whose silence counts.
//!
//! **Incarnation.** In `memory` mode a node forgets everything when it stops. It learns from the others how
//! often it had begun before, adds one, and is incomplete from then on: it doesn't say "not found" for what
//! it may have held.
//!
//! **Life.** Each process draws a number at its start, its life. It tells its own words from those of another
//! process under the same name: of two, the one that the other has taken over from is fenced (docs/adr/0015).
//!
//! **Change.** An operator's [`Word`] makes other records; they spread like all records, and the ring follows them.
//!
//! **Suspicion** ([`FailureDetector`]) is each shard's own opinion. It changes where requests go, never the
//! ring (paper §4.8.3).

mod cluster;
mod detector;
#[cfg(test)]
mod hostile_tests;
mod layout;
#[cfg(test)]
mod layout_tests;
mod line;
mod lives;
#[cfg(test)]
mod lives_tests;
mod member;
mod partition_set;
mod records;
mod trouble;
mod view;
mod word;
mod zones;

pub use cluster::{Founder, Founders, InvalidFounders, cluster_id, node_id};
pub use detector::{FailureDetector, Health, PATIENCE_MAX, PATIENCE_MIN, PHI_SUSPECTED, PROBE_AFTER};
pub use member::{Intent, Member, Oneself, Settled, Step, Works};
pub use partition_set::PartitionSet;
pub use records::{BORN, GOSSIP_EVERY, Membership, MembershipOptions, Place};
pub use trouble::Trouble;
pub use view::{Change, View};
pub use word::{Outcome, Refused, Word};
pub use zones::Distance;
