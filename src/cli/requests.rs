//! The commands that ask a server, through the client crate.

use std::fs;
use std::future::Future;
use std::io::{self, Read, Write};
use std::time::{Duration, UNIX_EPOCH};

use ringmain::config::Span;
use ringmain_client::{Client, Context, Got, ShardStatus, Status};
use serde::Serialize;

use super::Failure;
use super::arguments::{DeleteArguments, GetArguments, PutArguments, Replaces, StatusArguments, Target};
use super::render::{Found, Hex, Version, json};

pub(super) fn get(arguments: &GetArguments) -> Result<(), Failure> {
    let got = run(&arguments.target, async |client| {
        let mut request = client.request(&arguments.key);
        if let Some(replicas) = arguments.read {
            request = request.read(replicas);
        }
        if arguments.latest {
            request = request.latest();
        }
        request.get().await
    })?;
    if !got.is_found() {
        return Err(Failure::failed(format_args!("there is no key {:?}", arguments.key)));
    }
    if got.siblings.len() > 1 {
        eprintln!(
            "ringmain: {} concurrent versions; put with their context to leave one",
            got.siblings.len()
        );
    }
    let found = found(&arguments.key, &got);
    if arguments.form.json {
        print(json(&found).as_bytes())
    } else if arguments.form.hex {
        print(found.hex().as_bytes())
    } else {
        print(&found.raw())
    }
}

pub(super) fn put(arguments: &PutArguments) -> Result<(), Failure> {
    let value = if arguments.value == "-" {
        let mut value = Vec::new();
        io::stdin().read_to_end(&mut value).map_err(Failure::failed)?;
        value
    } else {
        arguments.value.clone().into_bytes()
    };
    run(&arguments.target, async |client| {
        let mut request = client.request(&arguments.key);
        if let Some(replicas) = arguments.write {
            request = request.write(replicas);
        }
        if let Some(ttl) = arguments.ttl {
            request = request.ttl(span(ttl));
        }
        if !arguments.beside {
            request = replacing(&client, request, &arguments.key, &arguments.replaces).await?;
        }
        request.put(value).await.map(drop)
    })
}

pub(super) fn delete(arguments: &DeleteArguments) -> Result<(), Failure> {
    run(&arguments.target, async |client| {
        let mut request = client.request(&arguments.key);
        if let Some(replicas) = arguments.write {
            request = request.write(replicas);
        }
        let request = replacing(&client, request, &arguments.key, &arguments.replaces).await?;
        match request.delete().await {
            // Nothing was ever there, so there is no context to delete it with, and nothing to do.
            Err(ringmain_client::Error::BadRequest(_)) if !is_explicit(&arguments.replaces) => Ok(()),
            done => done.map(drop),
        }
    })
}

const fn is_explicit(replaces: &Replaces) -> bool {
    replaces.overwrite || replaces.context.is_some()
}

/// Let a write replace what the arguments say, or, by default, what a read shows now.
async fn replacing<'c, K: AsRef<[u8]>>(
    client: &Client,
    request: ringmain_client::Request<'c, K>,
    key: &str,
    replaces: &Replaces,
) -> Result<ringmain_client::Request<'c, K>, ringmain_client::Error> {
    if replaces.overwrite {
        return Ok(request.overwrite());
    }
    if let Some(context) = &replaces.context {
        return Ok(request.context(&Context::from_bytes(context.to_vec())));
    }
    let seen = client.get(key).await?;
    Ok(request.context(&seen.context))
}

pub(super) fn status(arguments: &StatusArguments) -> Result<(), Failure> {
    let statuses = run(&arguments.target, async |client| Ok(client.status().await))?;
    if arguments.json {
        let statuses: Vec<_> = statuses.iter().map(ShardReport::new).collect();
        return print(json(&statuses).as_bytes());
    }
    let text: String = statuses.iter().map(render_status).collect();
    print(text.as_bytes())
}

/// One shard's status, as JSON shows it.
#[derive(Serialize)]
struct ShardReport<'a> {
    address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StatusReport<'a>>,
}

#[derive(Serialize)]
struct StatusReport<'a> {
    name: &'a str,
    node: String,
    cluster: String,
    shard: u16,
    shards: u16,
    topology_epoch: String,
    serving: bool,
    software: &'a str,
    members: Vec<MemberReport<'a>>,
    counters: std::collections::BTreeMap<&'a str, u64>,
}

#[derive(Serialize)]
struct MemberReport<'a> {
    name: &'a str,
    node: String,
    address: &'a str,
    incarnation: u64,
    state: &'a str,
}

impl<'a> ShardReport<'a> {
    fn new(shard: &'a ShardStatus) -> Self {
        let (status, error) = match &shard.status {
            Ok(status) => (Some(StatusReport::new(status)), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { address: &shard.address, error, status }
    }
}

impl<'a> StatusReport<'a> {
    fn new(status: &'a Status) -> Self {
        let members = status.members.iter().map(|member| MemberReport {
            name: &member.name,
            node: format!("{:016x}", member.node),
            address: &member.address,
            incarnation: member.incarnation,
            state: &member.state,
        });
        Self {
            name: &status.name,
            node: format!("{:016x}", status.node),
            cluster: format!("{:016x}", status.cluster),
            shard: status.shard,
            shards: status.shards,
            topology_epoch: format!("{:016x}", status.epoch),
            serving: status.serving,
            software: &status.software,
            members: members.collect(),
            counters: status.counters.iter().map(|counter| (&*counter.name, counter.value)).collect(),
        }
    }
}

fn render_status(shard: &ShardStatus) -> String {
    use std::fmt::Write as _;
    let status = match &shard.status {
        Ok(status) => status,
        Err(error) => return format!("{}: {error}\n", shard.address),
    };
    let serving = if status.serving { "serving" } else { "not serving" };
    let (name, number, shards) = (&status.name, status.shard, status.shards);
    let mut text = format!("{name} shard {number} of {shards} at {}: {serving}\n", shard.address);
    for member in &status.members {
        let (name, address, incarnation, state) =
            (&member.name, &member.address, member.incarnation, &member.state);
        let _ = writeln!(text, "  member {name} at {address}, incarnation {incarnation}: {state}");
    }
    for counter in status.counters.iter().filter(|counter| counter.value > 0) {
        let _ = writeln!(text, "  {} {}", counter.name, counter.value);
    }
    text
}

/// Connect, and do one thing.
fn run<T, F>(target: &Target, act: impl FnOnce(Client) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, ringmain_client::Error>>,
{
    let mut builder = Client::builder()
        .servers(target.server.iter().map(ToString::to_string))
        .timeout(span(target.timeout))
        .connect_timeout(span(target.timeout));
    if let Some(path) = &target.secret_file {
        let secret = fs::read_to_string(path)
            .map_err(|error| Failure::failed(format_args!("can't read the secret in {path}: {error}")))?;
        builder = builder.cluster_secret(secret.trim_end().as_bytes());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::failed)?;
    runtime.block_on(async { act(builder.connect().await?).await }).map_err(Failure::failed)
}

fn found(key: &str, got: &Got) -> Found {
    let versions = got.siblings.iter().map(|sibling| {
        let micros = |time: std::time::SystemTime| {
            time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
        };
        Version::new(&sibling.value, micros(sibling.timestamp), sibling.expiry.map_or(0, micros))
    });
    Found { key: key.to_owned(), context: Hex(got.context.as_bytes().to_vec()), versions: versions.collect() }
}

fn span(span: Span) -> Duration {
    Duration::from_nanos(span.0.0)
}

fn print(bytes: &[u8]) -> Result<(), Failure> {
    io::stdout().write_all(bytes).map_err(Failure::failed)
}
