//! Lines on stderr. A slow stderr never delays a request: lines queue, up to a bound, for a
//! thread of their own, and beyond the bound they are dropped and counted.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::LogLevel;
use crate::limits::{LOG_LINE_CHARS, LOG_LINES};
use crate::metrics::Metrics;
use crate::time::rfc3339;

/// Where lines go. Cheap to clone.
#[derive(Clone)]
pub struct Diag {
    level: LogLevel,
    lines: Sender<Line>,
    metrics: Arc<Metrics>,
}

enum Line {
    Text(String),
    /// Nothing after this is written.
    Last,
}

/// The thread that writes.
pub struct DiagThread {
    lines: Sender<Line>,
    done: Receiver<()>,
}

/// How long a stop waits for a stderr that takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);

impl DiagThread {
    /// Waits until every line so far is written, or for a second.
    pub fn finish(self) {
        if self.lines.send_timeout(Line::Last, PATIENCE).is_ok() {
            let _ = self.done.recv_timeout(PATIENCE);
        }
    }
}

/// Starts the thread.
///
/// # Errors
/// When the operating system refuses it.
pub fn start(level: LogLevel, metrics: Arc<Metrics>) -> std::io::Result<(Diag, DiagThread)> {
    let (lines, queue) = bounded(LOG_LINES);
    let (tell_done, done) = bounded(1);
    let write = move || {
        while let Ok(Line::Text(line)) = queue.recv() {
            // Nobody is left to tell when stderr is gone.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        let _ = tell_done.send(());
    };
    std::thread::Builder::new().name("diag".into()).spawn(write)?;
    let thread = DiagThread { lines: lines.clone(), done };
    Ok((Diag { level, lines, metrics }, thread))
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
        if self.lines.try_send(Line::Text(format!("{time} {text}\n"))).is_err() {
            self.metrics.log_lines_dropped.add(1);
        }
    }
}
