//! The commands that ask a server, through the client crate.

use std::fs;
use std::future::Future;
use std::io::{self, Read, Write};
use std::time::{Duration, UNIX_EPOCH};

use ringmain::config::Span;
use ringmain_client::{Client, Context, Got};

use super::Failure;
use super::arguments::{DeleteArguments, GetArguments, PutArguments, Replaces, Target};
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
        if let Some(zones) = arguments.zones {
            request = request.zones(zones);
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
        if let Some(zones) = arguments.zones {
            request = request.zones(zones);
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

/// Connect, and ask one thing.
pub(super) fn run<T, F>(target: &Target, act: impl FnOnce(Client) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, ringmain_client::Error>>,
{
    connected(target, async |client| act(client).await.map_err(Failure::failed))
}

/// Connect, and do one thing.
pub(super) fn connected<T>(
    target: &Target,
    act: impl AsyncFnOnce(Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
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
    runtime.block_on(async { act(builder.connect().await.map_err(Failure::failed)?).await })
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

pub(super) fn span(span: Span) -> Duration {
    Duration::from_nanos(span.0.0)
}

pub(super) fn print(bytes: &[u8]) -> Result<(), Failure> {
    io::stdout().write_all(bytes).map_err(Failure::failed)
}
