//! A client's requests as bytes, and answers as what they mean for it.

use ringmain::causality::ContextKey;
use ringmain::id::ClusterId;
use ringmain::time::Duration;
use ringmain_schema::limits::{PROTOCOL_MAX, PROTOCOL_MIN};
use ringmain_schema::message::{
    ErrorAnswer, ErrorCode, Get, Got, Hello, MultiWriter, PeerHello, Put, Role, Stored,
};
use ringmain_schema::{Encoder, Flags, Frame, Kind};

use super::routing::Manner;
use super::{Client, Context, Intent, Item, Job, Replaced};
use crate::dots::name_of;
use crate::history::{Reading, Receipt};
use crate::world::World;

/// What an answer means.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// A read's, with how many fallbacks it rests on.
    Read(Reading, Context, u8),
    /// A write's, the same.
    Stored(Receipt, Context, u8),
    /// Nothing was applied: it may be tried again.
    Refused(ErrorCode),
    /// Nothing was applied, and trying again won't help.
    Denied(ErrorCode),
    /// It may have been applied.
    Doubtful,
}

impl Client {
    pub(super) fn hello(&self, cluster: ClusterId) -> Vec<u8> {
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            role: Role::Client,
            cluster: if self.names_cluster { cluster.0 } else { 0 },
            secret: self.secret,
            software: "simulated",
            peer: PeerHello::default(),
        };
        let mut bytes = Vec::new();
        hello.encode(&mut Encoder::default(), 0, &mut bytes);
        bytes
    }

    /// How many primaries it wants among the replicas that it asks for.
    const fn primaries_of(&self, asked: u8, own: u8) -> u8 {
        match (self.wants_primaries, asked) {
            (false, _) => 0,
            (true, 0) => own,
            (true, asked) => asked,
        }
    }

    /// A job's request under this id. In a batch the budget is given once, for each item, or both.
    pub(super) fn request(&mut self, job: &Job, id: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let budget_us = job.budget.as_micros() as u32;
        if !job.is_batch {
            self.item(&job.items[0], id, job.manner, budget_us, &mut bytes);
            return bytes;
        }
        let [whole_us, each_us] = match self.prng.below(3) {
            0 => [budget_us, 0],
            1 => [0, budget_us],
            _ => [budget_us, budget_us],
        };
        let mut batch = MultiWriter { count: job.items.len() as u32, ..MultiWriter::default() };
        for item in &job.items {
            self.item(item, place_of(item), job.manner, each_us, &mut batch.items);
        }
        let kind = if job.items[0].intent.is_write() { Kind::MULTI_PUT } else { Kind::MULTI_GET };
        batch.encode(&mut Encoder::default(), kind, Flags::NONE, id, whole_us, &mut bytes);
        bytes
    }

    fn item(&self, item: &Item, id: u64, manner: Manner, budget_us: u32, bytes: &mut Vec<u8>) {
        let Manner { epoch, flags } = manner;
        let encoder = &mut Encoder::default();
        let key = &World::key_name(item.intent.key());
        match &item.intent {
            Intent::Get { read, latest, .. } => {
                let primaries = self.primaries_of(*read, self.quorums[0]);
                let at_least = &item.context;
                let get = Get { key, read: *read, budget_us, latest: *latest, at_least, epoch, primaries };
                get.encode(encoder, id, flags, bytes);
            }
            Intent::Write { replaced, write, time_to_live, zones, .. } => {
                let name = name_of(self.number, item.number);
                let put = Put {
                    key,
                    value: item.value.as_deref(),
                    write: *write,
                    budget_us,
                    context: &item.context,
                    overwrite: *replaced == Replaced::Everything,
                    ttl_ms: time_to_live.map_or(0, Duration::as_millis),
                    operation_client: if item.is_named { name.client } else { 0 },
                    operation_sequence: if item.is_named { name.sequence } else { 0 },
                    epoch,
                    primaries: self.primaries_of(*write, self.quorums[1]),
                    zones: *zones,
                };
                put.encode(encoder, id, flags, bytes);
            }
        }
    }
}

/// The name of an item within its batch.
pub(super) fn place_of(item: &Item) -> u64 {
    item.number.0.into()
}

/// What an answer says; `None` if it can't be read.
pub(super) fn read_answer(frame: &Frame<'_>, key: &[u8], context_key: &ContextKey) -> Option<Answer> {
    let open = |sealed: &[u8]| -> Option<Context> {
        (!sealed.is_empty()).then(|| {
            let opened = context_key.open(key, sealed).expect("a reply's context is the cluster's own");
            Context { sealed: sealed.to_vec(), opened }
        })
    };
    let read = |values: Vec<Vec<u8>>, sealed: &[u8], [nodes, fallbacks]: [u8; 2]| {
        let context = open(sealed);
        let opened = context.as_ref().map(|context| context.opened.clone());
        Answer::Read(Reading { values, context: opened, nodes }, context.unwrap_or_default(), fallbacks)
    };
    match frame.header.kind {
        Kind::GOT => {
            let got = Got::parse(frame).ok()?;
            let values = got.versions.iter().map(|(_, value)| value.to_vec()).collect();
            Some(read(values, got.context, [got.nodes, got.fallbacks]))
        }
        Kind::STORED => {
            let stored = Stored::parse(frame).ok()?;
            let context = open(stored.context);
            let opened = context.as_ref().map(|context| context.opened.clone());
            let receipt = Receipt { context: opened, nodes: stored.nodes };
            Some(Answer::Stored(receipt, context.unwrap_or_default(), stored.fallbacks))
        }
        Kind::ERROR => {
            let error = ErrorAnswer::parse(frame).ok()?;
            Some(match error.code {
                ErrorCode::NotFound => read(Vec::new(), error.context, [error.nodes, error.fallbacks]),
                ErrorCode::MaybeApplied | ErrorCode::Timeout => Answer::Doubtful,
                ErrorCode::Overloaded
                | ErrorCode::Unavailable
                | ErrorCode::NotServing
                | ErrorCode::ShuttingDown
                | ErrorCode::WrongShard => Answer::Refused(error.code),
                code => Answer::Denied(code),
            })
        }
        _ => None,
    }
}
