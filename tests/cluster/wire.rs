//! The protocol by hand, for what a good client never does.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};

use ringmain_client::Status;
use ringmain_schema::limits::{PROTOCOL_MAX, PROTOCOL_MIN};
use ringmain_schema::message::{
    ErrorAnswer, ErrorCode, Get, Got, Hello, Multi, MultiWriter, PeerHello, Ping, Put, Role, StatusRequest,
    Stored, Topology, TopologyRequest, Welcome,
};
use ringmain_schema::{Encoder, Flags, Frame, Kind};

use super::PATIENCE;

/// One connection.
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
    /// Those before were handed out. `taken <= received.len()`
    taken: usize,
    welcome: Option<Answer>,
}

/// One frame that a server sent.
#[derive(Debug)]
pub struct Answer(Vec<u8>);

impl Wire {
    /// Connect, and say nothing.
    pub fn call(address: SocketAddr) -> Self {
        Self::try_call(address).unwrap()
    }

    pub fn try_call(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new(), taken: 0, welcome: None })
    }

    /// Connect as a client, and be welcomed.
    pub fn greeted(address: SocketAddr, secret: &[u8]) -> Result<Self> {
        let mut wire = Self::try_call(address)?;
        let hello = Hello { secret, ..hello() };
        wire.try_send(&encoded(|encoder, out| hello.encode(encoder, 0, out)))?;
        let answer = wire.try_receive()?.ok_or(ErrorKind::UnexpectedEof)?;
        assert_eq!(answer.kind(), Kind::WELCOME, "{:?}", answer.error());
        wire.welcome = Some(answer);
        Ok(wire)
    }

    pub fn welcome(&self) -> Welcome<'_> {
        Welcome::parse(&self.welcome.as_ref().expect("it was greeted").frame()).unwrap()
    }

    pub fn shard_ports(&self) -> Vec<u16> {
        self.welcome().shard_ports.iter().collect()
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Send bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame, or `None` if the server has closed the connection.
    #[track_caller]
    pub fn receive(&mut self) -> Option<Answer> {
        self.try_receive().unwrap()
    }

    pub fn try_receive(&mut self) -> Result<Option<Answer>> {
        let mut chunk = [0; 64 * 1024];
        loop {
            if let Some(length) = self.whole_frame() {
                let answer = self.received[self.taken..self.taken + length].to_vec();
                self.taken += length;
                return Ok(Some(Answer(answer)));
            }
            self.received.drain(..self.taken);
            self.taken = 0;
            match self.stream.read(&mut chunk) {
                Ok(0) if self.received.is_empty() => return Ok(None),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.received.extend_from_slice(&chunk[..length]),
                // A socket with a timeout is interrupted when its process was stopped and goes on.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Closed by a server that hadn't read all that was sent to it.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Would [`receive`](Self::receive) return at once?
    pub fn has_whole_frame(&self) -> bool {
        self.whole_frame().is_some()
    }

    /// Its length.
    fn whole_frame(&self) -> Option<usize> {
        let bytes = &self.received[self.taken..];
        let frame = Frame::split(bytes, u32::MAX as usize).expect("servers send whole frames");
        frame.map(|frame| frame.length())
    }

    /// Send, and receive one frame.
    #[track_caller]
    pub fn ask(&mut self, bytes: &[u8]) -> Answer {
        self.send(bytes);
        self.receive().expect("the connection stays open")
    }

    /// Is somebody there, and listening to this connection?
    #[track_caller]
    pub fn ping(&mut self) {
        const ID: u64 = 0x7069_6e67;
        let answer = self.ask(&encoded(|encoder, out| Ping.encode(encoder, Kind::PING, ID, out)));
        assert_eq!((answer.kind(), answer.id()), (Kind::PONG, ID));
    }

    /// The server says no more, and closes.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        if let Some(answer) = self.receive() {
            panic!("expected the end, got kind {} {:?}", answer.kind().0, answer.code());
        }
    }

    pub fn status(&mut self) -> Status {
        let answer = self.ask(&encoded(|encoder, out| StatusRequest.encode(encoder, 0, out)));
        Status::parse(&answer.frame()).unwrap()
    }

    pub fn topology(&mut self) -> Topology {
        let request = TopologyRequest { subscribe: false };
        let answer = self.ask(&encoded(|encoder, out| request.encode(encoder, 0, out)));
        Topology::parse(&answer.frame()).unwrap()
    }
}

impl Answer {
    pub fn frame(&self) -> Frame<'_> {
        Frame::split(&self.0, self.0.len()).unwrap().unwrap()
    }

    pub fn kind(&self) -> Kind {
        self.frame().header.kind
    }

    pub fn id(&self) -> u64 {
        self.frame().header.request_id
    }

    pub fn is_forwarded(&self) -> bool {
        self.frame().header.flags.contains(Flags::FORWARDED)
    }

    /// The error that it is, if it is one.
    pub fn error(&self) -> Option<ErrorAnswer<'_>> {
        let frame = self.frame();
        (frame.header.kind == Kind::ERROR).then(|| ErrorAnswer::parse(&frame).unwrap())
    }

    pub fn code(&self) -> Option<ErrorCode> {
        self.error().map(|error| error.code)
    }

    /// The values of an answer to a get; none for anything else.
    pub fn values(&self) -> Vec<&[u8]> {
        let got = (self.kind() == Kind::GOT).then(|| Got::parse(&self.frame()).unwrap());
        got.iter().flat_map(|got| got.versions.iter()).map(|(_, value)| value).collect()
    }

    /// The answers to a batch's items, in the order of the wire.
    pub fn items(&self) -> Vec<Self> {
        let frame = self.frame();
        assert_eq!(frame.header.kind, Kind::MULTI_DONE, "{:?}", self.error());
        let whole = |item: Frame<'_>| {
            let mut bytes = Vec::new();
            item.relay(item.header.request_id, Flags::NONE, &mut bytes);
            Self(bytes)
        };
        Multi::parse(&frame).unwrap().items().map(whole).collect()
    }

    /// The context of a get's or put's answer.
    pub fn context(&self) -> Vec<u8> {
        let frame = self.frame();
        let context = match frame.header.kind {
            Kind::GOT => Got::parse(&frame).unwrap().context,
            Kind::STORED => Stored::parse(&frame).unwrap().context,
            kind => panic!("an answer of kind {} has no context", kind.0),
        };
        context.to_vec()
    }
}

/// A frame's bytes.
pub fn encoded(encode: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut Encoder::default(), &mut out);
    out
}

/// Of a client of any cluster.
pub const fn hello() -> Hello<'static> {
    const NOBODY: PeerHello<'static> = PeerHello {
        life: 0,
        serving: false,
        node: 0,
        incarnation: 0,
        shard: 0,
        shards: 0,
        target_node: 0,
        target_shard: 0,
        shard_ports: ringmain_schema::message::Ports::Slice(&[]),
        ordinary_port: 0,
    };
    Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        role: Role::Client,
        cluster: 0,
        secret: &[],
        software: "tests",
        peer: NOBODY,
    }
}

/// A get's frame.
pub fn get(id: u64, key: &[u8]) -> Vec<u8> {
    let get = Get { key, ..Get::default() };
    encoded(|encoder, out| get.encode(encoder, id, Flags::NONE, out))
}

/// An overwriting put's frame.
pub fn put(id: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
    let put = Put { key, value: Some(value), overwrite: true, ..Put::default() };
    encoded(|encoder, out| put.encode(encoder, id, Flags::NONE, out))
}

/// An overwriting delete's frame.
pub fn delete(id: u64, key: &[u8]) -> Vec<u8> {
    let put = Put { key, overwrite: true, ..Put::default() };
    encoded(|encoder, out| put.encode(encoder, id, Flags::NONE, out))
}

/// A batch of these frames.
pub fn multi(kind: Kind, id: u64, items: &[Vec<u8>]) -> Vec<u8> {
    let writer = MultiWriter { items: items.concat(), count: items.len() as u32 };
    encoded(|encoder, out| writer.encode(encoder, kind, Flags::NONE, id, 0, out))
}
