//! What a client may do to the world: call a node, send bytes, hang up, and plan to be woken.

use bytes::Bytes;
use ringmain::causality::ContextKey;
use ringmain::id::ClusterId;
use ringmain::time::Instant;

use super::{Event, World};
use crate::clients::Client;
use crate::network::{End, Side};

impl World {
    pub(crate) const fn clients_mut(&mut self) -> &mut Vec<Client> {
        &mut self.clients
    }

    pub(crate) fn plan_event(&mut self, at: Instant, event: Event) {
        self.heap.plan(at, event);
    }

    pub(crate) const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub(crate) const fn context_key(&self) -> &ContextKey {
        &self.context_key
    }

    /// A client calls a node at any of its ports. `None` if nobody listens.
    pub(crate) fn connect_client(&mut self, client: usize, node: usize) -> Option<Side> {
        let node = self.either(node);
        if !self.nodes[node].is_up() {
            return None;
        }
        let shards = u64::from(self.nodes[node].shards);
        let shard = self.prng.below(shards) as u16;
        let called = End::Shard { node, shard, life: self.nodes[node].life };
        let opened = self.now + self.network.latency();
        let side = self.network.connect(End::Client(client), called, opened);
        self.heap.plan(opened, Event::Called(side.other()));
        Some(side)
    }

    /// Where two processes have one name, clients find the one or the other.
    fn either(&mut self, node: usize) -> usize {
        let second =
            self.plan.clone_at().filter(|&at| self.plan.clone == Some(node) && self.nodes[at].is_up());
        second.filter(|_| self.prng.chance(0.5)).unwrap_or(node)
    }

    pub(crate) fn transmit_from_client(&mut self, side: Side, bytes: Vec<u8>) {
        self.transmit(side, &Bytes::from(bytes));
    }

    pub(crate) fn close_client(&mut self, side: Side) {
        self.network.close(side);
        self.reset(side);
    }
}
