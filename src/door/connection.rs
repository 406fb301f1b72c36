//! A connection's life: request, answer, request, answer, until one side has had enough.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::head::{Framing, Parsed};
use super::linger::Lingerer;
use super::pool::Slot;
use super::request::{Body, BodyLimits, Ended, HeadLimits, Input, read_body, read_head};
use crate::api::{Api, Caller, Delivered, Page, Reply, Task};
use crate::config::Config;
use crate::diag::Diag;
use crate::error::{Cause, Problem};
use crate::http::{Answer, Frame, Head, closing};
use crate::limits::{BODIES_BYTES, SMALL_ANSWER, WRITE_BYTES_PER_SECOND};
use crate::line::Line;
use crate::metrics::Metrics;
use crate::permits::{Permit, Permits};
use crate::shutdown::Shutdown;

/// What every connection needs.
pub struct Desk {
    pub api: Arc<Api>,
    pub config: Config,
    pub metrics: Arc<Metrics>,
    pub diag: Diag,
    pub shutdown: Shutdown,
    pub lingerer: Lingerer,
    pub bodies: Permits,
}

/// Whether the connection goes on after an answer.
#[derive(PartialEq, Eq, Clone, Copy)]
enum After {
    KeepAlive,
    Close,
}

/// A request, read whole. One that makes no sense is answered all the same, and the connection
/// goes on.
struct Asked {
    task: Result<Task, Problem>,
    body: Body,
    after: After,
}

impl Desk {
    pub fn new(
        api: Arc<Api>,
        config: Config,
        diag: Diag,
        shutdown: Shutdown,
        lingerer: Lingerer,
    ) -> Desk {
        let metrics = Arc::clone(api.metrics());
        let bodies = Permits::new(BODIES_BYTES);
        Desk { api, config, metrics, diag, shutdown, lingerer, bodies }
    }

    /// Serves a connection until it ends.
    pub fn serve(&self, line: &Arc<Line>, slot: &Slot) {
        let mut input = Input::new();
        while self.serve_one(line, slot, &mut input) == After::KeepAlive {}
    }

    fn serve_one(&self, line: &Arc<Line>, slot: &Slot, input: &mut Input) -> After {
        slot.wait_begins();
        if self.shutdown.given() {
            // What has arrived is still answered; the wait for more ends at once.
            line.end_input();
        }
        let limits = HeadLimits { bytes: self.config.max_head, time: self.config.head_timeout };
        let parsed = match read_head(line, input, &limits, || slot.request_begins()) {
            Ok(parsed) => parsed,
            Err(ended) => return self.refuse(line, None, ended),
        };
        let asked = match self.read_rest(line, input, &parsed) {
            Ok(asked) => asked,
            Err(ended) => return self.refuse(line, Some(&parsed.head), ended),
        };
        if !slot.request_is_whole() {
            return After::Close;
        }
        self.metrics.requests.add(1);
        if matches!(asked.task, Ok(Task::Poll(_))) {
            input.release();
        }
        self.answer(line, &parsed.head, asked)
    }

    /// Decides what is asked before any of the body is read, then reads it.
    fn read_rest(&self, line: &Line, input: &mut Input, parsed: &Parsed) -> Result<Asked, Ended> {
        let task = match self.api.route(&parsed.head) {
            Err(problem) if parsed.framing != Framing::Sized(0) => return Err(problem.into()),
            task => task,
        };
        let limit = task.as_ref().map_or(0, |task| task.body_limit(&self.config));
        if let Framing::Sized(length) = parsed.framing {
            if length > limit as u64 {
                return Err(too_large(length, limit).into());
            }
        }
        if parsed.expects_continue && input.is_empty() && parsed.framing != Framing::Sized(0) {
            let deadline = Instant::now() + self.config.write_timeout;
            line.send_until(b"HTTP/1.1 100 Continue\r\n\r\n", deadline)
                .map_err(|_| Ended::Quietly)?;
        }
        let time = self.config.body_timeout;
        let limits = BodyLimits { bytes: limit, time, room: &self.bodies };
        let body = read_body(line, input, parsed.framing, &limits)?;
        let after = if parsed.keep_alive { After::KeepAlive } else { After::Close };
        Ok(Asked { task, body, after })
    }

    fn answer(&self, line: &Arc<Line>, head: &Head, asked: Asked) -> After {
        let begun = self.diag.tells_requests().then(Instant::now);
        let Asked { task, body, after } = asked;
        // Its room is kept until the answer is out.
        let Body { bytes: body, room: _room } = body;
        let reply = match task {
            Err(problem) => Reply::Refused(problem),
            // A panic leaves no lock behind that matters: see `log`.
            Ok(task) => {
                let takes_shared_page = after == After::KeepAlive && !head.is_head();
                let caller = Caller { line, takes_shared_page };
                catch_unwind(AssertUnwindSafe(|| self.api.perform(task, body, &caller)))
                    .unwrap_or_else(|_| Reply::Refused(failed()))
            }
        };
        let after = if self.shutdown.given() { After::Close } else { after };
        let message = self.message(reply, head, after);
        let Some((status, message)) = message else { return After::Close };
        self.tell(line, Some(head), status, message.length(), begun);
        if self.write(line, &message.opening).is_err() || self.write(line, message.rest()).is_err()
        {
            return After::Close;
        }
        if after == After::Close {
            // Pipelined requests may be on their way.
            self.lingerer.take(Arc::clone(line));
        }
        after
    }

    /// A reply as bytes; none for a client that has gone.
    fn message(&self, reply: Reply, head: &Head, after: After) -> Option<(u16, Message)> {
        let close = after == After::Close;
        let own = |answer: &Answer| {
            let opening = answer.encode(Frame { has_body: !head.is_head(), closes: close });
            let counted =
                (opening.len() > SMALL_ANSWER).then(|| self.api.count_answer(opening.len()));
            (answer.status, Message { opening, shared: None, _counted: counted })
        };
        let page = |page: Arc<Page>, opening: Vec<u8>, rest: Range<usize>| {
            (200, Message { opening, shared: Some((page, rest)), _counted: None })
        };
        Some(match reply {
            Reply::HungUp => return None,
            Reply::Delivered(Delivered { page: delivered, sent }) => {
                let rest = sent..delivered.bytes().len();
                page(delivered, Vec::new(), rest)
            }
            Reply::Page(shared) => {
                let (opening, from) = if close { closing(shared.bytes()) } else { (Vec::new(), 0) };
                let to = if head.is_head() { shared.head_length() } else { shared.bytes().len() };
                page(shared, opening, from..to)
            }
            Reply::Answer(answer) => own(&answer),
            Reply::Refused(problem) => {
                self.metrics.refused(problem.cause);
                own(&Answer::from(&problem))
            }
        })
    }

    /// Answers a request that was not read whole, and ends the connection.
    fn refuse(&self, line: &Arc<Line>, head: Option<&Head>, ended: Ended) -> After {
        if let Ended::With(problem) = ended {
            self.metrics.refused(problem.cause);
            let answer = Answer::from(&problem);
            let status = answer.status;
            let has_body = !head.is_some_and(Head::is_head);
            let bytes = answer.encode(Frame { has_body, closes: true });
            self.tell(line, head, status, bytes.len(), None);
            if self.write(line, &bytes).is_ok() {
                self.lingerer.take(Arc::clone(line));
            }
        }
        After::Close
    }

    fn write(&self, line: &Line, bytes: &[u8]) -> std::io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        // Nearly every answer fits into the socket's buffer at once, and needs no clock.
        let sent = line.send_now(bytes)?;
        if sent == bytes.len() {
            return Ok(());
        }
        let extra = (bytes.len() / WRITE_BYTES_PER_SECOND) as u64;
        let time = self.config.write_timeout + Duration::from_secs(extra);
        line.send_until(&bytes[sent..], Instant::now() + time)
    }

    /// Writes a line about a request, if lines are asked for; `begun` is when it was read whole.
    fn tell(
        &self,
        line: &Line,
        head: Option<&Head>,
        status: u16,
        bytes: usize,
        begun: Option<Instant>,
    ) {
        if !self.diag.tells_requests() {
            return;
        }
        let (method, path) = head
            .map_or((String::from("-"), "-"), |head| (head.method.to_string(), head.path.as_str()));
        let ms = begun.map_or(0, |begun| begun.elapsed().as_millis() as u64);
        // Debug escapes what could forge a line.
        self.diag.request(format_args!("{line} {method} {path:?} {status} {bytes}B {ms}ms"));
    }
}

/// What goes out: bytes of its own, then a part of a page, which it keeps alive and so counted.
struct Message {
    opening: Vec<u8>,
    shared: Option<(Arc<Page>, Range<usize>)>,
    _counted: Option<Permit>,
}

impl Message {
    fn rest(&self) -> &[u8] {
        self.shared.as_ref().map_or(&[], |(page, rest)| &page.bytes()[rest.clone()])
    }

    fn length(&self) -> usize {
        self.opening.len() + self.rest().len()
    }
}

fn failed() -> Problem {
    Problem::new(Cause::Internal, "the server failed at this request; its stderr says more")
}

fn too_large(length: u64, limit: usize) -> Problem {
    let detail = match limit {
        0 => format!("this request takes no body; Content-Length is {length}"),
        _ => format!("the body has {length} bytes; allowed are {limit}"),
    };
    Problem::new(Cause::TooLarge, detail)
}
