//! Calling peers: one address after the other, each with a time limit.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::opcode;
use io_uring::types::Fd;

use super::connection::{Connection, Dialling, Phase};
use super::ring::Completion;
use super::token::{Operation, token};
use super::{Event, Net};
use crate::id::ConnectionId;
use crate::shard::DialId;
use crate::shell::sockets::{self, RawAddress};
use crate::time::Duration;

/// For one address to answer.
const ANSWER_TIME: Duration = Duration::from_secs(3);

impl Net {
    /// Call the first of `addresses` that answers.
    pub(in crate::shell) fn dial(&mut self, dial: DialId, mut addresses: Vec<SocketAddr>) {
        addresses.reverse();
        let Some((socket, address)) = next_socket(&mut addresses) else {
            self.events.push_back(Event::DialFailed { dial });
            return;
        };
        let phase = Phase::Dialling(Dialling { dial, others: addresses });
        match self.table.insert(Connection::new(socket, phase)) {
            Some(connection) => self.connect(connection, Box::new(RawAddress::new(address))),
            None => self.events.push_back(Event::DialFailed { dial }),
        }
    }

    fn connect(&mut self, id: ConnectionId, address: Box<RawAddress>) {
        let Some(connection) = self.table.find(id) else { return };
        let socket = Fd(connection.socket.as_raw_fd());
        let entry = opcode::Connect::new(socket, address.as_ptr(), address.length()).build();
        connection.connecting = Some(address);
        // SAFETY: the address is boxed, and kept by the connection until this operation has completed.
        unsafe { self.ring.push(&entry.user_data(token(Operation::Connect, id))) };
        self.set_deadline(id, ANSWER_TIME);
    }

    /// The address has not answered in time: give it up, and with `ECANCELED` go on to the next.
    pub(super) fn give_up_address(&mut self, id: ConnectionId) {
        self.ring.cancel(token(Operation::Connect, id));
    }

    pub(super) fn on_connect(&mut self, id: ConnectionId, completion: Completion) {
        let Some(connection) = self.table.find(id) else { return };
        connection.connecting = None;
        let Phase::Dialling(dialling) = &mut connection.phase else { return self.release_if_idle(id) };
        let dial = dialling.dial;
        if completion.result >= 0 {
            sockets::tune(connection.socket.as_raw_fd());
            connection.phase = Phase::Open;
            self.clear_deadline(id);
            self.receive(id);
            self.events.push_back(Event::Opened { connection: id, dial: Some(dial) });
            return;
        }
        match next_socket(&mut dialling.others) {
            Some((socket, address)) => {
                connection.socket = socket;
                self.connect(id, Box::new(RawAddress::new(address)));
            }
            None => self.tear_down(id),
        }
    }
}

/// A socket for the last of `addresses` for which there is one, which is taken out.
fn next_socket(addresses: &mut Vec<SocketAddr>) -> Option<(OwnedFd, SocketAddr)> {
    while let Some(address) = addresses.pop() {
        if let Ok(socket) = sockets::stream_socket(address) {
            return Some((socket, address));
        }
    }
    None
}
