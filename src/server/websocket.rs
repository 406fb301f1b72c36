//! The two threads of a WebSocket: the worker writes the parts of the stream, as for every stream; a
//! second thread reads the frames of the client and publishes them.
//!
//! *Locks.* Both threads write frames. `FrameWriter::closed` guards the connection's output: it is
//! held while one frame is written, which takes `--write-timeout` at most, and nothing is locked
//! under it. `FrameWriter::publish` orders a publish and its answer against the last frame: it is
//! held while the reader publishes, so all locks of a publish, and then `closed`, may be taken
//! under it.

mod message_reader;

use std::io::{self, BufReader, Chain, Cursor, ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exchange::{Exchange, Handler, Persistence};
use crate::access::Grant;
use crate::api::{
    Api, Caller, Delivery, EventStream, HeldPoll, StreamPart, WebSocketPermit, websocket,
};
use crate::conn::Conn;
use crate::http::Response;
use crate::limits::{LINGERING_CLOSE_TIMEOUT, WEBSOCKET_BUFFER_BYTES};
use crate::names::TopicSet;
use crate::problem::{Cause, Problem};
use crate::semaphore::PermitReleaser;
use crate::sync::Mutex;
use crate::threads;
use crate::waiters::WaiterHandle;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use message_reader::{ClientMessage, MessageReader, MessagesEnd};

/// Writes the frames of both threads.
struct FrameWriter {
    conn: Arc<Conn>,
    timeout: Duration,
    publish: Mutex<()>,
    /// Why nothing may be written any more.
    closed: Mutex<Option<ErrorKind>>,
    /// The permits of this WebSocket, released before its last frame: a client that has it may
    /// connect again at once.
    permits: Vec<PermitReleaser>,
}

impl FrameWriter {
    fn new(conn: Arc<Conn>, timeout: Duration, permits: Vec<PermitReleaser>) -> FrameWriter {
        FrameWriter { conn, timeout, publish: Mutex::default(), closed: Mutex::default(), permits }
    }

    fn write(&self, frames: &[u8]) -> io::Result<()> {
        let mut closed = self.closed.lock();
        if let Some(reason) = *closed {
            return Err(reason.into());
        }
        let written = self.conn.send_within(frames, self.timeout);
        // After an error, half a frame may be written: no other may follow.
        *closed = written.as_ref().err().map(io::Error::kind);
        written
    }

    /// Publishes and writes the answer, unless the last frame was written. The last frame is not
    /// written between the two.
    fn write_answer(&self, publish: impl FnOnce() -> Vec<u8>) -> io::Result<()> {
        let _publishing = self.publish.lock();
        let closed = *self.closed.lock();
        match closed {
            Some(reason) => Err(reason.into()),
            None => self.write(&publish()),
        }
    }

    /// Writes the last frame, unless there was one.
    fn write_last(&self, frame: &[u8]) {
        let _publishing = self.publish.lock();
        let mut closed = self.closed.lock();
        if closed.is_none() {
            self.permits.iter().for_each(PermitReleaser::release);
            // It fails if the client is gone: then nobody reads the frame.
            let _ = self.conn.send_within(frame, self.timeout);
            *closed = Some(ErrorKind::BrokenPipe);
        }
    }
}

/// What the client sends after the bytes that arrived with its handshake.
struct ConnInput(Arc<Conn>);

impl Read for ConnInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // A client may send nothing for any time; the worker's pings detect one that is gone.
            match self.0.recv_into(buffer, Instant::now() + Duration::from_secs(3_600)) {
                Err(e) if e.kind() == ErrorKind::TimedOut => {}
                got => return got,
            }
        }
    }
}

/// Answers the client's messages, on a thread of its own.
struct MessageHandler {
    messages: MessageReader<BufReader<Chain<Cursor<Vec<u8>>, ConnInput>>>,
    writer: Arc<FrameWriter>,
    api: Arc<Api>,
    topics: TopicSet,
    grant: Grant,
    _end: EndGuard,
}

/// Ends the stream when the reader thread ends, also by a panic.
struct EndGuard {
    waiter: WaiterHandle<HeldPoll, Delivery>,
    /// Dropped to report the end to the worker.
    _done: Sender<()>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.waiter.cancel();
    }
}

impl MessageHandler {
    fn run(mut self) {
        loop {
            let answered = match self.messages.read() {
                Ok(ClientMessage::Text(text)) => {
                    let conn = &self.writer.conn;
                    let caller = Caller { conn, takes_shared_page: false, grant: &self.grant };
                    let publish = || self.api.publish_message(&self.topics, text, &caller);
                    self.writer.write_answer(publish)
                }
                Ok(ClientMessage::Ping(payload)) => {
                    self.writer.write(&websocket::pong_frame(payload))
                }
                Err(MessagesEnd::Closed(code)) => {
                    return self.writer.write_last(&websocket::close_frame(code));
                }
                Err(MessagesEnd::HungUp) => return,
            };
            if answered.is_err() {
                return;
            }
        }
    }
}

impl Handler {
    /// Writes the stream and publishes the client's frames, until one side ends it.
    pub fn converse(
        &self,
        exchange: &Exchange<'_>,
        opening: Response,
        mut stream: EventStream<'_>,
        permit: &WebSocketPermit,
        early: Vec<u8>,
        started: Option<Instant>,
    ) -> Persistence {
        let opening = opening.encode(exchange.encode_options(Persistence::KeepAlive));
        let mut bytes = opening.len();
        let timeout = self.config.write_timeout;
        let permits = stream.permit_releaser().into_iter().chain([permit.releaser()]).collect();
        let writer = Arc::new(FrameWriter::new(Arc::clone(exchange.conn), timeout, permits));
        let (done, reader_ended) = bounded(0);
        let (opened, wait_for_opening) = bounded(1);
        // The thread starts before the opening is written, which could not be taken back, and reads
        // nothing before that: no frame may precede the opening.
        let reader = stream.waiter().ok_or(ErrorKind::NotFound.into()).and_then(|waiter| {
            let end = EndGuard { waiter, _done: done };
            let reader = self.reader(exchange, &writer, stream.topics(), end, early);
            let run = move || {
                if wait_for_opening.recv().is_ok() {
                    reader.run();
                }
            };
            threads::start("listen", Box::new(run))
        });
        let reader = match reader {
            Ok(reader) => reader,
            Err(error) => {
                let detail = format!("no thread is left for a WebSocket: {error}");
                return self.refuse(exchange, Problem::new(Cause::PollCap, detail).into());
            }
        };
        let mut written = writer.write(&opening);
        if written.is_ok() {
            let _ = opened.send(());
        }
        drop(opened);
        loop {
            if let Err(error) = written {
                stream.write_failed(&error);
                exchange.conn.close();
                break;
            }
            let part = stream.next_part();
            bytes += part.length();
            if matches!(part, StreamPart::End(_)) {
                writer.write_last(part.unsent());
                break;
            }
            written = writer.write(part.unsent());
        }
        self.log_request(exchange, 101, bytes, started);
        // The client sees the end, and may answer it; that ends the reader.
        exchange.conn.close_write();
        if reader_ended.recv_timeout(LINGERING_CLOSE_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            exchange.conn.close();
        }
        let _ = reader.join();
        // A client that was interrupted while it sent must still be able to read the reason.
        self.lingering.close(Arc::clone(exchange.conn));
        Persistence::Close
    }

    fn reader(
        &self,
        exchange: &Exchange<'_>,
        writer: &Arc<FrameWriter>,
        topics: &TopicSet,
        end: EndGuard,
        early: Vec<u8>,
    ) -> MessageHandler {
        let input = Cursor::new(early).chain(ConnInput(Arc::clone(exchange.conn)));
        let input = BufReader::with_capacity(WEBSOCKET_BUFFER_BYTES, input);
        MessageHandler {
            messages: MessageReader::new(input, self.config.max_event),
            writer: Arc::clone(writer),
            api: Arc::clone(&self.api),
            topics: topics.clone(),
            grant: exchange.grant.clone(),
            _end: end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn nothing_is_written_after_a_write_timed_out() {
        let (server_end, mut client_end) = UnixStream::pair().unwrap();
        client_end.set_nonblocking(true).unwrap();
        let conn = Conn::accepted(server_end.into(), None, Duration::from_secs(60)).unwrap();
        let writer = FrameWriter::new(Arc::new(conn), Duration::ZERO, Vec::new());
        let failed = loop {
            if let Err(error) = writer.write(&[1; 10_000]) {
                break error.kind();
            }
        };
        let received = |client_end: &mut UnixStream| {
            std::iter::from_fn(|| client_end.read(&mut [0; 9_000]).ok()).sum::<usize>()
        };
        assert_eq!((failed, received(&mut client_end) > 0), (ErrorKind::TimedOut, true));
        // The socket's buffer has space again.
        assert_eq!(writer.write(b"next").unwrap_err().kind(), ErrorKind::TimedOut);
        let answer = writer.write_answer(|| unreachable!("nothing is published either"));
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::TimedOut);
        writer.write_last(b"last");
        assert_eq!(received(&mut client_end), 0);
    }
}
