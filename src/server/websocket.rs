//! A WebSocket's two halves. The worker writes what the stream brings, as it does for every stream;
//! a second thread reads what the client says.
//!
//! *Locks.* Both write, whole frames at a time, with the pen in hand. Nothing is locked under it; it
//! is held while a frame is written, which takes `--write-timeout` at most. Who publishes has the
//! turn until the answer is written, and so has who writes the last frame. The turn comes first.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error as SocketError, Message};

use super::connection::{Exchange, Handler, Persistence};
use crate::access::Grant;
use crate::api::{Api, Caller, Delivery, EventStream, HeldPoll, StreamPart, websocket};
use crate::conn::Conn;
use crate::http::Response;
use crate::limits::{LINGERING_CLOSE_TIMEOUT, WEBSOCKET_BUFFER_BYTES};
use crate::names::TopicSet;
use crate::problem::{Cause, Problem};
use crate::semaphore::Permit;
use crate::threads::{self, Mailbox};
use crate::waiters::WaiterHandle;

/// What writes to the client, whoever has something to say.
struct FrameWriter {
    conn: Arc<Conn>,
    time: Duration,
    turn: Mutex<()>,
    /// Why nothing is written any more.
    ended: Mutex<Option<ErrorKind>>,
}

impl FrameWriter {
    fn write(&self, frames: &[u8]) -> io::Result<()> {
        let mut ended = self.ended.lock();
        if let Some(why) = *ended {
            return Err(why.into());
        }
        let written = self.conn.send_within(frames, self.time);
        // SocketHalf a frame may be out, which no other can follow.
        *ended = written.as_ref().err().map(io::Error::kind);
        written
    }

    /// Publishes and writes the answer, unless there has been a last frame: none comes in between.
    fn write_answer(&self, publish: impl FnOnce() -> Vec<u8>) -> io::Result<()> {
        let _turn = self.turn.lock();
        let ended = *self.ended.lock();
        match ended {
            Some(why) => Err(why.into()),
            None => self.write(&publish()),
        }
    }

    /// Writes the last frame, unless there has been one.
    fn write_last(&self, frame: &[u8]) {
        let _turn = self.turn.lock();
        let mut ended = self.ended.lock();
        if ended.is_none() {
            // It fails when the client has gone: then there is nobody to tell.
            let _ = self.conn.send_within(frame, self.time);
            *ended = Some(ErrorKind::BrokenPipe);
        }
    }
}

/// The socket as `tungstenite` sees it.
struct SocketHalf(Arc<FrameWriter>);

impl Read for SocketHalf {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // A client may say nothing for as long as it likes; whether it is there is found out
            // by the pings.
            match self.0.conn.recv_into(buffer, Instant::now() + Duration::from_secs(3_600)) {
                Err(e) if e.kind() == ErrorKind::TimedOut => {}
                got => return got,
            }
        }
    }
}

impl Write for SocketHalf {
    /// Pongs, whole.
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        self.0.write(frame).map(|()| frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that reads.
struct FrameReader {
    socket: WebSocket<SocketHalf>,
    pen: Arc<FrameWriter>,
    api: Arc<Api>,
    topics: TopicSet,
    grant: Grant,
    _ends: EndGuard,
}

/// However reading ends, the writing does too.
struct EndGuard {
    waiter: WaiterHandle<HeldPoll, Delivery>,
    done: Mailbox<()>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.waiter.cancel();
        self.done.close();
    }
}

impl FrameReader {
    fn run(mut self) {
        let code = loop {
            match self.socket.read() {
                Ok(Message::Text(said)) => {
                    let conn = &self.pen.conn;
                    let caller = Caller { conn, takes_shared_page: false, grant: &self.grant };
                    let said = said.as_str().as_bytes().to_vec();
                    let publish = || self.api.publish_said(&self.topics, said, &caller);
                    if self.pen.write_answer(publish).is_err() {
                        return;
                    }
                }
                Ok(Message::Binary(_)) => break CloseCode::Unsupported,
                // Answered with the same.
                Ok(Message::Close(frame)) => {
                    break frame.map_or(CloseCode::Normal, |frame| frame.code);
                }
                Ok(_) => {}
                Err(SocketError::Capacity(_)) => break CloseCode::Size,
                Err(SocketError::Utf8(_)) => break CloseCode::Invalid,
                Err(SocketError::Protocol(_)) => break CloseCode::Protocol,
                Err(_) => return,
            }
        };
        self.pen.write_last(&websocket::close(code));
    }
}

impl Handler {
    /// Writes what comes and publishes what is said, until one side ends it.
    pub(super) fn converse(
        &self,
        to: &Exchange<'_>,
        opening: Response,
        mut stream: EventStream<'_>,
        _place: Permit,
        early: Vec<u8>,
        begun: Option<Instant>,
    ) -> Persistence {
        let opening = opening.encode(to.frame(Persistence::KeepAlive));
        let mut bytes = opening.len();
        let time = self.config.write_timeout;
        let (conn, turn, ended) = (Arc::clone(to.conn), Mutex::new(()), Mutex::new(None));
        let pen = Arc::new(FrameWriter { conn, time, turn, ended });
        let done = Mailbox::new(1);
        // Nothing is said before the opening, and no opening is sent that could not be kept to.
        let writing = pen.ended.lock();
        let listening = stream.waiter().ok_or(ErrorKind::NotFound.into()).and_then(|waiter| {
            let ends = EndGuard { waiter, done: done.clone() };
            self.listen(to, &pen, stream.topics(), ends, early)
        });
        let listener = match listening {
            Ok(listener) => listener,
            Err(error) => {
                let detail = format!("no thread is left for a WebSocket: {error}");
                return self.refuse(to, Problem::new(Cause::PollCap, detail).into());
            }
        };
        let mut written = to.conn.send_within(&opening, time);
        drop(writing);
        loop {
            if let Err(error) = written {
                stream.broke(&error);
                to.conn.close();
                break;
            }
            let piece = stream.next_piece();
            bytes += piece.length();
            if matches!(piece, StreamPart::End(_)) {
                pen.write_last(piece.rest());
                break;
            }
            written = pen.write(piece.rest());
        }
        self.tell(to, 101, bytes, begun);
        // The client is to see the end, and may say that it has; then the listener hears its own.
        to.conn.close_write();
        let until = Instant::now() + LINGERING_CLOSE_TIMEOUT;
        done.take_by(until);
        if Instant::now() >= until {
            to.conn.close();
        }
        let _ = listener.join();
        // One that was cut short in what it said is not to lose the reason by that.
        self.lingerer.take(Arc::clone(to.conn));
        Persistence::Close
    }

    fn listen(
        &self,
        to: &Exchange<'_>,
        pen: &Arc<FrameWriter>,
        topics: &TopicSet,
        ends: EndGuard,
        early: Vec<u8>,
    ) -> io::Result<std::thread::JoinHandle<()>> {
        let most = Some(self.config.max_event);
        let config = WebSocketConfig::default()
            .read_buffer_size(WEBSOCKET_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(most)
            .max_frame_size(most);
        let half = SocketHalf(Arc::clone(pen));
        let listener = FrameReader {
            socket: WebSocket::from_partially_read(half, early, Role::Server, Some(config)),
            pen: Arc::clone(pen),
            api: Arc::clone(&self.api),
            topics: topics.clone(),
            grant: to.grant.clone(),
            _ends: ends,
        };
        threads::start("listen", Box::new(move || listener.run()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn nothing_follows_what_was_broken_off() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let conn = Conn::accepted(ours.into(), None, Duration::from_secs(60)).unwrap();
        let (turn, ended) = (Mutex::new(()), Mutex::new(None));
        let pen = FrameWriter { conn: Arc::new(conn), time: Duration::ZERO, turn, ended };
        let failed = loop {
            if let Err(error) = pen.write(&[1; 10_000]) {
                break error.kind();
            }
        };
        let arrives = |theirs: &mut UnixStream| {
            std::iter::from_fn(|| theirs.read(&mut [0; 9_000]).ok()).sum::<usize>()
        };
        assert_eq!((failed, arrives(&mut theirs) > 0), (ErrorKind::TimedOut, true));
        // There is room again.
        assert_eq!(pen.write(b"next").unwrap_err().kind(), ErrorKind::TimedOut);
        let answer = pen.write_answer(|| unreachable!("it is not published either"));
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::TimedOut);
        pen.write_last(b"last");
        assert_eq!(arrives(&mut theirs), 0);
    }
}
