//! Sockets, as far as the standard library doesn't go.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Connections that the kernel holds for us until they are accepted; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A silent peer is probed after this long,
const KEEPALIVE_IDLE_SECS: i32 = 30;
/// again every so often,
const KEEPALIVE_INTERVAL_SECS: i32 = 10;
/// and given up after as many probes.
const KEEPALIVE_PROBES: i32 = 3;

/// A socket address as the kernel wants it.
#[repr(C)]
pub(super) union RawAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddress {
    pub(super) fn new(address: SocketAddr) -> Self {
        let port = address.port().to_be();
        match address {
            SocketAddr::V4(v4) => Self {
                v4: libc::sockaddr_in {
                    sin_family: libc::AF_INET as _,
                    sin_port: port,
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                },
            },
            SocketAddr::V6(v6) => Self {
                v6: libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as _,
                    sin6_port: port,
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                },
            },
        }
    }

    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const *self).cast()
    }

    /// Bytes that [`RawAddress::as_ptr`] points to.
    pub(super) fn length(&self) -> libc::socklen_t {
        // SAFETY: both variants begin with the family.
        let family = i32::from(unsafe { self.v4.sin_family });
        let bytes = if family == libc::AF_INET {
            size_of::<libc::sockaddr_in>()
        } else {
            size_of::<libc::sockaddr_in6>()
        };
        bytes as libc::socklen_t
    }
}

/// A new TCP socket for talking to `address`.
///
/// It blocks, as all of ours: io_uring waits by itself, and reports `EAGAIN` from those that don't block.
pub(super) fn stream_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers are passed.
    let socket = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above opened this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// A socket bound to `address`, not yet listening. `shared`: others may bind the same, if they all say so.
pub(super) fn bind(address: SocketAddr, shared: bool) -> io::Result<OwnedFd> {
    let socket = stream_socket(address)?;
    set(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if shared {
        set(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    let raw = RawAddress::new(address);
    // SAFETY: `raw` is a valid address of that length.
    if unsafe { libc::bind(socket.as_raw_fd(), raw.as_ptr(), raw.length()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Let a bound socket take calls.
pub(super) fn listen(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    if unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The port that a socket is bound to.
pub(super) fn port_of(socket: &OwnedFd) -> io::Result<u16> {
    let listener = TcpListener::from(socket.as_fd().try_clone_to_owned()?);
    listener.local_addr().map(|address| address.port())
}

/// Send small answers at once, and notice within a minute when the other machine is gone. An error means that
/// the connection is already dead, which its next operation will tell.
pub(super) fn tune(socket: RawFd) {
    let options = [
        (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEPALIVE_IDLE_SECS),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECS),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_PROBES),
    ];
    for (level, name, value) in options {
        let _ = set(socket, level, name, value);
    }
}

/// Tell the other end that no more will come.
pub(super) fn finish_sending(socket: &OwnedFd) {
    // SAFETY: no pointers are passed. It fails only if the connection is already gone.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
}

/// End both directions: every operation on the socket completes, and a listening one takes no more calls.
pub(super) fn cut_off(socket: &OwnedFd) {
    // SAFETY: no pointers are passed. It fails only if there is nothing to end.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

fn set(socket: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` is readable and of that length.
    if unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
