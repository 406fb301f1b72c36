//! The program's log: lines on stderr.
//!
//! A slow stderr never delays a request: a thread writes the lines from a bounded queue. When the
//! queue is full, lines are dropped and counted.
//!
//! If stderr is the systemd journal, which adds its own time stamps, a line begins with its
//! priority instead of a time, for `journalctl -p warning`.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::LogLevel;
use crate::limits::{LOG_LINE_CHARS, LOG_QUEUE_LINES, LOG_REPEAT_INTERVAL};
use crate::metrics::Metrics;
use crate::problem::{CAUSES, Cause, Problem};
use crate::sync::Mutex;
use crate::threads;
use crate::time::rfc3339;

/// The priority of a line, in the numbers of syslog(3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Priority {
    Error = 3,
    Warning = 4,
    Info = 6,
}

/// Whether stderr is the systemd journal: `JOURNAL_STREAM` has the device and inode of its socket.
fn is_journal() -> bool {
    let Some(journal) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let stderr = rustix::fs::fstat(std::io::stderr());
    stderr.is_ok_and(|file| journal == *format!("{}:{}", file.st_dev, file.st_ino))
}

/// Formats the error with which the program exits.
#[must_use]
pub fn fatal_line(error: &dyn std::fmt::Display) -> String {
    let error = format!("longpoll: {error}\n");
    if is_journal() { format!("<{}>{error}", Priority::Error as u8) } else { error }
}

/// Writes lines to the log. Cheap to clone.
#[derive(Clone)]
pub struct Logger {
    level: LogLevel,
    is_journal: bool,
    lines: Sender<Option<String>>,
    metrics: Arc<Metrics>,
    refusals: Arc<[RateLimited; CAUSES.len()]>,
}

/// Limits the log lines about an event that an attacker can cause at will: the first is logged at
/// once, then one line per [`LOG_REPEAT_INTERVAL`] with the number of events since.
#[derive(Default)]
pub struct RateLimited(Mutex<RateState>);

#[derive(Default)]
struct RateState {
    last_line: Option<Instant>,
    suppressed: u64,
}

impl RateState {
    fn is_line_due(&self, now: Instant) -> bool {
        self.last_line.is_none_or(|last| now >= last + LOG_REPEAT_INTERVAL)
    }

    fn begin_line(&mut self, now: Instant) -> u64 {
        self.last_line = Some(now);
        std::mem::take(&mut self.suppressed)
    }
}

impl RateLimited {
    /// Counts an event. Returns `Some`, with the number of events suppressed before it, when a line
    /// is due now.
    pub fn record(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        if state.is_line_due(now) {
            return Some(state.begin_line(now));
        }
        state.suppressed += 1;
        None
    }

    /// Returns the number of suppressed events when there are some and a line is due now.
    fn take_suppressed(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        (state.suppressed > 0 && state.is_line_due(now)).then(|| state.begin_line(now))
    }
}

/// The thread that writes the queued lines.
pub struct LoggerThread {
    /// `None` ends the thread: other threads may still have a [`Logger`], so that the channel is not
    /// disconnected at the end of the program.
    lines: Sender<Option<String>>,
    /// Disconnected when the thread has ended.
    done: Receiver<()>,
}

/// How long a stop waits for a stderr that blocks.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

impl LoggerThread {
    /// Waits until the queued lines are written, but no longer than a second.
    pub fn finish(self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        if self.lines.send_deadline(None, deadline).is_ok() {
            let _ = self.done.recv_deadline(deadline);
        }
    }
}

/// Starts the thread that writes.
///
/// # Errors
/// When the operating system refuses it.
pub fn start(level: LogLevel, metrics: Arc<Metrics>) -> std::io::Result<(Logger, LoggerThread)> {
    let (lines, queued) = bounded::<Option<String>>(LOG_QUEUE_LINES);
    let (ended, done) = bounded(0);
    let write = move || {
        for line in queued.iter().map_while(|line| line) {
            // There is nowhere to report a failure of stderr.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        drop(ended);
    };
    threads::start("logger", Box::new(write))?;
    let thread = LoggerThread { lines: lines.clone(), done };
    let refusals = Arc::new(std::array::from_fn(|_| RateLimited::default()));
    Ok((Logger { level, is_journal: is_journal(), lines, metrics, refusals }, thread))
}

impl Logger {
    /// Whether the log goes to the systemd journal instead of a terminal or a file.
    #[must_use]
    pub fn is_journal(&self) -> bool {
        self.is_journal
    }

    /// Logs a failure that keeps the server from its work.
    pub fn error(&self, text: impl std::fmt::Display) {
        self.line(LogLevel::Error, Priority::Error, &text);
    }

    /// Logs a fault that the operator should look into.
    pub fn warning(&self, text: impl std::fmt::Display) {
        self.line(LogLevel::Info, Priority::Warning, &format_args!("warning: {text}"));
    }

    /// Logs a start, a stop or a refusal.
    pub fn info(&self, text: impl std::fmt::Display) {
        self.line(LogLevel::Info, Priority::Info, &text);
    }

    /// Logs a refused request or connection, rate limited for each cause.
    pub fn refusal(&self, client: impl std::fmt::Display, problem: &Problem) {
        let cause = problem.cause();
        // Gaps are normal for a reader that lags.
        if self.level < LogLevel::Info || cause == Cause::Gap {
            return;
        }
        if let Some(suppressed) = self.refusals[cause as usize].record(Instant::now()) {
            let (status, label) = (cause.status(), cause.label());
            // Escaped, because text chosen by a client could look like another line.
            let detail = problem.detail().escape_debug();
            self.info(format_args!("refused {client}: {status} {label}: {detail}"));
            self.suppressed_refusals(cause, suppressed);
        }
    }

    /// Logs the number of suppressed refusals of each cause for which a line is due. The
    /// housekeeping thread calls this regularly.
    pub fn flush_suppressed(&self) {
        let now = Instant::now();
        for (cause, ..) in CAUSES {
            if let Some(suppressed) = self.refusals[cause as usize].take_suppressed(now) {
                self.suppressed_refusals(cause, suppressed);
            }
        }
    }

    fn suppressed_refusals(&self, cause: Cause, count: u64) {
        if count > 0 {
            let (status, label) = (cause.status(), cause.label());
            self.info(format_args!("refused {count} more: {status} {label}"));
        }
    }

    /// Whether each request is logged.
    #[must_use]
    pub fn logs_requests(&self) -> bool {
        self.level >= LogLevel::Requests
    }

    /// Logs a request.
    pub fn request(&self, text: impl std::fmt::Display) {
        self.line(LogLevel::Requests, Priority::Info, &text);
    }

    fn line(&self, level: LogLevel, priority: Priority, text: &dyn std::fmt::Display) {
        if level > self.level {
            return;
        }
        let text: String = text.to_string().chars().take(LOG_LINE_CHARS).collect();
        let line = if self.is_journal {
            format!("<{}>{text}\n", priority as u8)
        } else {
            format!("{} {text}\n", rfc3339(SystemTime::now()))
        };
        if self.lines.try_send(Some(line)).is_err() {
            self.metrics.log_lines_dropped.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_event_is_logged_at_once_and_later_ones_are_counted_per_interval() {
        let limited = RateLimited::default();
        let start = Instant::now();
        assert_eq!(limited.record(start), Some(0));
        assert_eq!(limited.take_suppressed(start + LOG_REPEAT_INTERVAL), None, "none suppressed");
        for _ in 0..5 {
            assert_eq!(limited.record(start + LOG_REPEAT_INTERVAL / 2), None);
        }
        assert_eq!(limited.take_suppressed(start + LOG_REPEAT_INTERVAL / 2), None, "too early");
        assert_eq!(limited.take_suppressed(start + LOG_REPEAT_INTERVAL), Some(5));
        assert_eq!(limited.record(start + LOG_REPEAT_INTERVAL + LOG_REPEAT_INTERVAL / 2), None);
        assert_eq!(limited.record(start + LOG_REPEAT_INTERVAL * 2), Some(1));
    }
}
