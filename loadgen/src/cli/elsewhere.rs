//! Options for servers that are no Ringmain, and what is refused beside them.

use std::time::Duration;

use clap::Args;

use crate::target::cluster::Writes;
use crate::target::peer::{Make, Peer};
use crate::target::wire::{MEMCACHED_KEY_BYTES_MAX, Settings};

use super::{Judging, Load, Refusal};

/// A server of another make.
#[derive(Clone, Debug, Args)]
pub struct Elsewhere {
    /// Instead of Ringmain a Redis or memcached, loaded and judged in the same way: redis://HOST:PORT or memcached://HOST:PORT
    #[arg(long, conflicts_with_all = ["servers", "secret_file"], value_name = "URL")]
    pub target: Option<Peer>,
    /// Connections to that target, each pipelined [default: 4]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..), value_name = "COUNT")]
    pub connections: Option<u8>,
    /// Redis only: replicas that must have a write for it to count as stored (WAIT)
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..), value_name = "REPLICAS")]
    pub wait: Option<u8>,
    /// That target may evict values: a read that finds nothing is no lost write
    #[arg(long)]
    pub may_evict: bool,
}

const CONNECTIONS_DEFAULT: u8 = 4;

impl Elsewhere {
    /// How a peer is loaded.
    pub fn settings(&self, peer: &Peer, timeout: Duration) -> Settings {
        Settings { peer: peer.clone(), connections: self.connections(), timeout, replicas: self.wait }
    }

    pub(super) fn refuse_impossible(
        &self,
        judging: &Judging,
        load: Option<&Load>,
        writes: Writes,
    ) -> Result<(), Refusal> {
        let wrong = |sentence: String| Err(Refusal::Wrong(format!("error: {sentence}")));
        let Some(peer) = &self.target else {
            return match self.first_given() {
                Some(name) => {
                    wrong(format!("{name} needs --target: a cluster of Ringmain has nothing of the kind"))
                }
                None => Ok(()),
            };
        };
        if let Some(name) = judging.first_of_ringmains_own() {
            return wrong(format!("{name} means nothing to {peer}: only Ringmain has it"));
        }
        if writes != Writes::Overwrite {
            let name = if judging.writes.is_some() { "--writes" } else { "--workload asks for --writes" };
            return wrong(format!(
                "{name} {writes}, for which {peer} has no contexts: --writes overwrite it can do"
            ));
        }
        if self.wait.is_some() && peer.make != Make::Redis {
            return wrong(format!("--wait means nothing to {peer}: only Redis waits for its replicas"));
        }
        let longest = load.and_then(|load| load.recipe().key_size).map_or(0, |sizes| sizes.longest());
        if peer.make == Make::Memcached && longest > MEMCACHED_KEY_BYTES_MAX {
            return wrong(format!(
                "--key-size of up to {longest} bytes is too long for {peer}: its keys have {MEMCACHED_KEY_BYTES_MAX} at most"
            ));
        }
        Ok(())
    }

    /// For the report.
    pub(super) fn describe(&self) -> Vec<(&'static str, String)> {
        let Some(peer) = &self.target else { return Vec::new() };
        vec![
            ("target", peer.to_string()),
            ("connections", self.connections().to_string()),
            ("wait", self.wait.unwrap_or(0).to_string()),
            ("may_evict", self.may_evict.to_string()),
        ]
    }

    fn connections(&self) -> u8 {
        self.connections.unwrap_or(CONNECTIONS_DEFAULT)
    }

    fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--connections", self.connections.is_some()),
            ("--wait", self.wait.is_some()),
            ("--may-evict", self.may_evict),
        ];
        given.into_iter().find_map(|(name, is_given)| is_given.then_some(name))
    }
}

impl Judging {
    /// An option that was given, and that only Ringmain has.
    fn first_of_ringmains_own(&self) -> Option<&'static str> {
        let given = [
            ("--read-quorum", self.read_quorum.is_some()),
            ("--write-quorum", self.write_quorum.is_some()),
            ("--zones", self.zones.is_some()),
            ("--routing", self.routing.is_some()),
        ];
        given.into_iter().find_map(|(name, is_given)| is_given.then_some(name))
    }
}
