//! Chapter zero: a long-polling server in one file, to be read before `src/`. Argument: the port.
//!
//! A long poll is a GET that is answered when there is something to say, or at its deadline. Five
//! crates are enough: `tiny_http` parses requests, [`accept`] queues them in a bounded
//! `crossbeam_channel`, a fixed pool of threads answers them, [`EventLog::poll`] waits on a
//! `parking_lot` condition variable, `ctrlc` starts the drain, and `serde_json` writes responses.
//!
//! ```text
//! POST /topics/T                 201 {"seq":7,"topic":"T"}
//! GET  /topics/T?since=N&wait=S  200 {"events":[{"data","seq","topic"}],"next":N,"reason":"data"}
//!                                reason: data, timeout or drain; 410 if events after N are gone
//! GET  /counters                 200 {"held":N,"queued":N,"wakeups":N}, at any load
//! ```
//! `next` is the cursor: the client sends it back as `since`, and loses nothing between two polls.
//!
//! What this lacks, and where the real server has it, in reading order (*: lesson 0 shows it):
//! - \* cursors that a restarted server recognizes as old: `src/cursor.rs`, lesson 9
//! - several topics in one poll, gaps per topic, idempotent retries: `src/log/`, lessons 7, 9, 12
//! - \* wake-ups for the waiters of one topic only: `src/waiters.rs`, lessons 5 and 6
//! - \* threads left for publishes; shared responses; SSE: `src/api/`, lessons 8, 6, 14 and 15
//! - \* bursts in which every connection is answered: `src/server/acceptor.rs`, `src/server/pool.rs`
//! - \* threads freed by clients that hang up or do not read: `src/server/`, `src/conn.rs`
//! - \* a log that survives a restart: `src/store/`, lesson 11

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};
use std::{env, error::Error, sync::Arc, thread};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};
use tiny_http::{Header, Method, Request, Response, Server};

const WORKERS: usize = 4; // threads of the pool; a held poll keeps one, so this limits those too
const QUEUE: usize = 4; // requests that wait for a thread; more would only delay the refusal
const KEPT_EVENTS: usize = 256; // with BODY_LIMIT, bounds the log to 16 MiB of data
const BODY_LIMIT: u64 = 64 * 1024; // bytes, generous for a notification
const DEFAULT_WAIT: u64 = 25; // seconds
const MAX_WAIT: u64 = 55; // seconds; many proxies cut a silent connection after 60

/// A status and its JSON. `Err(Reply)` is a response too, one that ends a function early.
type Reply = (u16, Value);

/// The newest events of all topics, numbered without holes, and what the counters count.
#[derive(Default)]
struct State {
    events: VecDeque<Value>,
    newest: u64,
    trimmed: u64,
    draining: bool,
    held: usize,
    wakeups: u64,
}

impl State {
    /// A topic's events after `since`, or a refusal if some of them may be gone.
    fn after(&self, since: u64, topic: &str) -> Result<Vec<Value>, Reply> {
        let gone = || refusal(410, "events after this cursor were trimmed; poll without since");
        let skip = since.checked_sub(self.trimmed).ok_or_else(gone)? as usize;
        Ok(self.events.iter().skip(skip).filter(|event| event["topic"] == topic).cloned().collect())
    }
}

/// One lock over everything, and one condition variable on which every held poll waits.
#[derive(Default)]
struct EventLog {
    state: Mutex<State>,
    changed: Condvar,
}

impl EventLog {
    /// Appends an event, then wakes every held poll to look for itself.
    fn publish(&self, topic: &str, data: &str) -> Reply {
        let mut state = self.state.lock();
        state.newest += 1;
        let seq = state.newest;
        state.events.push_back(json!({ "seq": seq, "topic": topic, "data": data }));
        if state.events.len() > KEPT_EVENTS {
            state.events.pop_front();
            state.trimmed += 1;
        }
        drop(state);
        self.changed.notify_all();
        (201, json!({ "seq": seq, "topic": topic }))
    }

    /// Answers when there are events after `since`, at the deadline, or when the server drains.
    ///
    /// No wake-up is lost: `wait_until` releases the lock only by waiting, and a publish needs
    /// the lock. The deadline is an instant: a wake-up for another topic does not move it.
    fn poll(&self, topic: &str, since: Option<u64>, deadline: Instant) -> Result<Reply, Reply> {
        let mut state = self.state.lock();
        let mut events = state.after(since.unwrap_or(state.trimmed), topic)?;
        let mut timed_out = false;
        while events.is_empty() && !state.draining && !timed_out {
            let examined = state.newest;
            state.held += 1;
            timed_out = self.changed.wait_until(&mut state, deadline).timed_out();
            state.held -= 1;
            state.wakeups += u64::from(!timed_out);
            events = state.after(examined, topic)?;
        }
        let empty_reason = if timed_out { "timeout" } else { "drain" };
        let reason = if events.is_empty() { empty_reason } else { "data" };
        Ok((200, json!({ "events": events, "next": state.newest, "reason": reason })))
    }

    /// Ends every wait, current and future.
    fn drain(&self) {
        self.state.lock().draining = true;
        self.changed.notify_all();
    }
}

/// Queues requests for the pool until the drain. It never blocks on a thread: a full queue is 503.
fn accept(server: &Server, queue: &Sender<Request>, log: &EventLog) -> io::Result<()> {
    loop {
        match server.recv() {
            Ok(request) if request.url() == "/counters" => {
                let State { held, wakeups, .. } = *log.state.lock();
                let counters = json!({ "held": held, "queued": queue.len(), "wakeups": wakeups });
                respond(request, &(200, counters));
            }
            Ok(request) => queue
                .try_send(request)
                .unwrap_or_else(|full| respond(full.into_inner(), &refusal(503, "too busy"))),
            Err(_) if log.state.lock().draining => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// One thread of the pool; it ends when the queue is closed, and empty.
fn work(queue: &Receiver<Request>, log: &EventLog) {
    for mut request in queue {
        let reply = answer(&mut request, log).unwrap_or_else(|refusal| refusal);
        respond(request, &reply);
    }
}

fn answer(request: &mut Request, log: &EventLog) -> Result<Reply, Reply> {
    let url = request.url().to_owned();
    let (path, query) = url.split_once('?').unwrap_or((&url, ""));
    let topic = path.strip_prefix("/topics/").filter(|name| (1..=128).contains(&name.len()));
    let topic = topic.ok_or_else(|| refusal(404, "expected /topics/ and 1 to 128 characters"))?;
    match request.method() {
        Method::Post => Ok(log.publish(topic, &read_body(request)?)),
        Method::Get => {
            let wait = number(query, "wait=")?.unwrap_or(DEFAULT_WAIT).min(MAX_WAIT);
            log.poll(topic, number(query, "since=")?, Instant::now() + Duration::from_secs(wait))
        }
        _ => Err(refusal(405, "expected GET or POST")),
    }
}

fn number(query: &str, name: &str) -> Result<Option<u64>, Reply> {
    let value = query.split('&').find_map(|parameter| parameter.strip_prefix(name)).map(str::parse);
    value.transpose().map_err(|_| refusal(400, &format!("expected a whole number after {name}")))
}

fn read_body(request: &mut Request) -> Result<String, Reply> {
    let mut body = String::new();
    match request.as_reader().take(BODY_LIMIT + 1).read_to_string(&mut body) {
        Ok(bytes) if bytes as u64 <= BODY_LIMIT => Ok(body),
        _ => Err(refusal(400, "expected at most 64 KiB of UTF-8 text")),
    }
}

fn refusal(status: u16, detail: &str) -> Reply {
    (status, json!({ "status": status, "detail": detail }))
}

/// Writes a response, for as long as the client takes to read it. If that fails, the client is gone.
fn respond(request: Request, (status, body): &Reply) {
    let retry_after = if *status == 503 { "Retry-After: 1" } else { "" };
    let headers = ["Content-Type: application/json", retry_after].map(str::parse::<Header>);
    let response = Response::from_string(body.to_string()).with_status_code(*status);
    let _ = request.respond(headers.into_iter().flatten().fold(response, Response::with_header));
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let port: u16 = env::args().nth(1).map_or(Ok(8080), |port| port.parse())?;
    let server = Arc::new(Server::http(("127.0.0.1", port))?);
    let log = Arc::new(EventLog::default());
    let (accepting, draining) = (Arc::clone(&server), Arc::clone(&log));
    ctrlc::set_handler(move || {
        draining.drain();
        accepting.unblock();
    })?;
    writeln!(io::stdout(), "listening on http://{}", server.server_addr())?;
    let (sender, queue) = bounded(QUEUE);
    thread::scope(|scope| {
        let sender = sender; // When it is dropped, the threads answer what is queued, and end.
        for _ in 0..WORKERS {
            thread::Builder::new().spawn_scoped(scope, || work(&queue, &log))?;
        }
        Ok(accept(&server, &sender, &log)?)
    })
}
