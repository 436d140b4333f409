//! Reading everything until it stays as it is.

use std::time::{Duration, Instant};

use ringmain_client::Client;
use tokio::task::JoinSet;

use super::history::Value;
use super::verdict::AtRest;
use super::{Keys, Servers};

/// A cluster that can talk again is at rest after this long, or it is broken.
const CONVERGENCE_MAX: Duration = Duration::from_secs(30);
/// All copies: N.
const ALL: u8 = 3;

/// Read all copies of all keys through every node, again and again, until all nodes say the same and no copy had to be
/// repaired: `repairs` counts those. Says also how long that took since `healed`.
pub(crate) fn converge(
    servers: &Servers,
    keys: &Keys,
    healed: Instant,
    repairs: impl Fn() -> u64,
) -> (AtRest, Duration) {
    let keys: Vec<String> = keys.lock().unwrap().iter().cloned().collect();
    let begun = Instant::now();
    let runtime = runtime();
    let clients = runtime.block_on(clients(servers));
    loop {
        let before = repairs();
        let views = runtime.block_on(views(&clients, &keys));
        if let Ok(views) = &views
            && views.iter().all(|view| *view == views[0])
            && repairs() == before
        {
            return (views[0].clone(), healed.elapsed());
        }
        let why = views.map_or_else(|error| error, |_| "copies differ".to_owned());
        assert!(
            begun.elapsed() < CONVERGENCE_MAX,
            "not at rest {CONVERGENCE_MAX:?} after the last fault: {why}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bring every key to all of its nodes, under load: each is read from all copies twice, as the second read finds the
/// repairs of the first on the same connections before it.
pub(crate) fn repair(servers: &Servers, keys: &Keys) {
    let keys: Vec<String> = keys.lock().unwrap().iter().cloned().collect();
    let runtime = runtime();
    let clients = runtime.block_on(clients(servers));
    let begun = Instant::now();
    for _ in 0..2 {
        for (place, key) in keys.iter().enumerate() {
            while let Err(error) = runtime.block_on(view(&clients[place % clients.len()], key)) {
                assert!(begun.elapsed() < CONVERGENCE_MAX, "{key} can't be repaired: {error}");
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn clients(servers: &Servers) -> Vec<Client> {
    let mut clients = Vec::new();
    for node in 0..servers.count() {
        clients.push(servers.client_of(node).await);
    }
    clients
}

/// What each node says of all keys.
async fn views(clients: &[Client], keys: &[String]) -> Result<Vec<AtRest>, String> {
    let mut readers = JoinSet::new();
    for (node, client) in clients.iter().enumerate() {
        let (client, keys) = (client.clone(), keys.to_vec());
        readers.spawn(async move {
            let mut seen = AtRest::new();
            for key in keys {
                let values = view(&client, &key).await.map_err(|error| format!("n{node}: {key}: {error}"))?;
                seen.insert(key, values);
            }
            Ok(seen)
        });
    }
    readers.join_all().await.into_iter().collect()
}

/// The siblings of a key, in an order of their own.
async fn view(client: &Client, key: &str) -> Result<Vec<Value>, String> {
    let got = client.request(key).read(ALL).get().await.map_err(|error| error.to_string())?;
    let decode =
        |value: &[u8]| Value::decode(value).unwrap_or_else(|| panic!("{key}: nobody writes {value:?}"));
    let mut values: Vec<Value> = got.siblings.iter().map(|sibling| decode(&sibling.value)).collect();
    values.sort_by_key(|value| value.id);
    Ok(values)
}
