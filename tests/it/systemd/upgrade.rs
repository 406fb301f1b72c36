//! Goal: a server that is stopped and started again on the same socket, with `--data`, is not missed:
//! nobody is refused, nothing acknowledged is lost or doubled, no answer is cut off, and a request
//! that gets no answer was not done.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::http_reader::HttpReader;
use crate::support::{Server, TEST_TIMEOUT, fresh_path, systemd_command};

/// How often the server is restarted; `LONGPOLL_RESTARTS` says otherwise.
const RESTARTS: u32 = 40;
const PUBLISHERS: usize = 3;
const FOLLOWERS: usize = 3;
const VISITORS: usize = 2;
const SIGTERM: i32 = 15;
/// Whoever asks again within this time asks at once: half of what a drain waits for them.
const AT_ONCE: Duration = Duration::from_millis(250);

/// What all clients together have seen.
#[derive(Default)]
struct Seen {
    /// By seq.
    acknowledged: BTreeMap<u64, String>,
    /// Answered with 503, or not at all: these must not have happened.
    not_done: Vec<String>,
    answers: u64,
    /// Answers with 503: the server was shutting down, and said so.
    put_off: u64,
    /// Requests that found a connection closed on which nothing had been asked for longer.
    unanswered: u64,
}

/// A client that keeps its connection as long as the server does.
struct Caller<'a> {
    address: SocketAddr,
    /// And when it last began to ask there.
    kept: Option<(HttpReader<TcpStream>, Instant)>,
    seen: &'a Mutex<Seen>,
}

impl<'a> Caller<'a> {
    fn new(address: SocketAddr, seen: &'a Mutex<Seen>) -> Caller<'a> {
        Caller { address, kept: None, seen }
    }

    fn connect(address: SocketAddr) -> HttpReader<TcpStream> {
        let stream = TcpStream::connect(address).expect("nobody is refused");
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        HttpReader::new(stream)
    }

    /// Asks once: status and body, or nothing when the connection had been closed. Anything between
    /// the two is a failure, and so is no answer for who asks at once.
    fn ask(&mut self, request: &str) -> Option<(u16, Value)> {
        let begun = Instant::now();
        // The server cannot have waited for this request before that.
        let (mut reader, waited) =
            self.kept.take().unwrap_or_else(|| (Caller::connect(self.address), begun));
        // Whether that got anywhere shows in what comes back.
        let _ = reader.stream_mut().write_all(request.as_bytes());
        let at_once = waited.elapsed() < AT_ONCE;
        let Some(response) = reader.response() else {
            assert!(reader.buffered().is_empty(), "only {:?}", reader.buffered().escape_ascii());
            assert!(!at_once, "no answer to {request}");
            self.seen.lock().unwrap().unanswered += 1;
            return None;
        };
        assert!(reader.buffered().is_empty(), "more than one response to {request}");
        if response.header("Connection") != Some("close") {
            self.kept = Some((reader, begun));
        }
        let mut seen = self.seen.lock().unwrap();
        seen.answers += 1;
        seen.put_off += u64::from(response.status == 503);
        Some((response.status, response.json()))
    }
}

/// Asks again and again, each time on a connection of its own, as curl does.
fn visitor(address: SocketAddr, seen: &Mutex<Seen>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let response =
            Caller::new(address, seen).ask("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(matches!(response, Some((200 | 503, _))), "{response:?}");
    }
}

fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Publishes one text after the other, each once, whatever comes of it: without a key, so that a
/// second one would be another event.
fn publisher(mut caller: Caller<'_>, more: &Condvar, stop: &AtomicBool, who: usize) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let body = format!("{who}-{number}");
        let response = caller.ask(&post(&body));
        let mut seen = caller.seen.lock().unwrap();
        match response {
            Some((201, response)) => {
                let seq = response["seq"].as_u64().unwrap();
                let before = seen.acknowledged.insert(seq, body);
                assert_eq!(before, None, "seq {seq} was given out twice");
                more.notify_all();
            }
            Some((503, _)) | None => seen.not_done.push(body),
            other => panic!("{other:?}"),
        }
    }
}

/// Follows `next` until it has seen the last event, whose text is `end`.
fn follower(mut caller: Caller<'_>) -> BTreeMap<u64, String> {
    let (mut since, mut shown) = ("start".to_owned(), BTreeMap::new());
    loop {
        let request =
            format!("GET /topics/news?since={since}&wait=55 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let response = match caller.ask(&request) {
            Some((200, response)) => response,
            Some((503, _)) | None => continue,
            other => panic!("{other:?}"),
        };
        for event in response["events"].as_array().unwrap() {
            let (seq, text) = (event["seq"].as_u64().unwrap(), event["data"].as_str().unwrap());
            assert_eq!(seq, shown.len() as u64 + 1, "one is missing, or came twice");
            shown.insert(seq, text.to_owned());
            if text == "end" {
                return shown;
            }
        }
        response["next"].as_str().unwrap().clone_into(&mut since);
    }
}

fn start(socket: &TcpListener, place: &Path) -> Server {
    let mut command = systemd_command(socket.try_clone().unwrap().into(), "");
    command.args(["--log", "error", "--data", place.to_str().unwrap()]);
    Server::spawn(command.args(["--retain-events", "100000000", "--retain-bytes", "1GiB"]))
}

#[test]
fn restarts_on_the_same_socket_lose_nothing_and_refuse_nobody() {
    let restarts = std::env::var("LONGPOLL_RESTARTS").ok().and_then(|n| n.parse().ok());
    let restarts = restarts.unwrap_or(RESTARTS);
    let place = fresh_path(&format!("upgrade-{}", std::process::id()));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut server = start(&socket, &place);
    let (seen, more, stop) = (Mutex::new(Seen::default()), Condvar::new(), AtomicBool::new(false));
    let random = fastrand::Rng::new().get_seed();
    println!("seed {random}");
    let mut random = fastrand::Rng::with_seed(random);
    let shown: Vec<_> = thread::scope(|scope| {
        let followers: Vec<_> =
            (0..FOLLOWERS).map(|_| scope.spawn(|| follower(Caller::new(address, &seen)))).collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|who| {
                let (seen, more, stop) = (&seen, &more, &stop);
                scope.spawn(move || publisher(Caller::new(address, seen), more, stop, who))
            })
            .collect();
        for _ in 0..VISITORS {
            scope.spawn(|| visitor(address, &seen, &stop));
        }
        // However this ends, the others do too.
        let ends = Ends { stop: &stop };
        for _ in 0..restarts {
            let mut now = seen.lock().unwrap();
            let some = now.acknowledged.len() + random.usize(1..60);
            while now.acknowledged.len() < some {
                let (again, late) = more.wait_timeout(now, TEST_TIMEOUT).unwrap();
                assert!(!late.timed_out(), "nothing is acknowledged any more");
                now = again;
            }
            drop(now);
            server.signal(SIGTERM);
            assert_eq!(server.wait().0.code(), Some(0));
            // Whoever comes now, while there is no server, is served by the next one.
            let mut early = Caller::connect(address);
            early.stream_mut().write_all(b"HEAD /topics/news?since=now HTTP/1.0\r\n\r\n").unwrap();
            server = start(&socket, &place);
            let mut head = String::new();
            early.stream_mut().read_to_string(&mut head).unwrap();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        }
        drop(ends);
        for publisher in publishers {
            publisher.join().unwrap();
        }
        let end = Caller::new(address, &seen).ask(&post("end")).unwrap().1;
        seen.lock().unwrap().acknowledged.insert(end["seq"].as_u64().unwrap(), "end".into());
        followers.into_iter().map(|follower| follower.join().unwrap()).collect()
    });
    let seen = seen.into_inner().unwrap();
    println!(
        "{restarts} restarts, {} answers, {} of them 503, {} requests found a kept connection closed, \
         {} events acknowledged",
        seen.answers,
        seen.put_off,
        seen.unanswered,
        seen.acknowledged.len()
    );
    for shown in &shown {
        assert_eq!(*shown, seen.acknowledged, "what was acknowledged is what was shown");
    }
    let happened = |text: &&String| seen.acknowledged.values().any(|body| body == *text);
    assert_eq!(seen.not_done.iter().find(happened), None);
    assert!(seen.acknowledged.len() > restarts as usize);
    drop(server);
    std::fs::remove_dir_all(&place).unwrap();
}

struct Ends<'a> {
    stop: &'a AtomicBool,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
