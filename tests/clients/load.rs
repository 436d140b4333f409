//! Clients at work: half of them live beside a node each, so that every side of a cut has some; the others go wherever
//! their key is. Each reads, and writes with the context of what it has read. Who gets no answer writes all the same, by
//! what it read of the key before, or blindly if that is nothing: so each side of a cut goes on from where it stood.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringmain_client::{Client, Context};
use tokio::task::LocalSet;

use super::history::{Call, Content, Id, Operation, Outcome, Value};
use super::verdict::merge_counts;
use super::{Keys, Servers};

/// Clients at once, for each node.
const WORKERS_EACH: usize = 2;
/// Keys of each kind in use at once.
const KEYS_OF_A_KIND: u32 = 4;
/// Requests for as many of them are tried again by the client crate, as usual; for the others, they aren't.
const KEYS_WITH_RETRIES: u32 = KEYS_OF_A_KIND / 2;
/// Then others take their place: a cart isn't to grow without end.
const KEYS_LAST: Duration = Duration::from_secs(10);
/// Between two turns of a client, at most.
const PAUSE_MAX_MS: u32 = 16;

/// How the clients of a scenario write and read.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    /// R; 0 for a majority.
    pub(crate) read: u8,
    /// W; 0 for a majority.
    pub(crate) write: u8,
    /// The last writer wins.
    pub(crate) overwrite: bool,
    /// Clients beside these nodes only; none for clients of all kinds.
    pub(crate) beside: Option<usize>,
}

impl Terms {
    /// As most applications should.
    pub(crate) const USUAL: Self = Self { read: 0, write: 0, overwrite: false, beside: None };
}

/// Goes on until it is stopped or dropped.
pub(crate) struct Load {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Operation>>>,
}

impl Load {
    /// Begin, in the calling thread's namespace. All keys begin with `name`, and go into `keys` before their first use.
    pub(crate) fn start(name: &str, terms: Terms, keys: &Keys, servers: &Servers) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (name, keys, servers, stop) = (name.to_owned(), keys.clone(), servers.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, work(name, terms, keys, servers, stop))
        });
        Self { is_over, thread: Some(thread) }
    }

    /// Let everyone finish what they are at. What they did.
    pub(crate) fn stop(mut self) -> Vec<Operation> {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

async fn work(
    name: String,
    terms: Terms,
    keys: Keys,
    servers: Servers,
    is_over: Arc<AtomicBool>,
) -> Vec<Operation> {
    let mut workers = Vec::new();
    for number in 0..WORKERS_EACH * servers.count() {
        let client = match terms.beside {
            Some(node) => servers.client_of(node).await,
            None if number < servers.count() => servers.client_of(number).await,
            None => servers.client_of_all().await,
        };
        let worker = Worker::new(number as u16, client, &name, terms, &keys);
        workers.push(tokio::task::spawn_local(worker.until(is_over.clone())));
    }
    let mut history = Vec::new();
    for worker in workers {
        history.extend(worker.await.unwrap());
    }
    history
}

#[derive(Clone, Copy)]
enum Kind {
    Register,
    /// A register that is deleted at times.
    Note,
    Cart,
    Counter,
}

struct Worker {
    number: u16,
    client: Client,
    name: String,
    terms: Terms,
    keys: Keys,
    /// State of a small random generator: the same choices in each run.
    chance: u32,
    /// In this turn.
    may_retry: bool,
    /// What it read last, by key, and its context.
    seen: BTreeMap<String, (Vec<Value>, Context)>,
    /// How often it has counted, or may have, by key.
    counted: BTreeMap<String, u32>,
    history: Vec<Operation>,
}

impl Worker {
    fn new(number: u16, client: Client, name: &str, terms: Terms, keys: &Keys) -> Self {
        Self {
            number,
            client,
            name: name.to_owned(),
            terms,
            keys: keys.clone(),
            chance: number.into(),
            may_retry: true,
            seen: BTreeMap::new(),
            counted: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    async fn until(mut self, is_over: Arc<AtomicBool>) -> Vec<Operation> {
        let begun = Instant::now();
        while !is_over.load(Ordering::SeqCst) {
            let kind = [Kind::Register, Kind::Note, Kind::Cart, Kind::Counter][self.draw(4) as usize];
            let letter = match kind {
                Kind::Register => "register",
                Kind::Note => "note",
                Kind::Cart => "cart",
                Kind::Counter => "counter",
            };
            let age = begun.elapsed().as_secs() / KEYS_LAST.as_secs();
            let number = self.draw(KEYS_OF_A_KIND);
            let key = format!("{}/{age}/{letter} {number}", self.name);
            self.keys.lock().unwrap().insert(key.clone());
            self.may_retry = number < KEYS_WITH_RETRIES;
            self.turn(kind, &key).await;
            let pause = self.draw(PAUSE_MAX_MS);
            tokio::time::sleep(Duration::from_millis(pause.into())).await;
        }
        self.history
    }

    /// Below `end`.
    fn draw(&mut self, end: u32) -> u32 {
        self.chance = self.chance.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        (self.chance >> 16) % end
    }

    /// Read, and write by what was read.
    async fn turn(&mut self, kind: Kind, key: &str) {
        self.read(key).await;
        let (seen, context) = self.seen.get(key).cloned().unwrap_or_default();
        if matches!(kind, Kind::Note) && !seen.is_empty() && self.draw(3) == 0 {
            return self.delete(key, &seen, &context).await;
        }
        let id = self.next();
        let content = match kind {
            Kind::Register | Kind::Note => Content::Register,
            Kind::Cart => Content::Cart(items(&seen).chain([id]).collect()),
            Kind::Counter => {
                let mut counts = BTreeMap::new();
                seen.iter().for_each(|value| merge_counts(&mut counts, counts_of(value)));
                counts.insert(self.number, self.counted.get(key).unwrap_or(&0) + 1);
                Content::Counter(counts)
            }
        };
        let replaced = seen.iter().map(|value| value.id).collect();
        let outcome = self.put(Value { id, key: key.to_owned(), replaced, content }, &context).await;
        if matches!(kind, Kind::Counter) && outcome != Outcome::Failed {
            *self.counted.entry(key.to_owned()).or_default() += 1;
        }
    }

    async fn read(&mut self, key: &str) {
        let (id, invoked) = (self.next(), Instant::now());
        let got = self.client.request(key).retry(self.may_retry).read(self.terms.read).get().await;
        let outcome = Outcome::of(&got);
        let mut ids = Vec::new();
        if let Ok(got) = got {
            let values = got.siblings.iter().map(|sibling| Value::decode(&sibling.value));
            let values: Vec<Option<Value>> = values.collect();
            ids.extend(values.iter().map(|value| value.as_ref().map(|value| value.id)));
            self.seen.insert(key.to_owned(), (values.into_iter().flatten().collect(), got.context));
        }
        self.note(id, key, Call::Read(ids), invoked, outcome);
    }

    async fn put(&mut self, value: Value, context: &Context) -> Outcome {
        let (key, invoked) = (value.key.clone(), Instant::now());
        let request = self.client.request(&key).retry(self.may_retry).write(self.terms.write);
        let request = if self.terms.overwrite { request.overwrite() } else { request.context(context) };
        let outcome = Outcome::of(&request.put(value.encode()).await);
        self.note(value.id, &key, Call::Put(value), invoked, outcome);
        outcome
    }

    async fn delete(&mut self, key: &str, seen: &[Value], context: &Context) {
        let (id, invoked) = (self.next(), Instant::now());
        let request = self.client.request(key).retry(self.may_retry).write(self.terms.write);
        let request = if self.terms.overwrite { request.overwrite() } else { request.context(context) };
        let outcome = Outcome::of(&request.delete().await);
        let seen = seen.iter().map(|value| value.id).collect();
        self.note(id, key, Call::Delete(seen), invoked, outcome);
    }

    fn next(&self) -> Id {
        Id(self.number, self.history.len() as u32)
    }

    fn note(&mut self, id: Id, key: &str, call: Call, invoked: Instant, outcome: Outcome) {
        assert_eq!(id, self.next());
        let (key, returned) = (key.to_owned(), Instant::now());
        let may_retry = self.may_retry;
        self.history.push(Operation { id, key, call, may_retry, invoked, returned, outcome });
    }
}

fn items(seen: &[Value]) -> impl Iterator<Item = Id> {
    seen.iter().flat_map(|value| match &value.content {
        Content::Cart(items) => items.clone(),
        content => unreachable!("{content:?} in a cart"),
    })
}

fn counts_of(value: &Value) -> &BTreeMap<u16, u32> {
    match &value.content {
        Content::Counter(counts) => counts,
        content => unreachable!("{content:?} in a counter"),
    }
}
