//! Writing a stream: piece by piece, until one side ends it.
//!
//! The api says what comes next and the door writes it, as with every answer; only that there is a
//! next one. A write that does not get done in time ends the stream: its client can go on by its
//! last id, and meanwhile holds up nobody but this thread.

use std::sync::Arc;
use std::time::Instant;

use super::connection::{Exchange, Handler, Persistence};
use super::request::InputBuffer;
use crate::api::{Caller, EventStream, StartedStream, StreamPart, StreamQuery};
use crate::http::Response;
use crate::problem::Problem;

impl Handler {
    /// Begins a stream, and writes it to its end.
    // Not inlined, as a request's other steps: a poll that is held has no use for its stack.
    #[inline(never)]
    pub(super) fn stream(
        &self,
        to: &Exchange<'_>,
        query: StreamQuery,
        input: &mut InputBuffer,
        begun: Option<Instant>,
    ) -> Result<Persistence, Problem> {
        let caller = Caller { conn: to.conn, takes_shared_page: true, grant: &to.grant };
        let stream = self.api.open_stream(query, &caller)?;
        // It has no deadline as a poll has; what it says when it is silent shows who has gone.
        to.conn.set_user_timeout(self.config.write_timeout);
        // The buffer can go. It is empty, unless a WebSocket's client has begun to speak.
        let early = input.take();
        Ok(match stream {
            StartedStream::Events(opening, stream) => {
                drop(early);
                self.send_events(to, opening, stream, begun)
            }
            #[cfg(feature = "websocket")]
            StartedStream::WebSocket(opening, stream, place) => {
                self.converse(to, opening, stream, place, early, begun)
            }
        })
    }

    /// Writes what comes, as it comes. The connection ends with the stream; `begun` is when its
    /// request was read whole.
    fn send_events(
        &self,
        to: &Exchange<'_>,
        opening: Response,
        mut stream: EventStream<'_>,
        begun: Option<Instant>,
    ) -> Persistence {
        let opening = opening.encode(to.frame(Persistence::Close));
        let mut bytes = opening.len();
        let mut written = self.write(to.conn, &opening);
        let in_order = loop {
            if let Err(error) = written {
                stream.write_failed(&error);
                break false;
            }
            let piece = stream.next_part();
            bytes += piece.length();
            written = self.write(to.conn, piece.unsent());
            if matches!(piece, StreamPart::End(_)) {
                break written.is_ok();
            }
        };
        self.tell(to, 200, bytes, begun);
        if in_order {
            // What its client may have sent meanwhile is not to eat its end.
            self.lingerer.take(Arc::clone(to.conn));
        }
        Persistence::Close
    }
}
