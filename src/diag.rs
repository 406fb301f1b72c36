//! Lines on stderr. A slow stderr never delays a request: lines queue, up to a bound, for a
//! thread of their own, and beyond the bound they are dropped and counted.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::config::LogLevel;
use crate::error::{Cause, TABLE};
use crate::limits::{LOG_LINE_CHARS, LOG_LINES, TOLD_AGAIN};
use crate::metrics::Metrics;
use crate::threads::{self, Mailbox};
use crate::time::rfc3339;

/// Where lines go. Cheap to clone.
#[derive(Clone)]
pub struct Diag {
    level: LogLevel,
    lines: Mailbox<String>,
    metrics: Arc<Metrics>,
    refusals: Arc<[Seldom; TABLE.len()]>,
}

/// Something that may happen as often as an attacker likes, and is told at once but then seldom.
#[derive(Default)]
pub struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// Whether to tell it now, and then how often it happened untold.
    pub fn untold(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let (last, untold) = &mut *state;
        if last.is_some_and(|last| now < last + TOLD_AGAIN) {
            *untold += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(untold))
    }
}

/// The thread that writes.
pub struct DiagThread {
    lines: Mailbox<String>,
    /// Closed when everything is written.
    done: Mailbox<()>,
}

/// How long a stop waits for a stderr that takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);

impl DiagThread {
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
pub fn start(level: LogLevel, metrics: Arc<Metrics>) -> std::io::Result<(Diag, DiagThread)> {
    let thread = DiagThread { lines: Mailbox::new(LOG_LINES), done: Mailbox::new(0) };
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
    let refusals = Arc::new(std::array::from_fn(|_| Seldom::default()));
    Ok((Diag { level, lines, metrics, refusals }, thread))
}

impl Diag {
    /// What keeps the server from doing its work.
    pub fn error(&self, text: impl std::fmt::Display) {
        self.line(LogLevel::Error, &text);
    }

    /// Starts, stops, warnings.
    pub fn info(&self, text: impl std::fmt::Display) {
        self.line(LogLevel::Info, &text);
    }

    /// A request or a connection that is refused. A text that a client chose is not for this line:
    /// it could look like another.
    pub fn refused(&self, client: impl std::fmt::Display, cause: Cause) {
        // To be told of a gap is a reader's daily life.
        if self.level < LogLevel::Info || cause == Cause::Gap {
            return;
        }
        let label = cause.label();
        match self.refusals[cause as usize].untold(Instant::now()) {
            None => {}
            Some(0) => self.info(format_args!("refused {client}: {label}")),
            Some(untold) => {
                self.info(format_args!("refused {client}: {label}, and {untold} untold before it"));
            }
        }
    }

    /// Whether requests are to be written, one line each.
    #[must_use]
    pub fn tells_requests(&self) -> bool {
        self.level >= LogLevel::Requests
    }

    /// One request.
    pub fn request(&self, text: impl std::fmt::Display) {
        self.line(LogLevel::Requests, &text);
    }

    fn line(&self, level: LogLevel, text: &dyn std::fmt::Display) {
        if level > self.level {
            return;
        }
        let time = rfc3339(SystemTime::now());
        let text: String = text.to_string().chars().take(LOG_LINE_CHARS).collect();
        if !self.lines.post(format!("{time} {text}\n")) {
            self.metrics.log_lines_dropped.add(1);
        }
    }
}
