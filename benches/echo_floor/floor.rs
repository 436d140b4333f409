//! The echo floor: a machine that does the least a server of these frames can do.
//!
//! The same shell, the same rings, the same frames as the real server, and no store: every get is answered with
//! one canned value, every put with one canned acknowledgement. What a request costs here, no server on this
//! shell can undercut; what it costs the real one beyond that is the price of its core.

use ringmain::id::ConnectionId;
use ringmain::shard::{ConnectionLimits, Input, Machine, Output};
use ringmain::time::{Instant, Now};
use ringmain_schema::message::{Got, PeerHello, Stored, VersionHead, Welcome};
use ringmain_schema::{Encoder, Flags, Frame, Kind, limits};

/// Where a frame's header has the request id.
const REQUEST_ID: std::ops::Range<usize> = 16..24;

pub(crate) struct Floor {
    welcome: Vec<u8>,
    got: Vec<u8>,
    stored: Vec<u8>,
}

impl Floor {
    /// Answers gets with a value of this many bytes.
    pub(crate) fn new(value_bytes: usize) -> Self {
        let mut encoder = Encoder::default();
        let (mut welcome, mut got, mut stored) = (Vec::new(), Vec::new(), Vec::new());
        canned_welcome().encode(&mut encoder, 0, &mut welcome);
        let head = VersionHead { timestamp_us: 1, expiry_us: 0, length: value_bytes as u32 };
        Got::encode_head(&mut encoder, 0, Flags::NONE, &[7; 40], [head].into_iter(), [1, 0, 1], &mut got);
        got.resize(got.len() + value_bytes, b'v');
        Stored { context: &[7; 40], primaries: 1, fallbacks: 0, nodes: 1 }.encode(
            &mut encoder,
            0,
            Flags::NONE,
            &mut stored,
        );
        Self { welcome, got, stored }
    }

    fn answer(&self, connection: ConnectionId, frame: &Frame<'_>, output: &mut Output) {
        let canned = match frame.header.kind {
            Kind::GET => &self.got,
            Kind::HELLO => {
                let frame_bytes_max = limits::request_bytes_max(limits::VALUE_BYTES_MAX_DEFAULT);
                let limits = ConnectionLimits { frame_bytes_max, requests_in_flight_max: 1024 };
                output.limits.push((connection, limits));
                &self.welcome
            }
            _ => &self.stored,
        };
        output.deliver(connection, true, |bytes| {
            let start = bytes.len();
            bytes.extend_from_slice(canned);
            let id = start + REQUEST_ID.start..start + REQUEST_ID.end;
            bytes[id].copy_from_slice(&frame.header.request_id.to_le_bytes());
        });
    }
}

impl Machine for Floor {
    fn handle(&mut self, _now: Now, input: Input<'_>, output: &mut Output) {
        match input {
            Input::Frame { connection, frame } => self.answer(connection, &frame, output),
            Input::Garbled { connection, .. } => output.closes.push(connection),
            _ => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    fn is_drained(&self) -> bool {
        true
    }
}

fn canned_welcome() -> Welcome<'static> {
    Welcome {
        protocol: limits::PROTOCOL_MAX,
        cluster: 1,
        node: 1,
        incarnation: 1,
        shard: 0,
        shard_ports: PeerHello::default().shard_ports,
        epoch: 1,
        value_bytes_max: limits::VALUE_BYTES_MAX_DEFAULT,
        frame_bytes_max: limits::request_bytes_max(limits::VALUE_BYTES_MAX_DEFAULT) as u32,
        requests_in_flight_max: 1024,
        serving: true,
        partitions: 0,
        replicas: 0,
        life: 0,
    }
}
