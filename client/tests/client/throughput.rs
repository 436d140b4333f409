//! What a request costs this crate. Not a test of anything: run it when the hot path changes, with
//! `cargo test --release -p ringmain-client throughput -- --ignored --nocapture`.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringmain_client::{Builder, Client};
use ringmain_schema::frame::{Flags, Kind};
use ringmain_schema::message::Stored;
use ringmain_schema::{Encoder, Frame};

use crate::fake::{Behaviour, Fake, got, topology};

const VALUE: [u8; 100] = [7; 100];

/// Three servers on a thread of their own, each answering at once.
fn servers() -> Vec<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut fakes = Vec::new();
            for _ in 0..3 {
                let handler = |frame: &Frame<'_>, encoder: &mut Encoder, out: &mut Vec<u8>| {
                    let id = frame.header.request_id;
                    if frame.header.kind == Kind::GET {
                        got(encoder, id, Flags::NONE, b"a context", &[&VALUE], out);
                    } else {
                        Stored::default().encode(encoder, id, Flags::NONE, out);
                    }
                    true
                };
                fakes.push(
                    Fake::start(Behaviour { handler: Some(Arc::new(handler)), ..Behaviour::default() }).await,
                );
            }
            let ports: Vec<[u16; 1]> = fakes.iter().map(|fake| [fake.port]).collect();
            let ports: Vec<&[u16]> = ports.iter().map(|ports| &ports[..]).collect();
            fakes.iter().for_each(|fake| fake.tell(topology(1, &ports, 3)));
            sender.send(fakes.iter().map(Fake::address).collect()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().unwrap()
}

/// Microseconds of user and system time that this thread has used.
fn thread_cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<u64>().unwrap() / 1000
}

async fn load(client: &Client, tasks: usize, duration: Duration) -> u64 {
    let until = Instant::now() + duration;
    let run = |task: usize| {
        let client = client.clone();
        async move {
            let mut count = 0;
            while Instant::now() < until {
                let key = (task as u64 * 1_000_003 + count).to_le_bytes();
                if count % 2 == 0 {
                    client.overwrite(key, &VALUE[..]).await.unwrap();
                } else {
                    client.get(key).await.unwrap();
                }
                count += 1;
            }
            count
        }
    };
    let tasks: Vec<_> = (0..tasks).map(|task| tokio::spawn(run(task))).collect();
    let mut total = 0;
    for task in tasks {
        total += task.await.unwrap();
    }
    total
}

#[test]
#[ignore = "measures: cargo test --release -p ringmain-client --test client -- --ignored --nocapture"]
fn throughput() {
    let servers = servers();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let client = Builder::default().servers(servers).connect().await.unwrap();
        load(&client, 16, Duration::from_millis(500)).await;
        for tasks in [1, 16, 256, 2048] {
            let (start, cpu) = (Instant::now(), thread_cpu_us());
            let count = load(&client, tasks, Duration::from_secs(3)).await;
            let cpu = (thread_cpu_us() - cpu) as f64 / count as f64;
            let rate = count as f64 / start.elapsed().as_secs_f64();
            println!("{tasks:5} tasks: {rate:8.0} requests/s, {cpu:.2} us of client CPU each");
        }
    });
}
