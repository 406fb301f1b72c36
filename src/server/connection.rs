//! A connection's life: request, answer, request, answer, until one side has had enough.
//!
//! One thread has one connection from its first byte to its last, and what it does can be read from
//! top to bottom. Each request is read whole, done, and answered before the next one is looked at.
//! A panic in what it does costs one `500`, not the server; and whatever ends a connection early
//! still sees its answer arrive, as the [lingerer](LingeringClose) takes care of the rest.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::body::{BodyBudget, RequestBody};
use super::head::ParsedHead;
use super::lingering_close::LingeringClose;
use super::pool::WorkerSlot;
use super::request::{BodyLimits, HeadLimits, InputBuffer, RequestEnd, read_body, read_head};
use crate::access::Grant;
use crate::api::{Api, Caller, Delivery, Operation, Outcome, RenderedPage, Reply, Routed};
use crate::client_limit::ClientLimiter;
use crate::config::Config;
use crate::conn::Conn;
use crate::http::{BodyFraming, EncodeOptions, RequestHead, Response, with_connection_close};
use crate::limits::{BODY_MEMORY_BYTES, SMALL_RESPONSE_BYTES};
use crate::logger::Logger;
use crate::metrics::Metrics;
use crate::problem::{Cause, Problem};
use crate::semaphore::Permit;
use crate::shutdown::Shutdown;

/// What every connection needs.
pub struct Handler {
    pub api: Arc<Api>,
    pub config: Config,
    pub clients: ClientLimiter,
    pub metrics: Arc<Metrics>,
    pub logger: Logger,
    pub shutdown: Shutdown,
    pub lingerer: LingeringClose,
    pub bodies: BodyBudget,
}

/// Whether the connection goes on after an answer.
#[derive(PartialEq, Eq, Clone, Copy)]
pub(super) enum Persistence {
    KeepAlive,
    Close,
}

/// Whom an answer goes to, and what is known of the request.
pub(super) struct Exchange<'a> {
    pub conn: &'a Arc<Conn>,
    /// None when it could not be read.
    head: Option<&'a RequestHead>,
    /// Whether it asked for no body; that can be known of a request that could not be read.
    is_head: bool,
    pub grant: Grant,
}

impl Exchange<'_> {
    pub(super) fn frame(&self, after: Persistence) -> EncodeOptions<'_> {
        EncodeOptions {
            include_body: !self.is_head,
            close: after == Persistence::Close,
            allowed_origin: self.grant.allowed_origin.as_deref(),
        }
    }
}

/// A request, read whole. One that makes no sense is answered all the same, and the connection
/// goes on.
struct CompleteRequest<'a> {
    operation: Result<Operation, Problem>,
    body: RequestBody<'a>,
    after: Persistence,
}

impl Handler {
    pub fn new(
        api: Arc<Api>,
        config: Config,
        clients: ClientLimiter,
        logger: Logger,
        shutdown: Shutdown,
        lingerer: LingeringClose,
    ) -> Handler {
        let metrics = Arc::clone(api.metrics());
        let bodies = BodyBudget::new(BODY_MEMORY_BYTES);
        Handler { api, config, clients, metrics, logger, shutdown, lingerer, bodies }
    }

    /// Serves a connection until it ends.
    pub fn serve(&self, conn: &Arc<Conn>, slot: &WorkerSlot) {
        let mut input = InputBuffer::new();
        while self.serve_one(conn, slot, &mut input) == Persistence::KeepAlive {}
    }

    fn serve_one(
        &self,
        conn: &Arc<Conn>,
        slot: &WorkerSlot,
        input: &mut InputBuffer,
    ) -> Persistence {
        slot.wait_begins();
        let limits = HeadLimits { bytes: self.config.max_head, time: self.config.head_timeout };
        let mut to = Exchange { conn, head: None, is_head: false, grant: Grant::default() };
        let parsed = match read_head(conn, input, &limits, || slot.request_begins()) {
            Ok(parsed) => parsed,
            Err(ended) => {
                to.is_head = input.asks_for_head();
                return self.refuse(&to, ended);
            }
        };
        to.head = Some(&parsed.head);
        to.is_head = parsed.head.is_head_request();
        let Routed { mut operation, grant } = self.api.route(&parsed.head, conn);
        to.grant = grant;
        // Its place among those of its client, until the answer is out.
        let share = self.clients.admit_request(conn.peer(), &parsed.head);
        let _share = share.map_err(|problem| operation = Err(problem));
        let mut asked = match self.read_rest(conn, input, &parsed, operation) {
            Ok(asked) => asked,
            Err(ended) => return self.refuse(&to, ended),
        };
        if !slot.request_is_whole() {
            return Persistence::Close;
        }
        self.metrics.requests.add(1);
        if slot.is_wanted() {
            asked.after = Persistence::Close;
        }
        self.answer(&to, asked, input)
    }

    /// Reads the body, if what is asked for makes sense.
    // This, `answer` and `message` are not inlined: in one frame with what calls them they took four
    // kilobytes more of each held poll.
    #[inline(never)]
    fn read_rest(
        &self,
        conn: &Conn,
        input: &mut InputBuffer,
        parsed: &ParsedHead,
        operation: Result<Operation, Problem>,
    ) -> Result<CompleteRequest<'_>, RequestEnd> {
        let operation = match operation {
            Err(problem) if parsed.framing != BodyFraming::Sized(0) => return Err(problem.into()),
            operation => operation,
        };
        let limit = operation.as_ref().map_or(0, |operation| operation.body_limit(&self.config));
        if let BodyFraming::Sized(length) = parsed.framing {
            if length > limit as u64 {
                return Err(too_large(length, limit).into());
            }
        }
        if parsed.expects_continue && input.is_empty() && parsed.framing != BodyFraming::Sized(0) {
            let deadline = Instant::now() + self.config.write_timeout;
            conn.send_until(b"HTTP/1.1 100 Continue\r\n\r\n", deadline)
                .map_err(|_| RequestEnd::Quietly)?;
        }
        let time = self.config.body_timeout;
        let limits = BodyLimits { bytes: limit, time, room: &self.bodies };
        let body = read_body(conn, input, parsed.framing, &limits)?;
        let after = if parsed.keep_alive { Persistence::KeepAlive } else { Persistence::Close };
        Ok(CompleteRequest { operation, body, after })
    }

    #[inline(never)]
    fn answer(
        &self,
        to: &Exchange<'_>,
        asked: CompleteRequest<'_>,
        input: &mut InputBuffer,
    ) -> Persistence {
        let begun = self.logger.logs_requests().then(Instant::now);
        let CompleteRequest { operation, body, after } = asked;
        // Its room is kept until the answer is out.
        let (body, _room) = body.into_parts();
        let conn = to.conn;
        #[cfg(feature = "streams")]
        let operation = match operation {
            Ok(Operation::Stream(query)) if !to.is_head => {
                match self.stream(to, query, input, begun) {
                    Ok(after) => return after,
                    Err(problem) => Err(problem),
                }
            }
            operation => operation,
        };
        let reply = match operation {
            Err(problem) => Reply::Refused(problem),
            // A panic leaves no lock behind that matters: see `log`.
            Ok(operation) => {
                let takes_shared_page = after == Persistence::KeepAlive && !to.is_head;
                let caller = Caller { conn, takes_shared_page, grant: &to.grant };
                let done = AssertUnwindSafe(|| match self.api.perform(operation, body, &caller) {
                    Outcome::Reply(reply) => reply,
                    Outcome::Hold(held) => {
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
            _ if self.shutdown.is_triggered() => Persistence::Close,
            _ => after,
        };
        let message = self.message(reply, to, after);
        let Some((status, message)) = message else { return Persistence::Close };
        self.tell(to, status, message.length(), begun);
        if self.write(conn, &message.opening).is_err() || self.write(conn, message.rest()).is_err()
        {
            return Persistence::Close;
        }
        if after == Persistence::Close {
            // Pipelined requests may be on their way.
            self.lingerer.take(Arc::clone(conn));
        }
        after
    }

    /// A reply as bytes; none for a client that has gone.
    #[inline(never)]
    fn message(
        &self,
        reply: Reply,
        to: &Exchange<'_>,
        after: Persistence,
    ) -> Option<(u16, OutgoingMessage)> {
        let own = |answer: Response| {
            let status = answer.status;
            let opening = answer.encode(to.frame(after));
            let counted = (opening.len() > SMALL_RESPONSE_BYTES)
                .then(|| self.api.count_answer(opening.len()));
            (status, OutgoingMessage { sent: 0, opening, shared: None, _counted: counted })
        };
        let page = |page: Arc<RenderedPage>, opening: Vec<u8>, rest: Range<usize>| {
            (200, OutgoingMessage { sent: 0, opening, shared: Some((page, rest)), _counted: None })
        };
        Some(match reply {
            Reply::HungUp => return None,
            Reply::Delivered(Delivery { page: delivered, sent }) => {
                let rest = sent..delivered.bytes().len();
                let (status, message) = page(delivered, Vec::new(), rest);
                (status, OutgoingMessage { sent, ..message })
            }
            Reply::Page(shared) => {
                let (opening, from) = match after {
                    Persistence::Close => with_connection_close(shared.bytes()),
                    Persistence::KeepAlive => (Vec::new(), 0),
                };
                let whole = shared.bytes().len();
                let end = if to.is_head { shared.head_length() } else { whole };
                page(shared, opening, from..end)
            }
            Reply::Response(answer) => own(answer),
            Reply::Refused(problem) => own(self.refused(to, &problem)),
        })
    }

    /// Answers a request that was not read whole, and ends the connection.
    pub(super) fn refuse(&self, to: &Exchange<'_>, ended: RequestEnd) -> Persistence {
        if let RequestEnd::With(problem) = ended {
            let answer = self.refused(to, &problem);
            let status = answer.status;
            let bytes = answer.encode(to.frame(Persistence::Close));
            self.tell(to, status, bytes.len(), None);
            if self.write(to.conn, &bytes).is_ok() {
                self.lingerer.take(Arc::clone(to.conn));
            }
        }
        Persistence::Close
    }

    /// Counts a refusal and tells it.
    fn refused(&self, to: &Exchange<'_>, problem: &Problem) -> Response {
        self.metrics.count_refusal(problem.cause());
        let conn = to.conn;
        let client = to.head.and_then(|head| self.clients.forwarded_client(conn.peer(), head));
        match client {
            Some(client) => self.logger.refusal(format_args!("{client} by {conn}"), problem),
            None => self.logger.refusal(conn, problem),
        }
        Response::from(problem)
    }

    pub(super) fn write(&self, conn: &Conn, bytes: &[u8]) -> std::io::Result<()> {
        conn.send_within(bytes, self.config.write_timeout)
    }

    /// Writes a line about a request, if lines are asked for; `begun` is when it was read whole.
    pub(super) fn tell(
        &self,
        to: &Exchange<'_>,
        status: u16,
        bytes: usize,
        begun: Option<Instant>,
    ) {
        if !self.logger.logs_requests() {
            return;
        }
        let conn = to.conn;
        let (method, path) =
            to.head.map_or((String::from("-"), "-"), |head| (head.method.to_string(), head.path()));
        let ms = begun.map_or(0, |begun| begun.elapsed().as_millis() as u64);
        // Debug escapes what could forge a line.
        self.logger.request(format_args!("{conn} {method} {path:?} {status} {bytes}B {ms}ms"));
    }
}

/// What goes out: bytes of its own, then a part of a page, which it keeps alive and so counted.
struct OutgoingMessage {
    /// Bytes that the publisher has written already.
    sent: usize,
    opening: Vec<u8>,
    shared: Option<(Arc<RenderedPage>, Range<usize>)>,
    _counted: Option<Permit>,
}

impl OutgoingMessage {
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
