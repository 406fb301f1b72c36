//! Goal: a server that is killed at any moment keeps what it has acknowledged and what it has shown:
//! acknowledged and missing 0, shown and then changed 0, twice 0, same seqs, same epoch.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;

use serde_json::Value;

use crate::support::data_dir::{StopOnDrop, start_with_data};
use crate::support::http_reader::HttpReader;
use crate::support::{Server, TEST_TIMEOUT, fresh_path};

/// How often the server is killed; `LONGPOLL_CRASHES` says otherwise.
const CRASHES: u32 = 30;
const PUBLISHERS: usize = 4;

/// What clients know: a body that was acknowledged under a seq, or shown under one.
#[derive(Default)]
struct Known {
    acknowledged: BTreeMap<u64, String>,
    shown: BTreeMap<u64, String>,
    epochs: Vec<String>,
}

impl Known {
    fn epoch(&mut self, cursor: &str) {
        let epoch = cursor.split('.').next().unwrap().to_owned();
        if !self.epochs.contains(&epoch) {
            self.epochs.push(epoch);
        }
    }
}

/// One request on a connection of its own; none when the server went away meanwhile.
fn ask(address: SocketAddr, request: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut reader = HttpReader::new(stream);
    let response = reader.response()?;
    reader.rest().is_empty().then(|| response.json())
}

fn publish(address: SocketAddr, body: &str) -> Option<Value> {
    ask(
        address,
        &format!(
            "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Idempotency-Key: {body}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

fn poll(address: SocketAddr, since: &str, wait: u32) -> Option<Value> {
    ask(
        address,
        &format!(
            "GET /topics/news?since={since}&wait={wait}&limit=1000 HTTP/1.1\r\n\
             Host: localhost\r\nConnection: close\r\n\r\n"
        ),
    )
}

/// Publishes one body after the other, each until it is acknowledged, as a client with keys would.
fn publisher(
    address: &Mutex<SocketAddr>,
    known: &Mutex<Known>,
    more: &Condvar,
    stop: &AtomicBool,
    who: usize,
) {
    for number in 0.. {
        let body = format!("{who}-{number}");
        loop {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let to = *address.lock().unwrap();
            let Some(response) = publish(to, &body) else { continue };
            assert_ne!(response["status"], 410);
            let Some(seq) = response["seq"].as_u64() else { continue };
            let mut known = known.lock().unwrap();
            known.epoch(response["cursor"].as_str().unwrap());
            let before = known.acknowledged.insert(seq, body.clone());
            assert_eq!(before, None, "seq {seq} was given out twice");
            more.notify_one();
            break;
        }
    }
}

/// Follows `next` all along.
fn poller(address: &Mutex<SocketAddr>, known: &Mutex<Known>, stop: &AtomicBool) {
    let mut since = "start".to_owned();
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        let to = *address.lock().unwrap();
        let Some(response) = poll(to, &since, 1) else { continue };
        let Some(events) = response["events"].as_array() else { panic!("{response}") };
        let mut known = known.lock().unwrap();
        for event in events {
            let seq = event["seq"].as_u64().unwrap();
            assert_eq!(seq, last + 1, "one is missing, or came twice");
            last = seq;
            known.shown.insert(seq, event["data"].as_str().unwrap().to_owned());
        }
        response["next"].as_str().unwrap().clone_into(&mut since);
        known.epoch(&since);
    }
}

fn start(place: &Path) -> Server {
    let flags = ["--retain-events", "100000000", "--retain-bytes", "1GiB"];
    start_with_data(place, &flags)
}

#[test]
fn a_server_that_is_killed_again_and_again_loses_and_changes_nothing() {
    let crashes = std::env::var("LONGPOLL_CRASHES").ok().and_then(|n| n.parse().ok());
    let crashes = crashes.unwrap_or(CRASHES);
    // A long run may go on beside the ordinary tests.
    let place = fresh_path(&format!("store-crash-{}", std::process::id()));
    let mut server = start(&place);
    let address = Mutex::new(server.address);
    let (known, stop) = (Mutex::new(Known::default()), AtomicBool::new(false));
    let more = Condvar::new();
    let random = fastrand::Rng::new().get_seed();
    println!("seed {random}");
    let mut random = fastrand::Rng::with_seed(random);
    thread::scope(|scope| {
        for who in 0..PUBLISHERS {
            let (address, known, more, stop) = (&address, &known, &more, &stop);
            scope.spawn(move || publisher(address, known, more, stop, who));
        }
        scope.spawn(|| poller(&address, &known, &stop));
        // However this ends, the others do too.
        let _stop = StopOnDrop(&stop);
        for _ in 0..crashes {
            let some = known.lock().unwrap().acknowledged.len() + random.usize(1..40);
            let mut now = known.lock().unwrap();
            while now.acknowledged.len() < some {
                let (again, late) = more.wait_timeout(now, TEST_TIMEOUT).unwrap();
                assert!(!late.timed_out(), "nothing is acknowledged any more");
                now = again;
            }
            drop(now);
            server.signal(9);
            server.wait();
            server = start(&place);
            *address.lock().unwrap() = server.address;
        }
    });
    let known = known.into_inner().unwrap();
    let mut kept = BTreeMap::new();
    let mut since = "start".to_owned();
    loop {
        let response = poll(server.address, &since, 0).unwrap();
        for event in response["events"].as_array().unwrap() {
            let body = event["data"].as_str().unwrap().to_owned();
            kept.insert(event["seq"].as_u64().unwrap(), body);
        }
        response["next"].as_str().unwrap().clone_into(&mut since);
        if response["more"] == false {
            break;
        }
    }
    let missing =
        known.acknowledged.iter().filter(|(seq, body)| kept.get(seq) != Some(body)).count();
    let changed = known.shown.iter().filter(|(seq, body)| kept.get(seq) != Some(body)).count();
    let mut bodies: Vec<_> = kept.values().collect();
    bodies.sort();
    let all = bodies.len();
    bodies.dedup();
    println!(
        "{crashes} crashes, {} acknowledged, {} shown, {all} kept: missing {missing}, changed {changed}, \
         twice {}, epochs {}",
        known.acknowledged.len(),
        known.shown.len(),
        all - bodies.len(),
        known.epochs.len()
    );
    assert_eq!((missing, changed, all - bodies.len(), known.epochs.len()), (0, 0, 0, 1));
    assert!(known.acknowledged.len() > crashes as usize);
    drop(server);
    std::fs::remove_dir_all(&place).unwrap();
}
