//! The life of a connection: request, response, request, response, until one side ends it.
//!
//! One thread serves a connection from its first byte to its last, so the code reads from top to
//! bottom. Each request is read completely, performed, and answered before the next one is read. A
//! panic in a handler costs one `500`, not the server (but see `log`). When a connection ends early, its client can
//! still read the response: see [`LingeringClose`](super::lingering_close::LingeringClose).

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::body::RequestBody;
use super::exchange::{Exchange, Handler, Persistence};
use super::head::ParsedHead;
use super::pool::WorkerSlot;
use super::request::{BodyLimits, HeadLimits, InputBuffer, RequestEnd, read_body, read_head};
use crate::access::Grant;
use crate::api::{Caller, Delivery, Operation, Outcome, RenderedPage, Reply, Routed};
use crate::conn::Conn;
use crate::http::{BodyFraming, Response, with_connection_close};
use crate::limits::SMALL_RESPONSE_BYTES;
use crate::problem::{Cause, Problem};
use crate::semaphore::Permit;

/// A request that was read completely. A refused one without a body is read, too: the connection
/// continues after the refusal.
struct CompleteRequest<'a> {
    operation: Result<Operation, Problem>,
    body: RequestBody<'a>,
    persistence: Persistence,
}

impl Handler {
    /// Serves a connection until it ends.
    pub fn serve(&self, conn: &Arc<Conn>, slot: &WorkerSlot) {
        let mut input = InputBuffer::new();
        while self.serve_request(conn, slot, &mut input) == Persistence::KeepAlive {}
    }

    fn serve_request(
        &self,
        conn: &Arc<Conn>,
        slot: &WorkerSlot,
        input: &mut InputBuffer,
    ) -> Persistence {
        slot.set_idle();
        let limits = HeadLimits { bytes: self.config.max_head, time: self.config.head_timeout };
        let mut exchange = Exchange { conn, head: None, is_head: false, grant: Grant::default() };
        let parsed = match read_head(conn, input, &limits, || slot.set_partial_request()) {
            Ok(parsed) => parsed,
            Err(end) => {
                exchange.is_head = input.starts_with_head_request();
                return self.refuse(&exchange, end);
            }
        };
        exchange.head = Some(&parsed.head);
        exchange.is_head = parsed.head.is_head_request();
        let Routed { mut operation, grant } = self.api.route(&parsed.head, conn);
        exchange.grant = grant;
        // Held until the response is written.
        let client_permit = self.clients.admit_request(conn.peer(), &parsed.head);
        let _client_permit = client_permit.map_err(|problem| operation = Err(problem));
        let mut request = match self.read_rest(conn, input, &parsed, operation) {
            Ok(request) => request,
            Err(end) => return self.refuse(&exchange, end),
        };
        if !slot.set_busy() {
            return Persistence::Close;
        }
        self.metrics.requests.add(1);
        if slot.has_queued_connections() {
            request.persistence = Persistence::Close;
        }
        self.answer(&exchange, request, input)
    }

    /// Reads the body, unless the request is refused for its head.
    // This, `answer` and `encode` are not inlined: in one stack frame with their caller they took
    // four kilobytes more of each held poll.
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
                .map_err(|_| RequestEnd::CloseSilently)?;
        }
        let time = self.config.body_timeout;
        let limits = BodyLimits { bytes: limit, time, budget: &self.bodies };
        let body = read_body(conn, input, parsed.framing, &limits)?;
        let persistence =
            if parsed.keep_alive { Persistence::KeepAlive } else { Persistence::Close };
        Ok(CompleteRequest { operation, body, persistence })
    }

    #[inline(never)]
    fn answer(
        &self,
        exchange: &Exchange<'_>,
        request: CompleteRequest<'_>,
        input: &mut InputBuffer,
    ) -> Persistence {
        let started = self.logger.logs_requests().then(Instant::now);
        let CompleteRequest { operation, body, persistence } = request;
        // Held until the response is written.
        let (body, _body_permit) = body.into_parts();
        let conn = exchange.conn;
        #[cfg(feature = "streams")]
        let operation = match operation {
            Ok(Operation::Stream(query)) if !exchange.is_head => {
                match self.stream(exchange, query, input, started) {
                    Ok(persistence) => return persistence,
                    Err(problem) => Err(problem),
                }
            }
            operation => operation,
        };
        let reply = match operation {
            Err(problem) => Reply::Refused(problem),
            // A panic leaves no lock poisoned, and no data half changed: under the log's lock it
            // ends the process.
            Ok(operation) => {
                let takes_shared_page = persistence == Persistence::KeepAlive && !exchange.is_head;
                let caller = Caller { conn, takes_shared_page, grant: &exchange.grant };
                let perform = || match self.api.perform(operation, body, &caller) {
                    Outcome::Reply(reply) => reply,
                    Outcome::Hold(held) => {
                        input.release();
                        self.api.hold(*held, &caller).unwrap_or_else(Reply::Refused)
                    }
                };
                catch_unwind(AssertUnwindSafe(perform))
                    .unwrap_or_else(|_| Reply::Refused(internal_error()))
            }
        };
        let persistence = match reply {
            // The response is written already, and has announced that the connection continues.
            Reply::Delivered(_) => persistence,
            _ if self.shutdown.is_triggered() => Persistence::Close,
            _ => persistence,
        };
        let encoded = self.encode(reply, exchange, persistence);
        let Some((status, message)) = encoded else { return Persistence::Close };
        self.log_request(exchange, status, message.length(), started);
        if self.write(conn, &message.own).is_err() || self.write(conn, message.rest()).is_err() {
            return Persistence::Close;
        }
        if persistence == Persistence::Close {
            // Pipelined requests may be on their way.
            self.lingering.close(Arc::clone(conn));
        }
        persistence
    }

    /// The status and the bytes of a reply; `None` for a client that is gone.
    #[inline(never)]
    fn encode(
        &self,
        reply: Reply,
        exchange: &Exchange<'_>,
        persistence: Persistence,
    ) -> Option<(u16, OutgoingMessage)> {
        let from_response = |response: Response| {
            let status = response.status;
            let own = response.encode(exchange.encode_options(persistence));
            let memory =
                (own.len() > SMALL_RESPONSE_BYTES).then(|| self.api.count_response(own.len()));
            (status, OutgoingMessage { already_sent: 0, own, page: None, _memory: memory })
        };
        let from_page = |page: Arc<RenderedPage>, own: Vec<u8>, rest: Range<usize>| {
            let page = Some((page, rest));
            (200, OutgoingMessage { already_sent: 0, own, page, _memory: None })
        };
        Some(match reply {
            Reply::HungUp => return None,
            Reply::Delivered(Delivery { page, sent }) => {
                let rest = sent..page.bytes().len();
                let (status, message) = from_page(page, Vec::new(), rest);
                (status, OutgoingMessage { already_sent: sent, ..message })
            }
            Reply::Page(page) => {
                let (own, from) = match persistence {
                    Persistence::Close => with_connection_close(page.bytes()),
                    Persistence::KeepAlive => (Vec::new(), 0),
                };
                let whole = page.bytes().len();
                let end = if exchange.is_head { page.head_length() } else { whole };
                from_page(page, own, from..end)
            }
            Reply::Response(response) => from_response(response),
            Reply::Refused(problem) => from_response(self.refusal(exchange, &problem)),
        })
    }
}

/// The bytes of a response: bytes of its own, then a part of a shared page.
struct OutgoingMessage {
    /// The number of bytes that the publisher has already written.
    already_sent: usize,
    own: Vec<u8>,
    page: Option<(Arc<RenderedPage>, Range<usize>)>,
    /// What `own` takes of the memory for answers; a page has a permit itself.
    _memory: Option<Permit>,
}

impl OutgoingMessage {
    fn rest(&self) -> &[u8] {
        self.page.as_ref().map_or(&[], |(page, rest)| &page.bytes()[rest.clone()])
    }

    fn length(&self) -> usize {
        self.already_sent + self.own.len() + self.rest().len()
    }
}

fn internal_error() -> Problem {
    Problem::new(Cause::Internal, "the server failed at this request; its stderr has the details")
}

fn too_large(length: u64, limit: usize) -> Problem {
    let detail = match limit {
        0 => format!("this request takes no body; Content-Length is {length}"),
        _ => format!("the body has {length} bytes; allowed are {limit}"),
    };
    Problem::new(Cause::TooLarge, detail)
}
