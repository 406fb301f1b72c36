//! Guards upgrades without downtime: a server with `--data` that is restarted on the same socket
//! refuses no connection, loses or repeats no acknowledged event, and truncates no response. A
//! request without a response was not executed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::data_dir::StopOnDrop;
use crate::support::http_reader::HttpReader;
use crate::support::{Server, TEST_TIMEOUT, fresh_path, systemd_command};

/// The default number of restarts; `LONGPOLL_RESTARTS` overrides it.
const RESTARTS: u32 = 40;
const PUBLISHERS: usize = 3;
const FOLLOWERS: usize = 3;
const ONE_SHOT_CLIENTS: usize = 2;
const SIGTERM: i32 = 15;
/// A request within this time after the last one must get a response: half of the time that a drain
/// waits for idle connections.
const PROMPT: Duration = Duration::from_millis(250);

/// What all clients together have observed.
#[derive(Default)]
struct Observed {
    /// Texts by seq.
    acknowledged: BTreeMap<u64, String>,
    /// Publishes with a 503 or without a response: none of them may be in the log.
    not_done: Vec<String>,
    answers: u64,
    /// Responses with 503, because the server was draining.
    unavailable: u64,
    /// Requests on a connection that had been idle for longer and was closed meanwhile.
    unanswered: u64,
}

/// A client that keeps its connection as long as the server does.
struct KeepAliveClient<'a> {
    address: SocketAddr,
    /// The open connection, and when its last request began.
    kept: Option<(HttpReader<TcpStream>, Instant)>,
    observed: &'a Mutex<Observed>,
}

impl<'a> KeepAliveClient<'a> {
    fn new(address: SocketAddr, observed: &'a Mutex<Observed>) -> KeepAliveClient<'a> {
        KeepAliveClient { address, kept: None, observed }
    }

    fn connect(address: SocketAddr) -> HttpReader<TcpStream> {
        let stream = TcpStream::connect(address).expect("no connection is refused");
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        HttpReader::new(stream)
    }

    /// Sends one request; returns status and body, or `None` if the connection had been closed. A
    /// truncated response fails, and so does a missing response to a prompt request.
    fn request(&mut self, request: &str) -> Option<(u16, Value)> {
        let started = Instant::now();
        // On a new connection, the server cannot have waited before this moment.
        let (mut reader, waited) =
            self.kept.take().unwrap_or_else(|| (KeepAliveClient::connect(self.address), started));
        // The response shows whether the write succeeded.
        let _ = reader.stream_mut().write_all(request.as_bytes());
        let is_prompt = waited.elapsed() < PROMPT;
        let Some(response) = reader.response() else {
            assert!(reader.buffered().is_empty(), "only {:?}", reader.buffered().escape_ascii());
            assert!(!is_prompt, "no response to {request}");
            self.observed.lock().unwrap().unanswered += 1;
            return None;
        };
        assert!(reader.buffered().is_empty(), "more than one response to {request}");
        if response.header("Connection") != Some("close") {
            self.kept = Some((reader, started));
        }
        let mut observed = self.observed.lock().unwrap();
        observed.answers += 1;
        observed.unavailable += u64::from(response.status == 503);
        Some((response.status, response.json()))
    }
}

/// Sends one request after the other, each on a new connection, as curl does.
fn one_shot_client(address: SocketAddr, observed: &Mutex<Observed>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let response = KeepAliveClient::new(address, observed)
            .request("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(matches!(response, Some((200 | 503, _))), "{response:?}");
    }
}

fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Publishes one text after the other, each exactly once and without a key: a retry would append
/// another event.
fn publisher(mut client: KeepAliveClient<'_>, more: &Condvar, stop: &AtomicBool, id: usize) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let body = format!("{id}-{number}");
        let response = client.request(&post(&body));
        let mut observed = client.observed.lock().unwrap();
        match response {
            Some((201, response)) => {
                let seq = response["seq"].as_u64().unwrap();
                let before = observed.acknowledged.insert(seq, body);
                assert_eq!(before, None, "seq {seq} was issued twice");
                more.notify_all();
            }
            Some((503, _)) | None => observed.not_done.push(body),
            other => panic!("{other:?}"),
        }
    }
}

/// Polls along `next` until the last event, whose text is `end`.
fn follower(mut client: KeepAliveClient<'_>) -> BTreeMap<u64, String> {
    let (mut since, mut shown) = ("start".to_owned(), BTreeMap::new());
    loop {
        let request =
            format!("GET /topics/news?since={since}&wait=55 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let response = match client.request(&request) {
            Some((200, response)) => response,
            Some((503, _)) | None => continue,
            other => panic!("{other:?}"),
        };
        for event in response["events"].as_array().unwrap() {
            let (seq, text) = (event["seq"].as_u64().unwrap(), event["data"].as_str().unwrap());
            assert_eq!(seq, shown.len() as u64 + 1, "an event is missing or repeated");
            shown.insert(seq, text.to_owned());
            if text == "end" {
                return shown;
            }
        }
        response["next"].as_str().unwrap().clone_into(&mut since);
    }
}

fn start(socket: &TcpListener, dir: &Path) -> Server {
    let mut command = systemd_command(socket.try_clone().unwrap().into(), "");
    command.args(["--log", "error", "--data", dir.to_str().unwrap()]);
    Server::spawn(command.args(["--retain-events", "100000000", "--retain-bytes", "1GiB"]))
}

/// Waits until this number of further publishes is acknowledged.
fn wait_for_publishes(observed: &Mutex<Observed>, more: &Condvar, count: usize) {
    let mut observed = observed.lock().unwrap();
    let target = observed.acknowledged.len() + count;
    while observed.acknowledged.len() < target {
        let (guard, timeout) = more.wait_timeout(observed, TEST_TIMEOUT).unwrap();
        assert!(!timeout.timed_out(), "no publish is acknowledged any more");
        observed = guard;
    }
}

#[test]
fn restarts_on_the_same_socket_lose_nothing_and_refuse_nobody() {
    let restarts = std::env::var("LONGPOLL_RESTARTS").ok().and_then(|n| n.parse().ok());
    let restarts = restarts.unwrap_or(RESTARTS);
    let dir = fresh_path(&format!("upgrade-{}", std::process::id()));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut server = start(&socket, &dir);
    let (observed, more, stop) =
        (Mutex::new(Observed::default()), Condvar::new(), AtomicBool::new(false));
    let random = fastrand::Rng::new().get_seed();
    println!("seed {random}");
    let mut random = fastrand::Rng::with_seed(random);
    let shown: Vec<_> = thread::scope(|scope| {
        let followers: Vec<_> = (0..FOLLOWERS)
            .map(|_| scope.spawn(|| follower(KeepAliveClient::new(address, &observed))))
            .collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|id| {
                let (observed, more, stop) = (&observed, &more, &stop);
                scope.spawn(move || {
                    publisher(KeepAliveClient::new(address, observed), more, stop, id);
                })
            })
            .collect();
        for _ in 0..ONE_SHOT_CLIENTS {
            scope.spawn(|| one_shot_client(address, &observed, &stop));
        }
        // Stops the other threads also when this scope panics.
        let stop_on_drop = StopOnDrop(&stop);
        for _ in 0..restarts {
            wait_for_publishes(&observed, &more, random.usize(1..60));
            server.signal(SIGTERM);
            assert_eq!(server.wait().0.code(), Some(0));
            // A client that connects while no server runs is served by the next one.
            let mut early = KeepAliveClient::connect(address);
            early.stream_mut().write_all(b"HEAD /topics/news?since=now HTTP/1.0\r\n\r\n").unwrap();
            server = start(&socket, &dir);
            let mut head = String::new();
            early.stream_mut().read_to_string(&mut head).unwrap();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        }
        drop(stop_on_drop);
        for publisher in publishers {
            publisher.join().unwrap();
        }
        let end = KeepAliveClient::new(address, &observed).request(&post("end")).unwrap().1;
        observed.lock().unwrap().acknowledged.insert(end["seq"].as_u64().unwrap(), "end".into());
        followers.into_iter().map(|follower| follower.join().unwrap()).collect()
    });
    let observed = observed.into_inner().unwrap();
    println!(
        "{restarts} restarts, {} answers, {} of them 503, {} requests found a kept connection closed, \
         {} events acknowledged",
        observed.answers,
        observed.unavailable,
        observed.unanswered,
        observed.acknowledged.len()
    );
    for shown in &shown {
        assert_eq!(*shown, observed.acknowledged, "followers see exactly the acknowledged events");
    }
    let happened = |text: &&String| observed.acknowledged.values().any(|body| body == *text);
    assert_eq!(observed.not_done.iter().find(happened), None);
    assert!(observed.acknowledged.len() > restarts as usize);
    drop(server);
    std::fs::remove_dir_all(&dir).unwrap();
}
