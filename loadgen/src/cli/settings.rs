//! A run's settings by name, for its report: what was typed, and what was left to the defaults.

use std::collections::BTreeMap;

use crate::inject::Injections;
use crate::recipe::Recipe;

use super::{Check, Command, Demo, Elsewhere, Embedded, Judging, Load, Replay, Server};

impl Command {
    /// Every setting by name, defaults included, for the report of a run against a cluster that keeps so many
    /// copies.
    pub fn describe(&self, copies: u8) -> BTreeMap<&'static str, String> {
        let mut settings = BTreeMap::from([
            ("command", self.name().to_owned()),
            ("slo", self.objective().to_string()),
            ("timeout", format!("{:?}", self.timeout())),
            ("writes", self.writes().to_string()),
            ("in_flight", self.limits().in_flight_max.to_string()),
        ]);
        match self {
            Self::Demo(Demo { load, judging, embedded, no_kill, inject }) => {
                settings.extend(load.describe());
                settings.extend(judging.describe(copies));
                settings.extend(embedded.describe());
                settings.insert("kill", (!no_kill && inject.is_none()).to_string());
                settings.insert("inject", text_of(inject.as_ref()));
            }
            Self::Check(Check { servers, elsewhere, load, judging, .. }) => {
                settings.extend(load.describe());
                settings.extend(of_servers(servers, elsewhere, judging, copies));
            }
            Self::Replay(replay) => {
                let Replay { trace, speed, preload, servers, elsewhere, judging, embedded, inject, .. } =
                    replay;
                settings.insert("trace", trace.display().to_string());
                settings.insert("trace_speed", speed.to_string());
                settings.insert("preload", preload.to_string());
                if replay.has_nodes_of_its_own() {
                    settings.extend(judging.describe(copies));
                    settings.extend(embedded.describe());
                    settings.insert("inject", text_of(inject.as_ref()));
                } else {
                    settings.extend(of_servers(servers, elsewhere, judging, copies));
                }
            }
            _ => {}
        }
        settings
    }
}

/// Where a load goes that has no nodes of its own, and what it asks of it.
fn of_servers(
    servers: &[Server],
    elsewhere: &Elsewhere,
    judging: &Judging,
    copies: u8,
) -> BTreeMap<&'static str, String> {
    let mut settings = BTreeMap::from(judging.describe(copies));
    if elsewhere.target.is_some() {
        OF_RINGMAIN_ALONE.iter().for_each(|name| drop(settings.remove(name)));
        settings.extend(elsewhere.describe());
    } else {
        settings.insert("servers", join(servers));
    }
    settings
}

/// What other servers have nothing of.
const OF_RINGMAIN_ALONE: [&str; 5] = ["read_quorum", "write_quorum", "zones", "copies", "routing"];

impl Load {
    pub(super) fn describe(&self) -> [(&'static str, String); 15] {
        let Recipe { name, keys, popularity, zipf, key_size, value_size, mix, ttl, preload, .. } =
            self.recipe();
        [
            ("rate", self.rate.to_string()),
            ("duration", format!("{:?}", self.profile().duration())),
            ("phases", self.phases.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)),
            ("arrivals", self.arrivals.to_string()),
            ("load", name.unwrap_or_else(|| "none".to_owned())),
            ("keys", keys.to_string()),
            ("key_first", self.key_first.to_string()),
            ("popularity", popularity.to_string()),
            ("zipf", zipf.unwrap_or_default().to_string()),
            ("key_size", key_size.map_or_else(|| "14".to_owned(), |sizes| sizes.to_string())),
            ("value_size", value_size.to_string()),
            ("mix", mix.to_string()),
            ("ttl", ttl.to_string()),
            ("preload", preload.to_string()),
            ("seed", self.seed.to_string()),
        ]
    }
}

impl Judging {
    fn describe(&self, copies: u8) -> [(&'static str, String); 7] {
        let (read, write) = self.quorums(copies);
        [
            ("read_quorum", read.to_string()),
            ("write_quorum", write.to_string()),
            ("zones", self.zones.unwrap_or(1).to_string()),
            ("routing", self.routing.unwrap_or_default().to_string()),
            ("copies", copies.to_string()),
            ("consistency", self.consistency(copies).to_string()),
            ("spin", format!("{:?}", self.spin)),
        ]
    }
}

impl Embedded {
    fn describe(self) -> [(&'static str, String); 2] {
        [("nodes", self.nodes.to_string()), ("shards", self.shards.to_string())]
    }
}

fn text_of(inject: Option<&Injections>) -> String {
    inject.map_or_else(|| "none".to_owned(), ToString::to_string)
}

fn join(servers: &[Server]) -> String {
    let servers: Vec<&str> = servers.iter().map(|Server(address)| address.as_str()).collect();
    servers.join(",")
}
