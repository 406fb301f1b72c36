//! `longpoll publish`: one event from the command line, or events from stdin.
//!
//! After a failure it reports which lines are published and which are not, so that an operator can
//! continue from there.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::args::{LineFormat, PublishArgs, PublishSource};
use super::error::{CommandError, print_error, print_retry};
use super::stdin::StdinReader;
use crate::client::publish::{Message, Publisher, Receipt};
use crate::json::JsonObject;
use crate::shutdown::Shutdown;

pub fn run(args: &PublishArgs, shutdown: &Shutdown) -> Result<(), CommandError> {
    let mut publisher = Publisher::with_token_file(&args.url, args.token_file.clone())?
        .retry_for(args.retry_for)
        .with_shutdown(shutdown.clone())
        .on_retry(print_retry);
    let mut message = match &args.source {
        PublishSource::Text(text) => Message::text(text.clone()),
        PublishSource::Json(json) => Message::json(json.clone()),
        PublishSource::StdinWhole => Message::text(StdinReader::new(shutdown.clone()).read_all()?),
        PublishSource::StdinLines(format) => {
            return publish_lines(args, *format, &mut publisher, shutdown);
        }
    };
    message.event_type.clone_from(&args.event_type);
    message.key.clone_from(&args.key);
    let receipt = publisher.publish(&args.topic, &message)?;
    print(receipt.json.into_bytes())
}

fn publish_lines(
    args: &PublishArgs,
    format: LineFormat,
    publisher: &mut Publisher,
    shutdown: &Shutdown,
) -> Result<(), CommandError> {
    let mut stdin = StdinReader::new(shutdown.clone());
    let mut summary = Summary::default();
    let mut progress = ProgressLine::new();
    let result = loop {
        let batch = match stdin.next_batch(format) {
            Ok(Some(batch)) => batch,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        let mut message = Message::lines(batch.body);
        message.event_type.clone_from(&args.event_type);
        match publisher.publish(&args.topic, &message) {
            Ok(receipt) => {
                summary.events += batch.events;
                summary.bytes += batch.bytes;
                summary.last = Some(receipt);
                progress.update(&summary);
            }
            Err(error) => {
                let (first, last) = (batch.first_line, batch.last_line);
                let why = format!("lines {first} to {last} of the input: {error}");
                break Err(CommandError::Failed(why));
            }
        }
    };
    progress.finish(&summary);
    if let Err(error) = result {
        print_error(format_args!("{} events are published", summary.events));
        return Err(error);
    }
    print(summary.json(&args.topic))
}

fn print(mut line: Vec<u8>) -> Result<(), CommandError> {
    line.push(b'\n');
    match std::io::stdout().write_all(&line) {
        // A closed stdout is no failure: the event is published.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CommandError::Failed(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// What the command has published so far.
#[derive(Default)]
struct Summary {
    events: u64,
    bytes: u64,
    last: Option<Receipt>,
}

impl Summary {
    fn json(&self, topic: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut object = JsonObject::begin(&mut out);
        object.unescaped("topic", topic).number("count", self.events);
        if let Some(last) = &self.last {
            object.number("seq", last.seq).string("cursor", &last.cursor);
        }
        object.end();
        out
    }
}

/// A line on a terminal that shows the progress of a long publish and is redrawn in place.
struct ProgressLine {
    started: Instant,
    /// `None` when stderr is not a terminal.
    next_update: Option<Instant>,
    is_shown: bool,
}

/// The time before the first progress line, and between two updates.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

impl ProgressLine {
    fn new() -> ProgressLine {
        let started = Instant::now();
        let next_update = std::io::stderr().is_terminal().then(|| started + PROGRESS_INTERVAL);
        ProgressLine { started, next_update, is_shown: false }
    }

    fn update(&mut self, summary: &Summary) {
        let now = Instant::now();
        if self.next_update.is_none_or(|at| now < at) {
            return;
        }
        self.next_update = Some(now + PROGRESS_INTERVAL);
        self.is_shown = true;
        self.write(summary, "");
    }

    fn finish(&mut self, summary: &Summary) {
        if self.is_shown {
            self.write(summary, "\n");
        }
    }

    fn write(&self, summary: &Summary, end: &str) {
        let elapsed_ms = self.started.elapsed().as_millis().max(1);
        let rate = u128::from(summary.events) * 1_000 / elapsed_ms;
        let (events, kib) = (summary.events, summary.bytes >> 10);
        // The progress is optional: ignore a closed stderr.
        let _ = std::io::stderr().write_all(
            format!("\r\x1b[K{events} events, {kib} KiB, {rate} events/s{end}").as_bytes(),
        );
    }
}
