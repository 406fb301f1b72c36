//! Lines on stderr. A slow stderr never delays a request: lines queue, up to a bound, for a
//! thread of their own, and beyond the bound they are dropped and counted.
//!
//! If stderr is the journal of systemd, which has a clock of its own, lines begin with their
//! priority instead of a time: `journalctl -p warning` finds what matters.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::config::LogLevel;
use crate::limits::{LOG_LINE_CHARS, LOG_QUEUE_LINES, LOG_REPEAT_INTERVAL};
use crate::metrics::Metrics;
use crate::problem::{CAUSES, Cause, Problem};
use crate::threads::{self, Mailbox};
use crate::time::rfc3339;

/// How much a line matters, as syslog(3) numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Priority {
    Error = 3,
    Warning = 4,
    Info = 6,
}

/// Whether stderr is systemd's journal: the variable says which file that would be.
fn is_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let stderr = rustix::fs::fstat(std::io::stderr());
    stderr.is_ok_and(|file| stream == *format!("{}:{}", file.st_dev, file.st_ino))
}

/// What the program ends with when it cannot do its work.
#[must_use]
pub fn fatal_line(error: &dyn std::fmt::Display) -> String {
    let error = format!("longpoll: {error}\n");
    if is_journal() { format!("<{}>{error}", Priority::Error as u8) } else { error }
}

/// Where lines go. Cheap to clone.
#[derive(Clone)]
pub struct Logger {
    level: LogLevel,
    is_journal: bool,
    lines: Mailbox<String>,
    metrics: Arc<Metrics>,
    refusals: Arc<[RateLimited; CAUSES.len()]>,
}

/// Something that may happen as often as an attacker likes, and is told at once but then seldom.
#[derive(Default)]
pub struct RateLimited(Mutex<(Option<Instant>, u64)>);

impl RateLimited {
    /// How often it happened untold, if it did and is to be told now.
    fn overdue(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let (last, untold) = &mut *state;
        if *untold == 0 || last.is_some_and(|last| now < last + LOG_REPEAT_INTERVAL) {
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(untold))
    }

    /// Whether to tell it now, and then how often it happened untold.
    pub fn untold(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let (last, untold) = &mut *state;
        if last.is_some_and(|last| now < last + LOG_REPEAT_INTERVAL) {
            *untold += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(untold))
    }
}

/// The thread that writes.
pub struct LoggerThread {
    lines: Mailbox<String>,
    /// Closed when everything is written.
    done: Mailbox<()>,
}

/// How long a stop waits for a stderr that takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);

impl LoggerThread {
    /// Waits until every line so far is written, or for a second.
    pub fn finish(self) {
        self.lines.close();
        let _ = self.done.take_by(Instant::now() + PATIENCE);
    }
}

/// Starts the thread.
///
/// # Errors
/// When the operating system refuses it.
pub fn start(level: LogLevel, metrics: Arc<Metrics>) -> std::io::Result<(Logger, LoggerThread)> {
    let thread = LoggerThread { lines: Mailbox::new(LOG_QUEUE_LINES), done: Mailbox::new(0) };
    let (lines, done) = (thread.lines.clone(), thread.done.clone());
    let write = move || {
        while let Some(line) = lines.take() {
            // Nobody is left to tell when stderr is gone.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        done.close();
    };
    threads::start("diag", Box::new(write))?;
    let lines = thread.lines.clone();
    let refusals = Arc::new(std::array::from_fn(|_| RateLimited::default()));
    Ok((Logger { level, is_journal: is_journal(), lines, metrics, refusals }, thread))
}

impl Logger {
    /// Whether what is told is kept for later, and nobody looks on.
    #[must_use]
    pub fn is_journal(&self) -> bool {
        self.is_journal
    }

    /// What keeps the server from doing its work.
    pub fn error(&self, text: impl std::fmt::Display) {
        self.line(LogLevel::Error, Priority::Error, &text);
    }

    /// What somebody should look after when there is time.
    pub fn warning(&self, text: impl std::fmt::Display) {
        self.line(LogLevel::Info, Priority::Warning, &format_args!("warning: {text}"));
    }

    /// Starts, stops, refusals.
    pub fn info(&self, text: impl std::fmt::Display) {
        self.line(LogLevel::Info, Priority::Info, &text);
    }

    /// A request or a connection that is refused.
    pub fn refused(&self, client: impl std::fmt::Display, problem: &Problem) {
        let cause = problem.cause();
        // To be told of a gap is a reader's daily life.
        if self.level < LogLevel::Info || cause == Cause::Gap {
            return;
        }
        if let Some(untold) = self.refusals[cause as usize].untold(Instant::now()) {
            let (status, label) = (cause.status(), cause.label());
            // Escaped: what a client chose could look like another line.
            let detail = problem.detail().escape_debug();
            self.info(format_args!("refused {client}: {status} {label}: {detail}"));
            self.tell_more(cause, untold);
        }
    }

    /// Tells how many refusals were not told, where it is time. To be called now and then.
    pub fn tell_untold(&self) {
        let now = Instant::now();
        for (cause, ..) in CAUSES {
            if let Some(untold) = self.refusals[cause as usize].overdue(now) {
                self.tell_more(cause, untold);
            }
        }
    }

    fn tell_more(&self, cause: Cause, untold: u64) {
        if untold > 0 {
            let (status, label) = (cause.status(), cause.label());
            self.info(format_args!("refused {untold} more: {status} {label}"));
        }
    }

    /// Whether requests are to be written, one line each.
    #[must_use]
    pub fn logs_requests(&self) -> bool {
        self.level >= LogLevel::Requests
    }

    /// One request.
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
        if !self.lines.post(line) {
            self.metrics.log_lines_dropped.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_told_at_once_and_then_seldom_and_nothing_stays_untold() {
        let seldom = RateLimited::default();
        let begun = Instant::now();
        assert_eq!(seldom.untold(begun), Some(0));
        assert_eq!(seldom.overdue(begun + LOG_REPEAT_INTERVAL), None, "there is nothing more");
        for _ in 0..5 {
            assert_eq!(seldom.untold(begun + LOG_REPEAT_INTERVAL / 2), None);
        }
        assert_eq!(seldom.overdue(begun + LOG_REPEAT_INTERVAL / 2), None, "it is too soon");
        assert_eq!(seldom.overdue(begun + LOG_REPEAT_INTERVAL), Some(5));
        assert_eq!(seldom.untold(begun + LOG_REPEAT_INTERVAL + LOG_REPEAT_INTERVAL / 2), None);
        assert_eq!(seldom.untold(begun + LOG_REPEAT_INTERVAL * 2), Some(1));
    }
}
