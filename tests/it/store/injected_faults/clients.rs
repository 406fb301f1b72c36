//! The clients of a trial: publishers, each with topics of its own, and a poller of all topics.

use std::io::{self, ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::observed::{Change, Draft, Observed, Observer, Operation, Outcome, Rule, SeenEvent};
use super::plan::Trimming;
use super::process::HANG_GUARD;
use crate::support::http_reader::HttpReader;

/// What became of a request.
pub enum Reply {
    Response(u16, Value),
    /// No connection: the server has nothing of the request.
    NotSent,
    /// The connection ended before the response.
    Cut,
    Hung,
}

/// A connection whose read time-out is noted, and ends the stream.
struct GuardedStream {
    stream: TcpStream,
    hung: bool,
}

impl Read for GuardedStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let result = self.stream.read(bytes);
        self.hung = matches!(&result, Err(e) if e.kind() == ErrorKind::WouldBlock);
        if self.hung { Ok(0) } else { result }
    }
}

/// Sends one request on a new connection.
pub fn send(address: SocketAddr, request: &str) -> Reply {
    let Ok(mut stream) = TcpStream::connect(address) else { return Reply::NotSent };
    stream.set_read_timeout(Some(HANG_GUARD)).unwrap();
    let _ = stream.write_all(request.as_bytes());
    let mut reader = HttpReader::new(GuardedStream { stream, hung: false });
    match reader.response() {
        Some(response) => {
            let text = || Value::String(String::from_utf8_lossy(&response.body).into_owned());
            let body = serde_json::from_slice(&response.body).unwrap_or_else(|_| text());
            Reply::Response(response.status, body)
        }
        None if reader.stream().hung => Reply::Hung,
        None => Reply::Cut,
    }
}

pub fn get(address: SocketAddr, target: &str) -> Reply {
    send(address, &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

/// The epoch and the seq of a cursor.
pub fn parse_cursor(cursor: &str) -> (String, u64) {
    let mut parts = cursor.split('.');
    (parts.next().unwrap().to_owned(), parts.next().unwrap().parse().unwrap())
}

/// The events of a page.
pub fn events_of(page: &Value, run: usize) -> Vec<SeenEvent> {
    let (epoch, _) = parse_cursor(page["next"].as_str().unwrap());
    let event = |event: &Value| SeenEvent {
        epoch: epoch.clone(),
        seq: event["seq"].as_u64().unwrap(),
        topic: event["topic"].as_str().unwrap().to_owned(),
        data: event["data"].as_str().unwrap_or("not a string").to_owned(),
        run,
    };
    page["events"].as_array().unwrap().iter().map(event).collect()
}

/// The request of a change.
fn request_of(topic: &str, change: &Change) -> String {
    let host = "Host: localhost\r\nConnection: close\r\n";
    let Change::Publish { drafts, key } = change else {
        return format!("DELETE /topics/{topic} HTTP/1.1\r\n{host}\r\n");
    };
    let key = key.as_ref().map(|key| format!("Idempotency-Key: {key}\r\n")).unwrap_or_default();
    let (kind, body) = match &drafts[..] {
        [draft] => ("text/plain", draft.body()),
        drafts => {
            let lines: Vec<_> = drafts.iter().map(|d| format!("\"{}\"\n", d.body())).collect();
            ("application/x-ndjson", lines.concat())
        }
    };
    format!(
        "POST /topics/{topic} HTTP/1.1\r\n{host}{key}Content-Type: {kind}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A pause after a refusal, so that a failing store is asked often but not all the time.
const PAUSE: Duration = Duration::from_millis(15);

/// One publisher: it publishes to its topics and trims one of them until the trial stops.
pub struct Publisher<'t> {
    pub observer: &'t Observer,
    pub id: usize,
    pub random: fastrand::Rng,
    pub trimming: Trimming,
    pub count: usize,
    /// The last change was acknowledged, so the poller has all that it can meet of these topics.
    pub settled: bool,
}

impl Publisher<'_> {
    pub fn run(mut self) {
        while !self.is_stopped() {
            let (topic, change) = self.next_change();
            self.settled = self.perform(topic, change);
        }
    }

    fn is_stopped(&self) -> bool {
        self.observer.stop_publishing.load(Ordering::Relaxed)
    }

    fn next_change(&mut self) -> (String, Change) {
        self.count += 1;
        let kind = self.random.u8(..100);
        let (topic, largest) = match kind {
            // Needs the place of a topic whose events have aged.
            ..15 if self.trimming == Trimming::Age => {
                (["new", "newer", "newest"][self.count % 3], 300)
            }
            ..85 => ("busy", 6_000),
            _ => ("quiet", 300),
        };
        let topic = format!("{topic}.{}", self.id);
        // Trimming events that the poller may not have would be a gap.
        if topic.starts_with("busy") && kind % 20 == 0 && self.settled {
            return (topic, Change::Delete);
        }
        let batch = if self.random.bool() { 1 } else { self.random.usize(2..=8) };
        let drafts = (0..batch).map(|place| Draft {
            id: format!("{}-{}-{place}", self.id, self.count),
            size: self.random.usize(1..largest),
        });
        let drafts = drafts.collect();
        let key = self.random.bool().then(|| format!("{}-{}", self.id, self.count));
        (topic, Change::Publish { drafts, key })
    }

    /// Sends the change until its outcome is settled. A publish without a key is not repeated after
    /// it was sent. Returns whether the change was acknowledged.
    fn perform(&mut self, topic: String, change: Change) -> bool {
        let request = request_of(&topic, &change);
        let keyed = matches!(&change, Change::Publish { key: Some(_), .. });
        let place = self.observer.change(|observed| {
            observed.operations.push(Operation {
                topic,
                change,
                outcome: Outcome::Open,
                began: 0,
                refused: None,
                cut: false,
                duplicate: false,
                run: 0,
                sent_at: None,
                waiting: false,
            });
            observed.operations.len() - 1
        });
        while let Some(address) = self.observer.address(&self.observer.stop_publishing) {
            match self.attempt(place, address, &request) {
                Reply::Response(status @ (200 | 201 | 204), response) => {
                    self.acknowledged(place, status, &response);
                    return true;
                }
                Reply::Response(status @ (429 | 503 | 507), _) => {
                    self.refused(place, status);
                    thread::sleep(PAUSE);
                    if !keyed || self.random.bool() {
                        return false;
                    }
                }
                Reply::Response(status, response) => {
                    self.observer.violated(
                        Rule::Answered,
                        format!("a change was answered {status}: {response}"),
                    );
                    return false;
                }
                Reply::NotSent => thread::sleep(PAUSE),
                Reply::Cut => {
                    self.observer.change(|observed| observed.operations[place].cut = true);
                    if !keyed {
                        return false;
                    }
                    thread::sleep(PAUSE);
                }
                Reply::Hung => {
                    self.observer.change(|observed| observed.operations[place].cut = true);
                    let request = request.lines().next().unwrap();
                    self.observer.violated(Rule::Answered, format!("no answer to {request}"));
                    return false;
                }
            }
        }
        false
    }

    fn attempt(&self, place: usize, address: SocketAddr, request: &str) -> Reply {
        self.observer.change(|observed| {
            let step = observed.next_step();
            let operation = &mut observed.operations[place];
            operation.began = step;
            operation.sent_at = Some(Instant::now());
            operation.waiting = true;
        });
        let reply = send(address, request);
        self.observer.change(|observed| observed.operations[place].waiting = false);
        reply
    }

    fn acknowledged(&self, place: usize, status: u16, response: &Value) {
        if status == 204 {
            let outcome = Outcome::Acknowledged { epoch: String::new(), first: 0 };
            self.observer.change(|observed| {
                observed.operations[place].run = observed.run;
                observed.operations[place].outcome = outcome;
            });
            return;
        }
        let (epoch, last) = parse_cursor(response["cursor"].as_str().unwrap());
        let read = self.observer.change(|observed| {
            let (of, run) = (observed.epoch(&epoch), observed.run);
            let operation = &mut observed.operations[place];
            let first = last + 1 - operation.drafts().len() as u64;
            operation.outcome = Outcome::Acknowledged { epoch, first };
            operation.duplicate = response["duplicate"] == true;
            operation.run = run;
            observed.acknowledged += operation.drafts().len();
            (of, last)
        });
        self.wait_for_the_poller(read);
    }

    fn refused(&self, place: usize, status: u16) {
        self.observer.change(|observed| {
            let step = observed.next_step();
            observed.operations[place].outcome = Outcome::Refused;
            if status == 507 {
                observed.operations[place].refused = Some(step);
                observed.refused += 1;
            }
        });
    }

    /// Waits until the poller has what was acknowledged, so that it meets no gap.
    fn wait_for_the_poller(&self, position: (usize, u64)) {
        let mut deadline = Instant::now() + HANG_GUARD;
        while !self.observer.wait_until(Duration::from_millis(100), |observed| {
            self.is_stopped() || observed.read >= Some(position)
        }) {
            if self.observer.lock().address.is_none() {
                deadline = Instant::now() + HANG_GUARD;
            }
            if Instant::now() > deadline {
                self.observer.violated(Rule::Polled, format!("the poller never got {position:?}"));
                return;
            }
        }
    }
}

/// Counts the lost events of a gap. A forgotten topic may be a gap though nothing is lost.
fn note_gone(observed: &mut Observed, gap: &Value) {
    for (topic, lost) in gap["lost"].as_object().into_iter().flatten() {
        let gone = observed.gone.entry(topic.clone()).or_insert(Some(0));
        *gone = gone.zip(lost.as_u64()).map(|(before, lost)| before + lost);
    }
    if gap["lost"].is_null() {
        for operation in &observed.operations {
            observed.gone.insert(operation.topic.clone(), None);
        }
    }
}

/// Polls all topics along `next` until the trial stops.
pub fn poller(observer: &Observer, trimming: Trimming) {
    let mut since = "start".to_owned();
    while let Some(address) = observer.address(&observer.stop) {
        let run = observer.lock().run;
        match get(address, &format!("/topics/*?since={since}&wait=1&limit=1000")) {
            Reply::Response(200, page) => {
                page["next"].as_str().unwrap().clone_into(&mut since);
                let (epoch, seq) = parse_cursor(&since);
                observer.change(|observed| {
                    observed.shown.extend(events_of(&page, run));
                    observed.read = Some((observed.epoch(&epoch), seq));
                });
            }
            Reply::Response(410, gap) if gap["why"] == "epoch" => {
                "start".clone_into(&mut since);
                if trimming == Trimming::Age {
                    observer.change(|observed| note_gone(observed, &gap));
                }
            }
            Reply::Response(410, gap) => {
                gap["resume"].as_str().unwrap().clone_into(&mut since);
                // Events may age before the poller has them, or while no server runs.
                if trimming == Trimming::Age {
                    observer.change(|observed| note_gone(observed, &gap));
                    continue;
                }
                observer.violated(Rule::Polled, format!("the poller met a gap: {gap}"));
            }
            Reply::Response(503, _) | Reply::NotSent | Reply::Cut => thread::sleep(PAUSE),
            Reply::Response(status, body) => {
                observer.violated(Rule::Answered, format!("a poll was answered {status}: {body}"));
                return;
            }
            Reply::Hung => observer.violated(Rule::Answered, "no answer to a poll".to_owned()),
        }
    }
}
