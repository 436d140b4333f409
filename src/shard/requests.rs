//! Requests about keys: parsed, checked, and sent where they can be coordinated.

use std::collections::BTreeSet;

use ringmain_schema::limits::KEY_BYTES_MAX;
use ringmain_schema::message::{ErrorAnswer, ErrorCode, Get, Put};
use ringmain_schema::{Flags, Frame, Kind, token};

use crate::causality::VersionVector;
use crate::coordinator::{Role, share};
use crate::failpoint::Failpoints;
use crate::id::{OperationId, PartitionId};
use crate::replica::{Covered, Place, Write};
use crate::time::{Duration, Now, WallTime};

use super::Shard;
use super::answer::Origin;
use super::io::Output;
use super::loads::From;
use super::puts::Asked;
use super::relay::{HOPS_MAX, Nearest};

impl<F: Failpoints> Shard<F> {
    /// A request from a client, a sibling or a peer. `cap` bounds its budget, where it was passed on.
    pub(super) fn on_request(
        &mut self,
        now: Now,
        origin: Origin,
        frame: &Frame<'_>,
        cap: Option<Duration>,
        out: &mut Output,
    ) {
        if self.stopping {
            let message = "this node is stopping: ask another";
            return self.answer_code(out, origin, ErrorCode::ShuttingDown, message);
        }
        if self.view.is_going(self.view.me) && frame.header.kind != Kind::CHANGE {
            let message = "this node leaves the cluster: ask another";
            return self.answer_code(out, origin, ErrorCode::ShuttingDown, message);
        }
        match frame.header.kind {
            Kind::MULTI_GET | Kind::MULTI_PUT => {
                self.counters.batches += 1;
                self.on_multi(now, origin, frame, cap, out);
            }
            Kind::GET | Kind::PUT | Kind::DELETE => self.on_key_request(now, origin, frame, cap, out),
            Kind::CHANGE => self.on_change(now, origin, frame, cap, out),
            _ => self.answer_code(
                out,
                origin,
                ErrorCode::Unsupported,
                "only requests about keys and changes of members are passed on",
            ),
        }
    }

    /// A request about one key. `cap` bounds its budget, where it is part of a batch or was passed on.
    pub(super) fn on_key_request(
        &mut self,
        now: Now,
        origin: Origin,
        frame: &Frame<'_>,
        cap: Option<Duration>,
        out: &mut Output,
    ) {
        self.pace.on_foreground();
        if !self.view.is_serving() {
            let message = self.view.why_not_serving();
            return self.answer_code(out, origin, ErrorCode::NotServing, &message);
        }
        let result = match frame.header.kind {
            Kind::GET => self.on_get(now, origin, frame, cap, out),
            _ => self.on_put(now, origin, frame, cap, out),
        };
        if let Err((code, message)) = result {
            let limit = match code {
                ErrorCode::TooLarge if message == KEY_TOO_LARGE => KEY_BYTES_MAX as u64,
                ErrorCode::TooLarge => u64::from(self.options.value_bytes_max),
                _ => 0,
            };
            self.answer_error(out, origin, &ErrorAnswer { limit, ..ErrorAnswer::new(code, &message) });
        }
    }

    fn on_get(
        &mut self,
        now: Now,
        origin: Origin,
        frame: &Frame<'_>,
        cap: Option<Duration>,
        out: &mut Output,
    ) -> Result<(), Problem> {
        let get = Get::parse(frame).map_err(bad_request)?;
        check_key(get.key)?;
        let place = self.place(get.key);
        let budget = self.budget(get.budget_us, cap);
        if !self.coordinates(now, place) || self.leaves_to_another(now, origin, frame, place.partition) {
            self.pass_on(now, origin, frame, place, budget, out);
            return Ok(());
        }
        let at_least = self.open_context(get.key, get.at_least)?;
        let needed = self.quorum(get.read, self.options.read, get.primaries)?;
        self.check_epoch(place.partition, false)?;
        self.counters.gets += 1;
        self.coordinate_get(now, origin, place, needed, at_least, get.latest, budget, out);
        Ok(())
    }

    fn on_put(
        &mut self,
        now: Now,
        origin: Origin,
        frame: &Frame<'_>,
        cap: Option<Duration>,
        out: &mut Output,
    ) -> Result<(), Problem> {
        let put = Put::parse(frame).map_err(bad_request)?;
        check_key(put.key)?;
        self.check_value(&put)?;
        let place = self.place(put.key);
        let budget = self.budget(put.budget_us, cap);
        if !self.coordinates(now, place) || self.leaves_to_another(now, origin, frame, place.partition) {
            self.pass_on(now, origin, frame, place, budget, out);
            return Ok(());
        }
        self.check_epoch(place.partition, true)?;
        let covered = if put.overwrite {
            Covered::Everything
        } else {
            Covered::Context(self.open_context(put.key, put.context)?)
        };
        let [needed, primaries] = self.quorum(put.write, self.options.write, put.primaries)?;
        self.check_zones(place.partition, put.zones)?;
        let asked = Asked { write: needed, primaries, zones: put.zones };
        let expiry_us = now.wall.0.saturating_add(put.ttl_ms.saturating_mul(1000));
        let write = Write {
            value: put.value,
            covered,
            expiry: (put.ttl_ms > 0).then_some(WallTime(expiry_us)),
            operation: OperationId { client: put.operation_client, sequence: put.operation_sequence },
        };
        if self.write_needs_values(place, &write) {
            self.park(now, From::Request(origin), place, frame, budget, out);
            return Ok(());
        }
        match put.value {
            Some(_) => self.counters.puts += 1,
            None => self.counters.deletes += 1,
        }
        self.coordinate_put(now, origin, place, asked, write, budget, out);
        Ok(())
    }

    /// A node that has lost its records, or has promised to keep nothing of this epoch, coordinates nothing that it might
    /// have to give up again.
    pub(super) fn is_held_up(&self, partition: PartitionId, writes: bool) -> bool {
        match self.role(partition) {
            _ if !self.is_met(partition) => true,
            Role::Primary => self.has_promised(partition) && writes,
            Role::Fallback => !self.takes_hints(partition) && writes,
        }
    }

    /// Is it passed on for that, to the next who could coordinate it? Unless the client wants to choose itself.
    fn leaves_to_another(&self, now: Now, origin: Origin, frame: &Frame<'_>, partition: PartitionId) -> bool {
        !frame.header.flags.contains(Flags::DIRECT)
            && origin.hops() < HOPS_MAX
            && self.is_held_up(partition, frame.header.kind != Kind::GET)
            && self.next_in_line(now.monotonic, partition).is_some()
    }

    fn check_epoch(&self, partition: PartitionId, writes: bool) -> Result<(), Problem> {
        if !self.is_held_up(partition, writes) {
            return Ok(());
        }
        let message = "this node may take no writes to the key until it has met the others, or a round of reaping has \
                       ended: nothing was written; retry, or ask another";
        Err((ErrorCode::NotServing, message.to_owned()))
    }

    fn check_value(&self, put: &Put<'_>) -> Result<(), Problem> {
        if put.value.is_some_and(|value| value.len() > self.options.value_bytes_max as usize) {
            let message = format!(
                "a value may have {} bytes: split it, or raise value_bytes_max on all nodes",
                self.options.value_bytes_max
            );
            return Err((ErrorCode::TooLarge, message));
        }
        if put.overwrite && !put.context.is_empty() {
            let message =
                "an overwrite replaces whatever there is, and takes no context: send one or the other";
            return Err((ErrorCode::BadRequest, message.to_owned()));
        }
        if put.value.is_none() && !put.overwrite && put.context.is_empty() {
            let message = "a delete needs the context of what it deletes, or overwrite";
            return Err((ErrorCode::BadRequest, message.to_owned()));
        }
        Ok(())
    }

    fn open_context(&self, key: &[u8], sealed: &[u8]) -> Result<VersionVector, Problem> {
        if sealed.is_empty() {
            return Ok(VersionVector::new());
        }
        self.context_key.open(key, sealed).map_err(|error| (ErrorCode::BadContext, error.to_string()))
    }

    /// R or W, the request's own, else the configured one, else 0 for a majority of N; and how many of them must be
    /// primaries.
    fn quorum(&self, asked: u8, configured: u8, primaries: u8) -> Result<[u8; 2], Problem> {
        let next = self.view.change.as_ref().map_or(0, |change| change.next.replicas());
        let replicas = self.view.ring.replicas().max(next) as u8;
        if asked > replicas {
            let message = format!("{asked} replicas were asked for, and each key has {replicas}");
            return Err((ErrorCode::BadRequest, message));
        }
        let needed = if asked == 0 { configured } else { asked };
        let waited_for = share(needed, usize::from(replicas));
        if primaries > waited_for {
            let message =
                format!("{primaries} primaries were asked for, and {waited_for} replicas are waited for");
            return Err((ErrorCode::BadRequest, message));
        }
        Ok([needed, primaries])
    }

    /// The owners of a key stand in as many zones as there are, up to N.
    fn check_zones(&self, partition: PartitionId, zones: u8) -> Result<(), Problem> {
        if zones <= 1 {
            return Ok(());
        }
        let all: BTreeSet<u64> = self.owners(partition).iter().map(|node| self.view.zone(node)).collect();
        if usize::from(zones) <= all.len() {
            return Ok(());
        }
        let message = format!(
            "{zones} zones were asked for, and the copies of a key are in {}: ask for fewer, or let nodes join that \
             are started in others (--data-center, --rack)",
            all.len()
        );
        Err((ErrorCode::BadRequest, message))
    }

    pub(super) fn budget(&self, asked_us: u32, cap: Option<Duration>) -> Duration {
        let asked = match asked_us {
            0 => cap.unwrap_or(self.options.budget_default),
            asked_us => Duration::from_micros(asked_us.into()),
        };
        asked.min(cap.unwrap_or(asked)).min(self.options.budget_max)
    }

    pub(super) fn place<'a>(&self, key: &'a [u8]) -> Place<'a> {
        let token = token::token(key);
        let partition = token::partition(token, self.view.ring.partitions().count());
        Place { key, token, partition: PartitionId(partition) }
    }

    /// Is this shard the one of a primary of this key, or of the first node of the preference list that can be reached
    /// from here?
    fn coordinates(&self, now: Now, place: Place<'_>) -> bool {
        self.is_mine(place.partition)
            && (self.role(place.partition) == Role::Primary
                || self.is_sloppy()
                    && self.nearest(now.monotonic, place.partition, false) == Some(Nearest::Here))
    }

    /// Would this shard hold the partition, if its node did?
    pub(super) fn is_mine(&self, partition: PartitionId) -> bool {
        token::shard_of(partition.0, self.options.shards) == self.options.shard.0
    }

    /// This key's owner is another shard: pass the request on, unless the client wants to know instead.
    fn pass_on(
        &mut self,
        now: Now,
        origin: Origin,
        frame: &Frame<'_>,
        place: Place<'_>,
        budget: Duration,
        out: &mut Output,
    ) {
        if frame.header.flags.contains(Flags::DIRECT) {
            let epoch = self.view.epoch;
            let message = "this shard doesn't own the key: fetch the topology";
            let error = ErrorAnswer { epoch, ..ErrorAnswer::new(ErrorCode::WrongShard, message) };
            return self.answer_error(out, origin, &error);
        }
        self.relay(now, origin, frame, place.partition, budget, out);
    }
}

/// What a request is refused with.
type Problem = (ErrorCode, String);

const KEY_TOO_LARGE: &str = "a key may have 65536 bytes: use a shorter one, or a hash of it";

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn bad_request(error: ringmain_schema::Malformed) -> Problem {
    (ErrorCode::BadRequest, error.to_string())
}

fn check_key(key: &[u8]) -> Result<(), Problem> {
    if key.is_empty() {
        return Err((ErrorCode::BadRequest, "a key has at least one byte".to_owned()));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err((ErrorCode::TooLarge, KEY_TOO_LARGE.to_owned()));
    }
    Ok(())
}
