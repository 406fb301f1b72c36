//! Writing a stream: part after part, until one side ends it.
//!
//! The API decides what comes next, and this module writes it, as it does with every response. A
//! write that takes longer than `--write-timeout` ends the stream: its client can resume from its
//! last id, and until then it blocks no thread but its own.

use std::sync::Arc;
use std::time::Instant;

use super::exchange::{Exchange, Handler, Persistence};
use super::request::InputBuffer;
use crate::api::{Caller, EventStream, StartedStream, StreamPart, StreamQuery};
use crate::http::Response;
use crate::problem::Problem;

impl Handler {
    /// Starts a stream, and writes it to its end. `started` is when its request was complete.
    // Not inlined, like the other steps of a request: a held poll does not need its stack.
    #[inline(never)]
    pub fn stream(
        &self,
        exchange: &Exchange<'_>,
        query: StreamQuery,
        input: &mut InputBuffer,
        started: Option<Instant>,
    ) -> Result<Persistence, Problem> {
        let caller =
            Caller { conn: exchange.conn, takes_shared_page: true, grant: &exchange.grant };
        let stream = self.api.open_stream(query, &caller)?;
        // A stream has no deadline as a poll has: its keep-alives detect a client that is gone.
        exchange.conn.set_user_timeout(self.config.write_timeout);
        // Free the input buffer. It is empty, unless a WebSocket's client has sent frames early.
        let early = input.unused().to_vec();
        input.consume(early.len());
        input.release();
        Ok(match stream {
            StartedStream::Events(opening, stream) => {
                drop(early);
                self.send_events(exchange, opening, stream, started)
            }
            #[cfg(feature = "websocket")]
            StartedStream::WebSocket(opening, stream, permit) => {
                self.converse(exchange, opening, stream, &permit, early, started)
            }
        })
    }

    /// Writes the parts of a stream of server-sent events. The connection ends with the stream.
    fn send_events(
        &self,
        exchange: &Exchange<'_>,
        opening: Response,
        mut stream: EventStream<'_>,
        started: Option<Instant>,
    ) -> Persistence {
        let opening = opening.encode(exchange.encode_options(Persistence::Close));
        let mut bytes = opening.len();
        let mut written = self.write(exchange.conn, &opening);
        let is_complete = loop {
            if let Err(error) = written {
                stream.write_failed(&error);
                break false;
            }
            let part = stream.next_part();
            bytes += part.length();
            written = self.write(exchange.conn, part.unsent());
            if matches!(part, StreamPart::End(_)) {
                break written.is_ok();
            }
        };
        self.log_request(exchange, 200, bytes, started);
        if is_complete {
            // Input that the client may have sent must not destroy the stream's end.
            self.lingering.close(Arc::clone(exchange.conn));
        }
        Persistence::Close
    }
}
