//! A connection's life: request, answer, request, answer, until one side has had enough.
//!
//! One thread has one connection from its first byte to its last, and what it does can be read from
//! top to bottom. Each request is read whole, done, and answered before the next one is looked at.
//! A panic in what it does costs one `500`, not the server; and whatever ends a connection early
//! still sees its answer arrive, as the [lingerer](Lingerer) takes care of the rest.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::body::{Body, BodyRoom};
use super::head::Parsed;
use super::linger::Lingerer;
use super::pool::Slot;
use super::request::{BodyLimits, Ended, HeadLimits, Input, read_body, read_head};
use crate::access::Grant;
use crate::api::{Api, Caller, Delivered, Page, Performed, Reply, Routed, Task};
use crate::clients::Clients;
use crate::config::Config;
use crate::diag::Diag;
use crate::error::{Cause, Problem};
use crate::http::{Answer, Frame, Framing, Head, closing};
use crate::limits::{BODIES_BYTES, SMALL_ANSWER};
use crate::line::Line;
use crate::metrics::Metrics;
use crate::permits::Permit;
use crate::shutdown::Shutdown;

/// What every connection needs.
pub struct Desk {
    pub api: Arc<Api>,
    pub config: Config,
    pub clients: Clients,
    pub metrics: Arc<Metrics>,
    pub diag: Diag,
    pub shutdown: Shutdown,
    pub lingerer: Lingerer,
    pub bodies: BodyRoom,
}

/// Whether the connection goes on after an answer.
#[derive(PartialEq, Eq, Clone, Copy)]
pub(super) enum After {
    KeepAlive,
    Close,
}

/// Whom an answer goes to, and what is known of the request.
pub(super) struct Recipient<'a> {
    pub line: &'a Arc<Line>,
    /// None when it could not be read.
    head: Option<&'a Head>,
    /// Whether it asked for no body; that can be known of a request that could not be read.
    is_head: bool,
    pub grant: Grant,
}

impl Recipient<'_> {
    pub(super) fn frame(&self, after: After) -> Frame<'_> {
        Frame {
            has_body: !self.is_head,
            closes: after == After::Close,
            cors: self.grant.cors.as_deref(),
        }
    }
}

/// A request, read whole. One that makes no sense is answered all the same, and the connection
/// goes on.
struct Asked<'a> {
    task: Result<Task, Problem>,
    body: Body<'a>,
    after: After,
}

impl Desk {
    pub fn new(
        api: Arc<Api>,
        config: Config,
        clients: Clients,
        diag: Diag,
        shutdown: Shutdown,
        lingerer: Lingerer,
    ) -> Desk {
        let metrics = Arc::clone(api.metrics());
        let bodies = BodyRoom::new(BODIES_BYTES);
        Desk { api, config, clients, metrics, diag, shutdown, lingerer, bodies }
    }

    /// Serves a connection until it ends.
    pub fn serve(&self, line: &Arc<Line>, slot: &Slot) {
        let mut input = Input::new();
        while self.serve_one(line, slot, &mut input) == After::KeepAlive {}
    }

    fn serve_one(&self, line: &Arc<Line>, slot: &Slot, input: &mut Input) -> After {
        slot.wait_begins();
        let limits = HeadLimits { bytes: self.config.max_head, time: self.config.head_timeout };
        let mut to = Recipient { line, head: None, is_head: false, grant: Grant::default() };
        let parsed = match read_head(line, input, &limits, || slot.request_begins()) {
            Ok(parsed) => parsed,
            Err(ended) => {
                to.is_head = input.asks_for_head();
                return self.refuse(&to, ended);
            }
        };
        to.head = Some(&parsed.head);
        to.is_head = parsed.head.is_head();
        let Routed { mut task, grant } = self.api.route(&parsed.head, line);
        to.grant = grant;
        // Its place among those of its client, until the answer is out.
        let share = self.clients.asked(line.peer(), &parsed.head);
        let _share = share.map_err(|problem| task = Err(problem));
        let mut asked = match self.read_rest(line, input, &parsed, task) {
            Ok(asked) => asked,
            Err(ended) => return self.refuse(&to, ended),
        };
        if !slot.request_is_whole() {
            return After::Close;
        }
        self.metrics.requests.add(1);
        if slot.is_wanted() {
            asked.after = After::Close;
        }
        self.answer(&to, asked, input)
    }

    /// Reads the body, if what is asked for makes sense.
    // This, `answer` and `message` are not inlined: in one frame with what calls them they took four
    // kilobytes more of each held poll.
    #[inline(never)]
    fn read_rest(
        &self,
        line: &Line,
        input: &mut Input,
        parsed: &Parsed,
        task: Result<Task, Problem>,
    ) -> Result<Asked<'_>, Ended> {
        let task = match task {
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

    #[inline(never)]
    fn answer(&self, to: &Recipient<'_>, asked: Asked<'_>, input: &mut Input) -> After {
        let begun = self.diag.tells_requests().then(Instant::now);
        let Asked { task, body, after } = asked;
        // Its room is kept until the answer is out.
        let (body, _room) = body.into_parts();
        let line = to.line;
        #[cfg(feature = "streams")]
        let task = match task {
            Ok(Task::Stream(query)) if !to.is_head => match self.stream(to, query, input, begun) {
                Ok(after) => return after,
                Err(problem) => Err(problem),
            },
            task => task,
        };
        let reply = match task {
            Err(problem) => Reply::Refused(problem),
            // A panic leaves no lock behind that matters: see `log`.
            Ok(task) => {
                let takes_shared_page = after == After::KeepAlive && !to.is_head;
                let caller = Caller { line, takes_shared_page, grant: &to.grant };
                let done = AssertUnwindSafe(|| match self.api.perform(task, body, &caller) {
                    Performed::Reply(reply) => reply,
                    Performed::Hold(held) => {
                        input.release();
                        self.api.hold(*held, &caller).unwrap_or_else(Reply::Refused)
                    }
                });
                catch_unwind(done).unwrap_or_else(|_| Reply::Refused(failed()))
            }
        };
        let after = match reply {
            // It is out, and has said that the connection goes on.
            Reply::Delivered(_) => after,
            _ if self.shutdown.given() => After::Close,
            _ => after,
        };
        let message = self.message(reply, to, after);
        let Some((status, message)) = message else { return After::Close };
        self.tell(to, status, message.length(), begun);
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
    #[inline(never)]
    fn message(&self, reply: Reply, to: &Recipient<'_>, after: After) -> Option<(u16, Message)> {
        let own = |answer: Answer| {
            let status = answer.status;
            let opening = answer.encode(to.frame(after));
            let counted =
                (opening.len() > SMALL_ANSWER).then(|| self.api.count_answer(opening.len()));
            (status, Message { sent: 0, opening, shared: None, _counted: counted })
        };
        let page = |page: Arc<Page>, opening: Vec<u8>, rest: Range<usize>| {
            (200, Message { sent: 0, opening, shared: Some((page, rest)), _counted: None })
        };
        Some(match reply {
            Reply::HungUp => return None,
            Reply::Delivered(Delivered { page: delivered, sent }) => {
                let rest = sent..delivered.bytes().len();
                let (status, message) = page(delivered, Vec::new(), rest);
                (status, Message { sent, ..message })
            }
            Reply::Page(shared) => {
                let (opening, from) = match after {
                    After::Close => closing(shared.bytes()),
                    After::KeepAlive => (Vec::new(), 0),
                };
                let whole = shared.bytes().len();
                let end = if to.is_head { shared.head_length() } else { whole };
                page(shared, opening, from..end)
            }
            Reply::Answer(answer) => own(answer),
            Reply::Refused(problem) => own(self.refused(to, &problem)),
        })
    }

    /// Answers a request that was not read whole, and ends the connection.
    pub(super) fn refuse(&self, to: &Recipient<'_>, ended: Ended) -> After {
        if let Ended::With(problem) = ended {
            let answer = self.refused(to, &problem);
            let status = answer.status;
            let bytes = answer.encode(to.frame(After::Close));
            self.tell(to, status, bytes.len(), None);
            if self.write(to.line, &bytes).is_ok() {
                self.lingerer.take(Arc::clone(to.line));
            }
        }
        After::Close
    }

    /// Counts a refusal and tells it.
    fn refused(&self, to: &Recipient<'_>, problem: &Problem) -> Answer {
        self.metrics.refused(problem.cause());
        let line = to.line;
        let client = to.head.and_then(|head| self.clients.forwarded(line.peer(), head));
        match client {
            Some(client) => self.diag.refused(format_args!("{client} by {line}"), problem),
            None => self.diag.refused(line, problem),
        }
        Answer::from(problem)
    }

    pub(super) fn write(&self, line: &Line, bytes: &[u8]) -> std::io::Result<()> {
        line.send_within(bytes, self.config.write_timeout)
    }

    /// Writes a line about a request, if lines are asked for; `begun` is when it was read whole.
    pub(super) fn tell(
        &self,
        to: &Recipient<'_>,
        status: u16,
        bytes: usize,
        begun: Option<Instant>,
    ) {
        if !self.diag.tells_requests() {
            return;
        }
        let line = to.line;
        let (method, path) =
            to.head.map_or((String::from("-"), "-"), |head| (head.method.to_string(), head.path()));
        let ms = begun.map_or(0, |begun| begun.elapsed().as_millis() as u64);
        // Debug escapes what could forge a line.
        self.diag.request(format_args!("{line} {method} {path:?} {status} {bytes}B {ms}ms"));
    }
}

/// What goes out: bytes of its own, then a part of a page, which it keeps alive and so counted.
struct Message {
    /// Bytes that the publisher has written already.
    sent: usize,
    opening: Vec<u8>,
    shared: Option<(Arc<Page>, Range<usize>)>,
    _counted: Option<Permit>,
}

impl Message {
    fn rest(&self) -> &[u8] {
        self.shared.as_ref().map_or(&[], |(page, rest)| &page.bytes()[rest.clone()])
    }

    fn length(&self) -> usize {
        self.sent + self.opening.len() + self.rest().len()
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
