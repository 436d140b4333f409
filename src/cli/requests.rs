//! The commands that ask a server, through the client crate.

use std::io::{self, Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringmain::config::{Secret, Span};
use ringmain_client::{Client, Context, Error, Got, Request, ShardStatus, Sibling, Stored};

use super::Failure;
use super::arguments::{
    DeleteArguments, Form, GetArguments, PutArguments, Replaces, StatusArguments, Target,
};
use super::render::{self, Found, Hex, Version};

pub(super) fn get(arguments: &GetArguments) -> Result<(), Failure> {
    let got = ask(&arguments.target, async |client| {
        let request = client.request(&arguments.key).read(arguments.read.unwrap_or(0));
        let request = if arguments.latest { request.latest() } else { request };
        request.get().await
    })?;
    if !got.is_found() {
        return Err(Failure::Failed(format!("there is nothing under '{}'", arguments.key)));
    }
    if got.siblings.len() > 1 {
        eprintln!(
            "ringmain: {} siblings, written by clients that didn't know of one another; a put replaces them all",
            got.siblings.len()
        );
    }
    print(&found(&arguments.key, &got), arguments.form)
}

pub(super) fn put(arguments: &PutArguments) -> Result<(), Failure> {
    let value = match arguments.value.as_str() {
        "-" => read_input()?,
        value => value.as_bytes().to_vec(),
    };
    let stored = ask(&arguments.target, async |client| {
        let request = client.request(&arguments.key).write(arguments.write.unwrap_or(0));
        let request = match arguments.ttl {
            Some(ttl) => request.ttl(std_duration(ttl)),
            None => request,
        };
        let request = if arguments.beside {
            request
        } else {
            let seen = seen(client, &arguments.key, &arguments.replaces).await?;
            replacing(request, &seen)
        };
        request.put(value).await
    })?;
    say_where(&stored);
    Ok(())
}

pub(super) fn delete(arguments: &DeleteArguments) -> Result<(), Failure> {
    let stored = ask(&arguments.target, async |client| {
        let seen = seen(client, &arguments.key, &arguments.replaces).await?;
        if seen == Seen::Nothing {
            return Ok(None);
        }
        let request = client.request(&arguments.key).write(arguments.write.unwrap_or(0));
        replacing(request, &seen).delete().await.map(Some)
    })?;
    match stored {
        Some(stored) => say_where(&stored),
        None => return Err(Failure::Failed(format!("there is nothing under '{}'", arguments.key))),
    }
    Ok(())
}

pub(super) fn status(arguments: &StatusArguments) -> Result<(), Failure> {
    let shards = ask(&arguments.target, async |client| Ok(client.status().await))?;
    let text = if arguments.json { render::status_json(&shards) } else { render::status_table(&shards) };
    write_out(text.as_bytes())?;
    let silent = |shard: &ShardStatus| shard.status.is_err();
    if shards.iter().all(silent) {
        return Err(Failure::Failed("no shard has answered".to_owned()));
    }
    Ok(())
}

/// What a write is to replace.
#[derive(PartialEq, Eq, Debug)]
enum Seen {
    /// Whatever is there.
    Anything,
    /// What this covers.
    Context(Context),
    /// Nothing was ever there.
    Nothing,
}

/// What the arguments say that a write replaces; what a read shows, if they say nothing.
async fn seen(client: &Client, key: &str, replaces: &Replaces) -> Result<Seen, Error> {
    if replaces.overwrite {
        return Ok(Seen::Anything);
    }
    let context = match &replaces.context {
        Some(bytes) => Context::from_bytes(bytes.to_vec()),
        None => client.get(key).await?.context,
    };
    Ok(if context.is_empty() { Seen::Nothing } else { Seen::Context(context) })
}

fn replacing<'a>(request: Request<'a, &'a String>, seen: &Seen) -> Request<'a, &'a String> {
    match seen {
        Seen::Anything => request.overwrite(),
        Seen::Context(context) => request.context(context),
        Seen::Nothing => request,
    }
}

/// Connect, do `work`, and say in a sentence what went wrong.
fn ask<T>(target: &Target, work: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Result<T, Failure> {
    let secret = match &target.secret_file {
        Some(path) => {
            let read = std::fs::read_to_string(path);
            let text =
                read.map_err(|error| Failure::Usage(format!("can't read the secret in {path}: {error}")))?;
            Secret::new(&text).as_bytes().to_vec()
        }
        None => Vec::new(),
    };
    let timeout = std_duration(target.timeout);
    let builder = Client::builder()
        .servers(target.server.iter().map(ToString::to_string))
        .cluster_secret(secret)
        .timeout(timeout)
        .connect_timeout(timeout);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(async { work(&builder.connect().await?).await }).map_err(|error| match error {
        Error::BadRequest(_) | Error::Url(_) => Failure::Usage(error.to_string()),
        error => Failure::failed(error),
    })
}

fn found(key: &str, got: &Got) -> Found {
    let version = |sibling: &Sibling| {
        let expiry_us = sibling.expiry.map_or(0, since_1970_us);
        Version::new(&sibling.value, since_1970_us(sibling.timestamp), expiry_us)
    };
    Found {
        key: key.to_owned(),
        context: Hex(got.context.as_bytes().to_vec()),
        versions: got.siblings.iter().map(version).collect(),
    }
}

fn since_1970_us(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn print(found: &Found, form: Form) -> Result<(), Failure> {
    if form.json {
        write_out(render::json(found).as_bytes())
    } else if form.hex {
        write_out(found.hex().as_bytes())
    } else {
        write_out(&found.raw())
    }
}

fn say_where(stored: &Stored) {
    eprintln!("ringmain: ok, on {} nodes", stored.replicas.nodes);
}

/// A reader that has seen enough and closes its end, such as `head`, is no failure.
fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(error)),
        _ => Ok(()),
    }
}

fn read_input() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    io::stdin().lock().read_to_end(&mut value).map_err(Failure::failed)?;
    Ok(value)
}

fn std_duration(Span(span): Span) -> Duration {
    Duration::from_nanos(span.0)
}
