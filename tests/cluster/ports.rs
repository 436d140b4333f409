//! Ports for servers, each for one test at a time.
//!
//! A port that the kernel chose and that was freed again may be given to any connection before the server
//! takes it. So these come from below the range the kernel chooses from, and a socket of another kind (UDP) on the
//! same number keeps other tests away, in this process and in others, even while the server is down.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A number that is this value's while it lives.
pub struct Port {
    number: u16,
    _reservation: UdpSocket,
}

impl Port {
    pub fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Processes begin at different places, so that they seldom ask for the same.
        let begin = (std::process::id() * 61 % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            let number = FIRST + (begin + step) % COUNT;
            let address = (Ipv4Addr::LOCALHOST, number);
            let Ok(reservation) = UdpSocket::bind(address) else { continue };
            if TcpListener::bind(address).is_ok() {
                return Self { number, _reservation: reservation };
            }
        }
        panic!("all ports from {FIRST} on are taken");
    }

    pub const fn number(&self) -> u16 {
        self.number
    }
}
