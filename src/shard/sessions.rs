//! Connections: who is at the other end, and the handshake by which this becomes known.

use ringmain_schema::limits::{PROTOCOL_MAX, PROTOCOL_MIN};
use ringmain_schema::message::{ErrorAnswer, ErrorCode, Hello, Ping, Ports, Role, TopologyRequest, Welcome};
use ringmain_schema::{Flags, Frame, FrameError, Kind};

use crate::failpoint::{Bug, Failpoints};
use crate::id::{ConnectionId, NodeId, ShardId};
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::answer::Origin;
use super::deadlines::Due;
use super::eviction::Need;
use super::io::Output;
use super::links::LinkId;
use super::lives::Refusal;

/// What another connection costs a shard at most, beside its buffers.
const SESSION_BYTES: usize = 1024;
/// Whoever calls must say who it is within this time.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Who is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Session {
    /// It called, and has not said who it is; it has until then to do so.
    Stranger { until: Instant },
    /// A peer that this shard called, and that has not said that it is the right one.
    Called(LinkId),
    /// A client; with the request id under which it wants to hear of topologies.
    Client { subscription: Option<u64> },
    /// A shard of another node.
    Peer(LinkId),
    /// It is being closed: what it still says is not heard.
    Leaving,
}

impl<F: Failpoints> Shard<F> {
    /// Somebody called. It may be a peer, without which nothing is forgotten where tombstones fill the memory: so it is let in as
    /// long as there is any room, as what is under way is.
    pub(super) fn on_accepted(&mut self, now: Now, connection: ConnectionId, out: &mut Output) {
        if !self.make_room(SESSION_BYTES, Need::Passing) {
            let message = "this node's memory is full: call again later, or close some connections";
            return self.hang_up(now, connection, 0, &ErrorAnswer::new(ErrorCode::Overloaded, message), out);
        }
        let until = now.monotonic + HELLO_WITHIN;
        self.sessions.insert(connection, Session::Stranger { until });
        self.deadlines.add(until, Due::Hello(connection));
    }

    /// It has not said who it is: make room for others.
    pub(super) fn on_hello_due(&mut self, now: Now, connection: ConnectionId, out: &mut Output) {
        let message = "the handshake took too long: say hello at once";
        self.hang_up(now, connection, 0, &ErrorAnswer::new(ErrorCode::Timeout, message), out);
    }

    /// It has said something, or is gone.
    fn stop_waiting_for_hello(&mut self, connection: ConnectionId) {
        if let Some(Session::Stranger { until }) = self.sessions.get(&connection) {
            self.deadlines.remove(*until, Due::Hello(connection));
        }
    }

    /// A frame arrived: to whom it goes depends on who sent it.
    pub(super) fn on_frame(
        &mut self,
        now: Now,
        connection: ConnectionId,
        frame: &Frame<'_>,
        out: &mut Output,
    ) {
        match self.sessions.get(&connection).copied() {
            Some(Session::Stranger { .. }) => {
                self.stop_waiting_for_hello(connection);
                self.on_hello(now, connection, frame, out);
            }
            Some(Session::Called(link)) => self.on_welcome(now, connection, link, frame, out),
            Some(Session::Client { .. }) => self.on_client_frame(now, connection, frame, out),
            Some(Session::Peer(link)) => self.on_peer_frame(now, connection, link, frame, out),
            Some(Session::Leaving) | None => {}
        }
    }

    /// What arrived is no frame: say so, and hang up.
    pub(super) fn on_garbled(
        &mut self,
        now: Now,
        connection: ConnectionId,
        error: FrameError,
        out: &mut Output,
    ) {
        let code = match error {
            FrameError::TooLong { .. } => ErrorCode::TooLarge,
            _ => ErrorCode::BadRequest,
        };
        let limit = match error {
            FrameError::TooLong { limit, .. } => limit as u64,
            _ => 0,
        };
        let message = error.to_string();
        self.hang_up(now, connection, 0, &ErrorAnswer { limit, ..ErrorAnswer::new(code, &message) }, out);
    }

    /// The connection is gone.
    pub(super) fn on_closed(&mut self, now: Now, connection: ConnectionId, out: &mut Output) {
        self.stop_waiting_for_hello(connection);
        match self.sessions.remove(&connection) {
            Some(Session::Peer(link) | Session::Called(link)) => {
                self.on_link_lost(now, link, connection, out);
            }
            Some(Session::Stranger { .. } | Session::Client { .. } | Session::Leaving) | None => {}
        }
    }

    /// Say why, then close.
    pub(super) fn hang_up(
        &mut self,
        now: Now,
        connection: ConnectionId,
        request_id: u64,
        why: &ErrorAnswer<'_>,
        out: &mut Output,
    ) {
        self.counters.frames_refused += 1;
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| why.encode(encoder, request_id, Flags::NONE, bytes));
        self.close(now, connection, out);
    }

    /// Close once what was delivered has left. A link is lost at once: the other end may take its time to close.
    pub(super) fn close(&mut self, now: Now, connection: ConnectionId, out: &mut Output) {
        out.closes.push(connection);
        self.stop_waiting_for_hello(connection);
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        if let Session::Peer(link) | Session::Called(link) = std::mem::replace(session, Session::Leaving) {
            self.on_link_lost(now, link, connection, out);
        }
    }

    fn on_hello(&mut self, now: Now, connection: ConnectionId, frame: &Frame<'_>, out: &mut Output) {
        let id = frame.header.request_id;
        if frame.header.kind != Kind::HELLO {
            let message = "the first frame of a connection must be a hello";
            return self.hang_up(now, connection, id, &ErrorAnswer::new(ErrorCode::BadRequest, message), out);
        }
        let hello = match Hello::parse(frame) {
            Ok(hello) => hello,
            Err(error) => {
                let message = error.to_string();
                return self.hang_up(
                    now,
                    connection,
                    id,
                    &ErrorAnswer::new(ErrorCode::BadRequest, &message),
                    out,
                );
            }
        };
        let checked = self.check_hello(&hello).and_then(|()| self.check_life(now, &hello));
        if let Err(Refusal { code, message }) = checked {
            self.on_refusing(&hello, &message, out);
            return self.hang_up(now, connection, id, &ErrorAnswer::new(code, &message), out);
        }
        self.welcome(connection, id, &hello, out);
        if hello.role == Role::Client {
            self.sessions.insert(connection, Session::Client { subscription: None });
            out.limits.push((connection, self.options.client_limits()));
        } else if hello.peer.target_shard == self.options.shard.0 {
            let link = LinkId { node: NodeId(hello.peer.node), shard: ShardId(hello.peer.shard) };
            self.sessions.insert(connection, Session::Peer(link));
            out.limits.push((connection, self.options.peer_limits()));
            let process = (hello.peer.incarnation, hello.peer.life);
            self.on_link_up(now, link, connection, process, out);
        } else {
            // It called the ordinary port, and another shard took it: the welcome tells where to call.
            self.close(now, connection, out);
        }
    }

    fn check_hello(&self, hello: &Hello<'_>) -> Result<(), Refusal> {
        if hello.protocol_min > PROTOCOL_MAX || hello.protocol_max < PROTOCOL_MIN {
            let message = format!(
                "this node speaks protocol versions {PROTOCOL_MIN} to {PROTOCOL_MAX}, not {} to {}: use a \
                 client or node of a matching release",
                hello.protocol_min, hello.protocol_max
            );
            return Err(Refusal::new(ErrorCode::VersionMismatch, message));
        }
        if !same_secret(hello.secret, &self.options.secret) {
            let message = "the secret is not this cluster's: configure the same one on both ends";
            return Err(Refusal::new(ErrorCode::Unauthorized, message));
        }
        let anonymous = hello.role == Role::Client && hello.cluster == 0;
        let foreign = hello.cluster != self.view.cluster.0 && !self.failpoints.planted(Bug::AnyClusterIsMine);
        if !anonymous && foreign {
            let message = format!(
                "this is cluster {}, not {:016x}: check the address, and the cluster's name and initial members",
                self.view.cluster, hello.cluster
            );
            return Err(Refusal::new(ErrorCode::WrongCluster, message));
        }
        match hello.role {
            Role::Client => Ok(()),
            Role::Peer => self.check_peer(hello),
            _ => Err(Refusal::new(ErrorCode::BadRequest, "a hello comes from a client or a peer")),
        }
    }

    fn check_peer(&self, hello: &Hello<'_>) -> Result<(), Refusal> {
        let peer = &hello.peer;
        if peer.node == self.view.me.0 {
            let (name, oneself) = (&self.view.myself().name, &self.view.myself().oneself);
            let message = format!(
                "this is {name} itself, at {}:{}: give each node a name of its own, and don't list it among its own \
                 seeds",
                oneself.host, oneself.ordinary_port
            );
            return Err(Refusal::new(ErrorCode::WrongNode, message));
        }
        if peer.target_node != 0 && peer.target_node != self.view.me.0 {
            let message =
                format!("this is node {}, not {:016x}: check the addresses", self.view.me, peer.target_node);
            return Err(Refusal::new(ErrorCode::WrongNode, message));
        }
        if peer.node == 0 || peer.shards == 0 || peer.shard >= peer.shards {
            return Err(Refusal::new(ErrorCode::BadRequest, "a peer must say which node and shard it is"));
        }
        Ok(())
    }

    fn welcome(&mut self, connection: ConnectionId, request_id: u64, hello: &Hello<'_>, out: &mut Output) {
        let limits = self.options.client_limits();
        let oneself = &self.view.myself().oneself;
        let welcome = Welcome {
            protocol: PROTOCOL_MAX.min(hello.protocol_max),
            cluster: self.view.cluster.0,
            node: self.view.me.0,
            incarnation: oneself.incarnation.0,
            shard: self.options.shard.0,
            shard_ports: Ports::Slice(&oneself.shard_ports),
            epoch: self.view.epoch,
            value_bytes_max: self.options.value_bytes_max,
            frame_bytes_max: limits.frame_bytes_max as u32,
            requests_in_flight_max: self.options.requests_in_flight_max,
            serving: oneself.serving,
            partitions: self.view.ring.partitions().count(),
            replicas: self.options.replicas,
            life: oneself.life,
        };
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| welcome.encode(encoder, request_id, bytes));
    }

    fn on_client_frame(&mut self, now: Now, connection: ConnectionId, frame: &Frame<'_>, out: &mut Output) {
        let request_id = frame.header.request_id;
        let origin = Origin::Client { connection, request_id };
        match frame.header.kind {
            Kind::GET | Kind::PUT | Kind::DELETE | Kind::MULTI_GET | Kind::MULTI_PUT | Kind::CHANGE => {
                self.on_request(now, origin, frame, None, out);
            }
            Kind::TOPOLOGY => self.on_topology_request(connection, frame, out),
            Kind::STATUS => {
                let status = self.status(now.monotonic);
                self.answer(out, origin, |encoder, id, _, bytes| status.encode(encoder, id, bytes));
            }
            Kind::PING => self.answer(out, origin, |encoder, id, _, bytes| {
                Ping.encode(encoder, Kind::PONG, id, bytes);
            }),
            Kind::HELLO => {
                let message = "one hello a connection is enough";
                self.hang_up(
                    now,
                    connection,
                    request_id,
                    &ErrorAnswer::new(ErrorCode::BadRequest, message),
                    out,
                );
            }
            kind => {
                let message =
                    format!("clients don't send frames of kind {}, or this version doesn't know it", kind.0);
                self.answer_code(out, origin, ErrorCode::Unsupported, &message);
            }
        }
    }

    fn on_topology_request(&mut self, connection: ConnectionId, frame: &Frame<'_>, out: &mut Output) {
        let request_id = frame.header.request_id;
        let origin = Origin::Client { connection, request_id };
        match TopologyRequest::parse(frame) {
            Ok(request) => {
                if request.subscribe {
                    self.sessions.insert(connection, Session::Client { subscription: Some(request_id) });
                }
                let topology = self.view.topology();
                self.answer(out, origin, |encoder, id, _, bytes| topology.encode(encoder, id, bytes));
            }
            Err(error) => self.answer_code(out, origin, ErrorCode::BadRequest, &error.to_string()),
        }
    }
}

/// Compares all bytes whatever they are, so that a secret can't be found byte by byte. Its length is no secret.
fn same_secret(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differs, (l, r)| differs | (l ^ r)) == 0
}
