//! Calling a server: connect, say who we are, hear who it is.

use std::sync::atomic::Ordering;
use std::task::Waker;

use bytes::BytesMut;
use ringmain_schema::limits::{HANDSHAKE_BYTES_MAX, PROTOCOL_MAX, PROTOCOL_MIN, state_bytes_max};
use ringmain_schema::message::{ErrorAnswer, Hello, PeerHello, Welcome};
use ringmain_schema::{Encoder, Frame, Kind, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Connection, Settings};
use crate::answer::malformed;
use crate::error::Error;

/// A connection whose handshake is over.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: TcpStream,
    /// What arrived behind the welcome.
    pub(super) received: BytesMut,
    /// Limit on what follows an answer's header.
    pub(super) answer_bytes_max: usize,
    /// Requests that the server takes before it has answered some; 0 for any number.
    pub(super) in_flight_max: u32,
    /// False: it is up, but does not answer requests about keys yet.
    pub(super) is_serving: bool,
}

const SOFTWARE: &str = concat!("ringmain-client ", env!("CARGO_PKG_VERSION"));

/// The handshake's request id. Ids of requests are above 2^32.
const HELLO_ID: u64 = 1;

/// Call the connection's server within the time for it.
pub(super) async fn dial(connection: &Connection) -> Result<Link, Error> {
    let settings = &connection.settings;
    match tokio::time::timeout(settings.dial_timeout, shake(connection)).await {
        Ok(result) => result,
        Err(_) => {
            let waited = settings.dial_timeout;
            Err(Error::Disconnected(format!(
                "{} didn't answer the call within {waited:?}",
                connection.address
            )))
        }
    }
}

async fn shake(connection: &Connection) -> Result<Link, Error> {
    let (address, settings) = (&connection.address, &*connection.settings);
    let lost = |error: std::io::Error| Error::Disconnected(format!("{address}: {error}"));
    let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(lost)?;
    stream.set_nodelay(true).map_err(lost)?;
    stream.write_all(&hello(settings)).await.map_err(lost)?;
    let mut received = BytesMut::with_capacity(HANDSHAKE_BYTES_MAX);
    loop {
        if let Some(length) = answer_length(&received)? {
            let answer = received.split_to(length).freeze();
            return welcomed(settings, stream, received, &super::frame(&answer));
        }
        if stream.read_buf(&mut received).await.map_err(lost)? == 0 {
            return Err(Error::Disconnected(format!("{address} hung up during the handshake")));
        }
    }
}

fn hello(settings: &Settings) -> Vec<u8> {
    let mut bytes = Vec::new();
    let hello = Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        role: Role::Client,
        cluster: settings.cluster.load(Ordering::Relaxed),
        secret: &settings.secret,
        software: SOFTWARE,
        peer: PeerHello::default(),
    };
    hello.encode(&mut Encoder::default(), HELLO_ID, &mut bytes);
    bytes
}

fn answer_length(received: &[u8]) -> Result<Option<usize>, Error> {
    match Frame::split(received, HANDSHAKE_BYTES_MAX) {
        Ok(frame) => Ok(frame.map(|frame| frame.length())),
        Err(reason) => Err(Error::Protocol(reason.to_string())),
    }
}

fn welcomed(
    settings: &Settings,
    stream: TcpStream,
    received: BytesMut,
    answer: &Frame<'_>,
) -> Result<Link, Error> {
    if answer.header.kind == Kind::ERROR {
        return Err(Error::from_answer(&ErrorAnswer::parse(answer).map_err(malformed)?));
    }
    if answer.header.kind != Kind::WELCOME {
        return Err(crate::answer::unexpected(answer.header.kind));
    }
    let welcome = Welcome::parse(answer).map_err(malformed)?;
    if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&welcome.protocol) {
        return Err(Error::VersionMismatch(format!("the server chose version {}", welcome.protocol)));
    }
    settle_cluster(settings, welcome.cluster)?;
    settings.value_bytes_max.store(welcome.value_bytes_max, Ordering::Relaxed);
    settings.frame_bytes_max.store(welcome.frame_bytes_max, Ordering::Relaxed);
    Ok(Link {
        stream,
        received,
        answer_bytes_max: state_bytes_max(welcome.value_bytes_max),
        in_flight_max: welcome.requests_in_flight_max,
        is_serving: welcome.serving,
    })
}

/// The first server that answers decides which cluster this client talks to, if its user didn't. A server
/// that doesn't know its cluster yet (it was not born) decides nothing.
fn settle_cluster(settings: &Settings, cluster: u64) -> Result<(), Error> {
    if cluster == 0 {
        return Ok(());
    }
    match settings.cluster.compare_exchange(0, cluster, Ordering::Relaxed, Ordering::Relaxed) {
        Err(expected) if expected != cluster => {
            Err(Error::WrongCluster(format!("it is {cluster:#018x}, this client's {expected:#018x}")))
        }
        _ => Ok(()),
    }
}

/// Wake all, outside of any lock.
pub(super) fn wake_all(woken: &mut Vec<Waker>) {
    for waker in woken.drain(..) {
        waker.wake();
    }
}
