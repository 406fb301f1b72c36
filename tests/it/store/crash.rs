//! Guards crash safety: a server that is killed at any moment, also while its disk is full, or ended
//! in order, keeps all acknowledged and all delivered events: 0 missing, 0 changed, 0 duplicated,
//! with the same seqs in the same epoch.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;

use serde_json::Value;

use crate::support::data_dir::{SmallFileSystem, StopOnDrop, start_with_data};
use crate::support::http_reader::HttpReader;
use crate::support::{Server, TEST_TIMEOUT, fresh_path};

/// The default number of kills; `LONGPOLL_CRASHES` overrides it.
const CRASHES: u32 = 30;
const PUBLISHERS: usize = 4;

/// What the clients have seen: bodies by seq, as acknowledged to publishers and as shown to
/// pollers.
#[derive(Default)]
struct Observed {
    acknowledged: BTreeMap<u64, String>,
    shown: BTreeMap<u64, String>,
    /// Publishes that were answered `507`; each is retried until it is acknowledged.
    refused: usize,
    epochs: Vec<String>,
}

impl Observed {
    fn epoch(&mut self, cursor: &str) {
        let epoch = cursor.split('.').next().unwrap().to_owned();
        if !self.epochs.contains(&epoch) {
            self.epochs.push(epoch);
        }
    }
}

/// Sends one request on a new connection; `None` if the server died meanwhile.
fn request_json(address: SocketAddr, request: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut reader = HttpReader::new(stream);
    let response = reader.response()?;
    reader.rest().is_empty().then(|| response.json())
}

fn publish(address: SocketAddr, body: &str) -> Option<Value> {
    request_json(
        address,
        &format!(
            "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Idempotency-Key: {body}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

fn poll(address: SocketAddr, since: &str, wait: u32) -> Option<Value> {
    request_json(
        address,
        &format!(
            "GET /topics/news?since={since}&wait={wait}&limit=1000 HTTP/1.1\r\n\
             Host: localhost\r\nConnection: close\r\n\r\n"
        ),
    )
}

/// Publishes one body after the other and retries each with its key until it is acknowledged.
fn publisher(
    address: &Mutex<SocketAddr>,
    observed: &Mutex<Observed>,
    more: &Condvar,
    stop: &AtomicBool,
    id: usize,
) {
    for number in 0.. {
        let body = format!("{id}-{number}");
        loop {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let to = *address.lock().unwrap();
            let Some(response) = publish(to, &body) else { continue };
            let mut observed = observed.lock().unwrap();
            let Some(seq) = response["seq"].as_u64() else {
                observed.refused += usize::from(response["status"] == 507);
                more.notify_one();
                continue;
            };
            observed.epoch(response["cursor"].as_str().unwrap());
            let before = observed.acknowledged.insert(seq, body.clone());
            assert_eq!(before, None, "seq {seq} was issued twice");
            more.notify_one();
            break;
        }
    }
}

/// Polls along `next` until it is stopped.
fn poller(address: &Mutex<SocketAddr>, observed: &Mutex<Observed>, stop: &AtomicBool) {
    let mut since = "start".to_owned();
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        let to = *address.lock().unwrap();
        let Some(response) = poll(to, &since, 1) else { continue };
        let Some(events) = response["events"].as_array() else { panic!("{response}") };
        let mut observed = observed.lock().unwrap();
        for event in events {
            let seq = event["seq"].as_u64().unwrap();
            assert_eq!(seq, last + 1, "an event is missing or repeated");
            last = seq;
            observed.shown.insert(seq, event["data"].as_str().unwrap().to_owned());
        }
        response["next"].as_str().unwrap().clone_into(&mut since);
        observed.epoch(&since);
    }
}

fn start(dir: &Path) -> Server {
    let flags = ["--retain-events", "100000000", "--retain-bytes", "1GiB"];
    start_with_data(dir, &flags)
}

/// The body of each event that the server keeps, by seq.
fn kept_events(address: SocketAddr) -> BTreeMap<u64, String> {
    let mut kept = BTreeMap::new();
    let mut since = "start".to_owned();
    loop {
        let response = poll(address, &since, 0).unwrap();
        for event in response["events"].as_array().unwrap() {
            let body = event["data"].as_str().unwrap().to_owned();
            kept.insert(event["seq"].as_u64().unwrap(), body);
        }
        response["next"].as_str().unwrap().clone_into(&mut since);
        if response["more"] == false {
            break;
        }
    }
    kept
}

#[test]
fn server_that_is_killed_repeatedly_loses_and_changes_nothing() {
    let crashes = std::env::var("LONGPOLL_CRASHES").ok().and_then(|n| n.parse().ok());
    let crashes = crashes.unwrap_or(CRASHES);
    // A long run may share the machine with the ordinary tests.
    let name = format!("store-crash-{}", std::process::id());
    let disk = SmallFileSystem::mount(&name, 64 << 10);
    let dir = disk.as_ref().map_or_else(|| fresh_path(&name), |disk| disk.0.join("data"));
    let mut server = start(&dir);
    let address = Mutex::new(server.address);
    let (observed, stop) = (Mutex::new(Observed::default()), AtomicBool::new(false));
    let more = Condvar::new();
    let random = fastrand::Rng::new().get_seed();
    println!("seed {random}");
    let mut random = fastrand::Rng::with_seed(random);
    thread::scope(|scope| {
        for id in 0..PUBLISHERS {
            let (address, observed, more, stop) = (&address, &observed, &more, &stop);
            scope.spawn(move || publisher(address, observed, more, stop, id));
        }
        scope.spawn(|| poller(&address, &observed, &stop));
        // Stops the threads also when this scope panics.
        let _stop = StopOnDrop(&stop);
        for crash in 0..crashes {
            // One end in four is in order, and one comes while publishes are refused.
            let filler = disk.as_ref().filter(|_| crash % 4 == 3).map(SmallFileSystem::fill);
            let answers = |observed: &Observed| match filler {
                Some(_) => observed.refused,
                None => observed.acknowledged.len(),
            };
            let mut now = observed.lock().unwrap();
            let target = answers(&now) + random.usize(1..40);
            while answers(&now) < target {
                let (guard, timeout) = more.wait_timeout(now, TEST_TIMEOUT).unwrap();
                assert!(!timeout.timed_out(), "no publish is answered any more");
                now = guard;
            }
            drop(now);
            server.signal(if crash % 4 == 1 { 15 } else { 9 });
            server.wait();
            server = start(&dir);
            *address.lock().unwrap() = server.address;
            if let Some(filler) = filler {
                std::fs::remove_file(filler).unwrap();
            }
        }
    });
    let observed = observed.into_inner().unwrap();
    let kept = kept_events(server.address);
    let missing =
        observed.acknowledged.iter().filter(|(seq, body)| kept.get(seq) != Some(body)).count();
    let changed = observed.shown.iter().filter(|(seq, body)| kept.get(seq) != Some(body)).count();
    let mut bodies: Vec<_> = kept.values().collect();
    bodies.sort();
    let all = bodies.len();
    bodies.dedup();
    println!(
        "{crashes} ends, {} acknowledged, {} refused, {} shown, {all} kept: missing {missing}, \
         changed {changed}, twice {}, epochs {}",
        observed.acknowledged.len(),
        observed.refused,
        observed.shown.len(),
        all - bodies.len(),
        observed.epochs.len()
    );
    assert_eq!((missing, changed, all - bodies.len(), observed.epochs.len()), (0, 0, 0, 1));
    assert!(observed.acknowledged.len() > crashes as usize);
    drop(server);
    // A file system in memory is unmounted by its owner.
    std::fs::remove_dir_all(&dir).unwrap();
}
