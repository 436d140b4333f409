//! What may fail together: racks, or data centres where the members stand in several.

use crate::ring::{Ring, Zone};

use super::Member;

/// How far a member is from this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Distance {
    /// In the same rack.
    Rack,
    /// In the same data centre.
    DataCenter,
    /// Anywhere else.
    Elsewhere,
}

/// Where each member stands.
#[derive(Debug)]
pub(super) struct Zones {
    /// In the order of the members.
    places: Vec<Zone>,
    /// The ring in force has members in several data centres.
    by_data_center: bool,
}

impl Zones {
    pub(super) fn new(members: &[Member], ring: &Ring) -> Self {
        let mut centers = ring.members().iter().map(|member| member.zone.data_center());
        let first = centers.next();
        Self {
            places: members.iter().map(place).collect(),
            by_data_center: centers.any(|center| Some(center) != first),
        }
    }

    /// The zone of the member at this place.
    pub(super) fn zone(&self, at: usize) -> u64 {
        let place = self.places[at];
        if self.by_data_center { place.data_center() } else { place.rack() }
    }

    pub(super) fn distance(&self, one: usize, other: usize) -> Distance {
        let (one, other) = (self.places[one], self.places[other]);
        if one.rack() == other.rack() {
            Distance::Rack
        } else if one.data_center() == other.data_center() {
            Distance::DataCenter
        } else {
            Distance::Elsewhere
        }
    }
}

/// As the ring sees it, if it is there; else as it will.
fn place(member: &Member) -> Zone {
    let settled = &member.settled;
    let (center, rack) = if settled.in_ring {
        (&settled.data_center, &settled.rack)
    } else {
        (&member.data_center, &member.rack)
    };
    Zone::new(center, rack)
}
