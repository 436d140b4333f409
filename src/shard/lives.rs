//! Processes under one name: who is turned away, who is fenced, and what others take from either (docs/adr/0015).

use ringmain_schema::message::{ErrorAnswer, ErrorCode, Hello, Role};
use ringmain_schema::{Flags, Frame};

use crate::failpoint::{Bug, Failpoints, Rare};
use crate::id::{ConnectionId, NodeId};
use crate::membership::Health;
use crate::time::Now;

use super::Shard;
use super::io::Output;
use super::links::LinkId;
use super::sessions::Session;

/// Why somebody is not taken for a client or a peer.
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What either side of such a link says.
pub(super) const TAKEN_OVER: &str = "another process has taken this node's name over";

impl<F: Failpoints> Shard<F> {
    /// Whoever starts under a name whose process is there is turned away: it has taken nothing over yet, and the other
    /// goes on undisturbed. One that serves is let in, whatever else it is: turned away it would never hear that it is not
    /// the only one, and serve on alone. So is one that was taken over from.
    pub(super) fn check_life(&self, now: Now, hello: &Hello<'_>) -> Result<(), Refusal> {
        let (node, life) = (NodeId(hello.peer.node), hello.peer.life);
        let Some(member) = self.view.member(node).filter(|_| hello.role == Role::Peer) else { return Ok(()) };
        let known = &member.oneself;
        let is_another = ![0, life].contains(&known.life) && ![0, known.succeeds].contains(&life);
        let is_there = self.links.is_up_with(node, known.life)
            && self.detector.health(now.monotonic, node) == Health::Up;
        if !is_another || !is_there || self.failpoints.planted(Bug::CloneAccepted) {
            return Ok(());
        }
        if hello.peer.serving {
            self.failpoints.reached(Rare::ServingCloneLetIn);
            return Ok(());
        }
        self.failpoints.reached(Rare::CloneTurnedAway);
        let (name, host, port) = (&member.name, &known.host, known.ordinary_port);
        let message = format!(
            "{name} runs at {host}:{port}, and a second process of that name is turned away while it is there: give \
             this one a name of its own, or stop that one first"
        );
        Err(Refusal::new(ErrorCode::NameTaken, message))
    }

    /// Has the process at the other end been taken over from? It will hear of it; until then nothing that it says counts.
    /// One at the same incarnation as another may have restarted, and have lost the last that its disk was given: what it
    /// writes has to reach its peers (the simulator's seed 34 of base 0).
    pub(super) fn is_succeeded(&self, link: LinkId) -> bool {
        let Some(member) = self.view.member(link.node) else { return false };
        let (incarnation, life) = self.links.process(link);
        let known = &member.oneself;
        // Another in between may have taken over before the one that is there now. Whoever has just begun shows itself in
        // gossip before anything else.
        ![0, known.life].contains(&life)
            && known.life != 0
            && (known.succeeds == life || known.incarnation.0 > incarnation)
            && !self.failpoints.planted(Bug::CloneAccepted)
    }

    pub(super) fn refuse_succeeded(&mut self, connection: ConnectionId, frame: &Frame<'_>, out: &mut Output) {
        self.refuse_data(connection, frame, TAKEN_OVER, out);
    }

    /// What a peer had sent is on this process's record, which is not the node's any more. Whoever waits is told so.
    pub(super) fn refuse_as_fenced(&mut self, connection: ConnectionId, request_id: u64, out: &mut Output) {
        let error = ErrorAnswer::new(ErrorCode::NotServing, TAKEN_OVER);
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| error.encode(encoder, request_id, Flags::NONE, bytes));
    }

    /// A fenced process lets go of all others: nothing that it has asked will be answered, and nobody takes it for the
    /// node any more.
    pub(super) fn part_if_fenced(&mut self, now: Now, out: &mut Output) {
        if !self.view.is_fenced() {
            return;
        }
        let is_link = |session: &Session| matches!(session, Session::Peer(_) | Session::Called(_));
        let links: Vec<ConnectionId> =
            self.sessions.iter().filter(|(_, session)| is_link(session)).map(|(id, _)| *id).collect();
        links.into_iter().for_each(|connection| self.close(now, connection, out));
    }

    /// Whoever was called has refused to be a peer.
    pub(super) fn on_refused(&mut self, called: LinkId, frame: &Frame<'_>, out: &mut Output) {
        let Ok(error) = ErrorAnswer::parse(frame) else { return };
        let (host, port) = self.address(called).unwrap_or_else(|| ("a seed".into(), 0));
        let own = &self.view.myself().oneself;
        if (&host, port) == (&own.host, own.ordinary_port) {
            // A node that is among its own seeds.
            return;
        }
        let address = format!("{host}:{port}");
        let Some(membership) = &mut self.membership else { return };
        let before = membership.oneself().clone();
        if error.code == ErrorCode::NameTaken {
            membership.on_turned_away(called.node);
        }
        if membership.on_refused(called.node, &address, error.message) || membership.oneself() != &before {
            self.on_membership_changed(&before, out);
        }
    }

    /// Somebody is about to be refused.
    pub(super) fn on_refusing(&mut self, hello: &Hello<'_>, why: &str, out: &mut Output) {
        let is_me = hello.peer.node == self.view.me.0 && hello.peer.life == self.view.myself().oneself.life;
        let Some(membership) = self.membership.as_mut().filter(|_| hello.role == Role::Peer && !is_me) else {
            return;
        };
        let before = membership.oneself().clone();
        if membership.on_refusing(NodeId(hello.peer.node), why) {
            self.on_membership_changed(&before, out);
        }
    }
}
