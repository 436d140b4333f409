//! A server made of a socket and the schema: it shakes hands, tells the topology, answers pings, and leaves
//! everything else to the test.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmain_client::{Builder, Client};
use ringmain_schema::frame::{Flags, Frame, Kind};
use ringmain_schema::message::{
    ErrorAnswer, Get, Got, Hello, Member, Ping, Ports, Put, Stored, Topology, TopologyRequest, VersionHead,
    Welcome,
};
use ringmain_schema::{Encoder, ErrorCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

pub(crate) const CLUSTER: u64 = 0xc1;

/// Longer than anything a passing test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Answers a request at once, or declines, so that it goes to the test.
pub(crate) type Handler = Arc<dyn Fn(&Frame<'_>, &mut Encoder, &mut Vec<u8>) -> bool + Send + Sync>;

/// How a server behaves. What can change while it runs is shared with it.
pub(crate) struct Behaviour {
    pub(crate) secret: Vec<u8>,
    pub(crate) cluster: u64,
    pub(crate) protocol: u16,
    pub(crate) value_bytes_max: u32,
    pub(crate) frame_bytes_max: u32,
    pub(crate) in_flight_max: u32,
    /// Answer neither hello nor ping nor anything.
    pub(crate) is_mute: AtomicBool,
    pub(crate) topology: Mutex<Topology>,
    pub(crate) handler: Option<Handler>,
    // From here on, what was seen.
    pub(crate) accepted: AtomicUsize,
    pub(crate) pings: AtomicUsize,
    pub(crate) topologies_asked: AtomicUsize,
    pub(crate) subscribers: Mutex<Vec<(u64, UnboundedSender<Out>)>>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            secret: Vec::new(),
            cluster: CLUSTER,
            protocol: 1,
            value_bytes_max: 1024,
            frame_bytes_max: 64 * 1024,
            in_flight_max: 0,
            is_mute: AtomicBool::new(false),
            topology: Mutex::new(topology(1, &[], 1)),
            handler: None,
            accepted: AtomicUsize::new(0),
            pings: AtomicUsize::new(0),
            topologies_asked: AtomicUsize::new(0),
            subscribers: Mutex::new(Vec::new()),
        }
    }
}

pub(crate) enum Out {
    Bytes(Vec<u8>),
    Close,
}

/// A listening server.
pub(crate) struct Fake {
    pub(crate) port: u16,
    pub(crate) behaviour: Arc<Behaviour>,
    requests: UnboundedReceiver<Request>,
    task: tokio::task::JoinHandle<()>,
}

/// A request that waits for the test's answer.
pub(crate) struct Request {
    bytes: Vec<u8>,
    out: UnboundedSender<Out>,
}

impl Fake {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, behaviour)
    }

    pub(crate) fn on(listener: TcpListener, behaviour: Behaviour) -> Self {
        let port = listener.local_addr().unwrap().port();
        let (behaviour, (sender, requests)) = (Arc::new(behaviour), unbounded_channel());
        let task = tokio::spawn(accept(listener, Arc::clone(&behaviour), sender));
        Self { port, behaviour, requests, task }
    }

    /// One server that is the whole cluster, and a client of it.
    pub(crate) async fn alone(behaviour: Behaviour, builder: Builder) -> (Self, Client) {
        let fake = Self::start(behaviour).await;
        fake.tell(topology(1, &[&[fake.port]], 1));
        let client = builder.servers([fake.address()]).connect().await.unwrap();
        (fake, client)
    }

    /// As many servers as there are items, each a node of one shard, N as many as there are; and a client.
    pub(crate) async fn cluster<const COUNT: usize>(builder: Builder) -> ([Self; COUNT], Client) {
        let mut fakes = Vec::new();
        for _ in 0..COUNT {
            fakes.push(Self::start(Behaviour::default()).await);
        }
        let ports: Vec<[u16; 1]> = fakes.iter().map(|fake| [fake.port]).collect();
        let ports: Vec<&[u16]> = ports.iter().map(|ports| &ports[..]).collect();
        for fake in &fakes {
            fake.tell(topology(1, &ports, COUNT as u8));
        }
        let client = builder.servers(fakes.iter().map(Self::address)).connect().await.unwrap();
        (fakes.try_into().ok().unwrap(), client)
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Tell this topology from now on, and to subscribers at once.
    pub(crate) fn tell(&self, topology: Topology) {
        for (id, subscriber) in self.behaviour.subscribers.lock().unwrap().iter() {
            let mut bytes = Vec::new();
            topology.encode(&mut Encoder::default(), *id, &mut bytes);
            let _ = subscriber.send(Out::Bytes(bytes));
        }
        *self.behaviour.topology.lock().unwrap() = topology;
    }

    /// Stop, and be sure that its port is free.
    pub(crate) async fn stop(mut self) -> String {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.address()
    }

    /// The next request that nobody answered.
    pub(crate) async fn next(&mut self) -> Request {
        timeout(PATIENCE, self.requests.recv()).await.expect("no request came").expect("the server is gone")
    }

    /// Nothing comes for a while.
    pub(crate) async fn is_idle(&mut self) -> bool {
        timeout(Duration::from_millis(50), self.requests.recv()).await.is_err()
    }

    pub(crate) fn accepted(&self) -> usize {
        self.behaviour.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn pings(&self) -> usize {
        self.behaviour.pings.load(Ordering::Relaxed)
    }

    pub(crate) fn topologies_asked(&self) -> usize {
        self.behaviour.topologies_asked.load(Ordering::Relaxed)
    }

    pub(crate) fn be_mute(&self, is_mute: bool) {
        self.behaviour.is_mute.store(is_mute, Ordering::Relaxed);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Request {
    pub(crate) fn frame(&self) -> Frame<'_> {
        Frame::split(&self.bytes, self.bytes.len()).unwrap().unwrap()
    }

    pub(crate) fn get(&self) -> Get<'_> {
        Get::parse(&self.frame()).unwrap()
    }

    pub(crate) fn put(&self) -> Put<'_> {
        Put::parse(&self.frame()).unwrap()
    }

    pub(crate) fn answer(&self, encode: impl FnOnce(&mut Encoder, u64, &mut Vec<u8>)) {
        let mut bytes = Vec::new();
        encode(&mut Encoder::default(), self.frame().header.request_id, &mut bytes);
        let _ = self.out.send(Out::Bytes(bytes));
    }

    pub(crate) fn got(&self, context: &[u8], values: &[&[u8]]) {
        self.answer(|encoder, id, out| got(encoder, id, Flags::NONE, context, values, out));
    }

    pub(crate) fn stored(&self) {
        let stored = Stored { context: b"new", primaries: 2, fallbacks: 0, nodes: 2 };
        self.answer(|encoder, id, out| stored.encode(encoder, id, Flags::NONE, out));
    }

    pub(crate) fn refuse(&self, code: ErrorCode) {
        self.refuse_with(&ErrorAnswer::new(code, "as the test says"));
    }

    pub(crate) fn refuse_with(&self, error: &ErrorAnswer<'_>) {
        self.answer(|encoder, id, out| error.encode(encoder, id, Flags::NONE, out));
    }

    pub(crate) fn raw(&self, bytes: Vec<u8>) {
        let _ = self.out.send(Out::Bytes(bytes));
    }

    /// Close the connection it came over.
    pub(crate) fn hang_up(&self) {
        let _ = self.out.send(Out::Close);
    }
}

/// An answer with these siblings, the latest first.
pub(crate) fn got(
    encoder: &mut Encoder,
    id: u64,
    flags: Flags,
    context: &[u8],
    values: &[&[u8]],
    out: &mut Vec<u8>,
) {
    let heads: Vec<VersionHead> = values
        .iter()
        .enumerate()
        .map(|(age, value)| VersionHead {
            timestamp_us: 1_000_000 - age as u64,
            expiry_us: 0,
            length: value.len() as u32,
        })
        .collect();
    Got::encode_head(encoder, id, flags, context, heads.into_iter(), [2, 0, 2], out);
    values.iter().for_each(|value| out.extend_from_slice(value));
}

/// Members with these shard ports; 8 partitions, whose first primaries take turns.
pub(crate) fn topology(epoch: u64, shard_ports: &[&[u16]], replicas: u8) -> Topology {
    let partitions = 8;
    let member = |(place, ports): (usize, &&[u16])| Member {
        node: place as u64 + 1,
        name: format!("n{place}"),
        host: "127.0.0.1".to_owned(),
        ordinary_port: ports[0],
        shard_ports: ports.to_vec(),
        weight: 100,
        data_center: String::new(),
        rack: String::new(),
    };
    let members: Vec<Member> = shard_ports.iter().enumerate().map(member).collect();
    let count = members.len().max(1) as u32;
    let primaries = (0..partitions)
        .flat_map(|partition| (0..u32::from(replicas)).map(move |rank| (partition + rank) % count));
    let primaries = primaries.map(|place| place as u16).collect();
    Topology { epoch, cluster: CLUSTER, replicas, partitions, members, primaries }
}

async fn accept(listener: TcpListener, behaviour: Arc<Behaviour>, requests: UnboundedSender<Request>) {
    // Dropped with the server, which hangs up everywhere.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        behaviour.accepted.fetch_add(1, Ordering::Relaxed);
        stream.set_nodelay(true).unwrap();
        connections.spawn(serve(stream, Arc::clone(&behaviour), requests.clone()));
    }
}

async fn serve(stream: TcpStream, behaviour: Arc<Behaviour>, requests: UnboundedSender<Request>) {
    let (mut reader, mut writer) = stream.into_split();
    let (out, mut outbox) = unbounded_channel();
    let (mut received, mut encoder, mut answers) = (Vec::new(), Encoder::default(), Vec::new());
    loop {
        tokio::select! {
            read = reader.read_buf(&mut received) => if read.unwrap_or(0) == 0 { return },
            message = outbox.recv() => match message {
                Some(Out::Bytes(bytes)) => if writer.write_all(&bytes).await.is_err() { return },
                _ => return,
            },
        }
        let mut used = 0;
        while let Some(frame) = Frame::split(&received[used..], 1 << 30).unwrap() {
            used += frame.length();
            behaviour.on_frame(&frame, &mut encoder, &mut answers, &out, &requests);
        }
        received.drain(..used);
        if !answers.is_empty() && writer.write_all(&answers).await.is_err() {
            return;
        }
        answers.clear();
    }
}

impl Behaviour {
    fn on_frame(
        &self,
        frame: &Frame<'_>,
        encoder: &mut Encoder,
        answers: &mut Vec<u8>,
        out: &UnboundedSender<Out>,
        requests: &UnboundedSender<Request>,
    ) {
        if self.is_mute.load(Ordering::Relaxed) {
            return;
        }
        let id = frame.header.request_id;
        match frame.header.kind {
            Kind::HELLO => self.on_hello(frame, encoder, answers),
            Kind::PING => {
                self.pings.fetch_add(1, Ordering::Relaxed);
                Ping.encode(encoder, Kind::PONG, id, answers);
            }
            Kind::TOPOLOGY => {
                self.topologies_asked.fetch_add(1, Ordering::Relaxed);
                self.topology.lock().unwrap().encode(encoder, id, answers);
                if TopologyRequest::parse(frame).unwrap().subscribe {
                    self.subscribers.lock().unwrap().push((id, out.clone()));
                }
            }
            _ if self.handler.as_ref().is_some_and(|handler| handler(frame, encoder, answers)) => {}
            _ => {
                let mut bytes = Vec::new();
                frame.relay(id, Flags::NONE, &mut bytes);
                let _ = requests.send(Request { bytes, out: out.clone() });
            }
        }
    }

    fn on_hello(&self, frame: &Frame<'_>, encoder: &mut Encoder, answers: &mut Vec<u8>) {
        let (hello, id) = (Hello::parse(frame).unwrap(), frame.header.request_id);
        let refusal = if !(hello.protocol_min..=hello.protocol_max).contains(&self.protocol) {
            Some(ErrorCode::VersionMismatch)
        } else if hello.secret != self.secret {
            Some(ErrorCode::Unauthorized)
        } else {
            (hello.cluster != 0 && hello.cluster != self.cluster).then_some(ErrorCode::WrongCluster)
        };
        if let Some(code) = refusal {
            return ErrorAnswer::new(code, "as the test says").encode(encoder, id, Flags::NONE, answers);
        }
        let welcome = Welcome {
            protocol: self.protocol,
            cluster: self.cluster,
            node: 1,
            incarnation: 1,
            shard: 0,
            shard_ports: Ports::default(),
            epoch: 1,
            value_bytes_max: self.value_bytes_max,
            frame_bytes_max: self.frame_bytes_max,
            requests_in_flight_max: self.in_flight_max,
            serving: true,
            partitions: 0,
            replicas: 0,
            life: 0,
        };
        welcome.encode(encoder, id, answers);
    }
}
