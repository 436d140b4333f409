//! A place between two nodes where their connection can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Passes bytes on between whoever calls and one address, while it is not cut.
pub(super) struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    caller: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    connections: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing passes; nobody is told.
    Cut,
    /// All connections are over, and so will be all to come.
    Severed,
}

impl Shared {
    /// Wait while the link is cut; false if it is severed.
    fn may_pass(&self) -> bool {
        let state = self.state.lock().unwrap();
        let state = self.changed.wait_while(state, |state| *state == State::Cut).unwrap();
        *state == State::Open
    }

    fn is_severed(&self) -> bool {
        *self.state.lock().unwrap() == State::Severed
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap() = state;
        self.changed.notify_all();
    }
}

impl Link {
    pub(super) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(State::Open),
            changed: Condvar::new(),
            connections: AtomicUsize::new(0),
        });
        let caller = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, target, &shared)
        });
        Self { address, shared, caller: Some(caller) }
    }

    pub(super) const fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many it carries now.
    pub(super) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub(super) fn cut(&self) {
        self.shared.set(State::Cut);
    }

    pub(super) fn sever(&self) {
        self.shared.set(State::Severed);
        super::wait_until("a severed link has let go", || self.connections() == 0);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.set(State::Severed);
        // A last call wakes the one who waits for calls.
        let _ = TcpStream::connect(self.address);
        let _ = self.caller.take().map(JoinHandle::join);
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_severed() {
            return;
        }
        let (near, shared) = (stream.unwrap(), shared.clone());
        std::thread::spawn(move || carry(&near, target, &shared));
    }
}

fn carry(near: &TcpStream, target: SocketAddr, shared: &Arc<Shared>) {
    // The other node may be about to start.
    let far = loop {
        match TcpStream::connect(target) {
            Ok(far) => break far,
            Err(_) if shared.is_severed() => return,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    shared.connections.fetch_add(1, Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| pass_on(near, &far, shared));
        scope.spawn(|| pass_on(&far, near, shared));
    });
    shared.connections.fetch_sub(1, Ordering::SeqCst);
}

/// Pass bytes on until either end closes or the link is severed, then end both.
fn pass_on(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared) {
    let mut bytes = [0; 16 * 1024];
    // A link may be severed while nothing arrives.
    from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while shared.may_pass() {
        let length = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => break,
        };
        if !shared.may_pass() || to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
