//! `longpoll publish`: one event, or what comes on stdin.
//!
//! When it fails on the way, it says which lines are published and which are not: whoever has to go
//! on can.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::args::{LineKind, PublishAsk, Source};
use super::input::Input;
use super::{Failure, tell, tell_trouble};
use crate::client::{Error, Message, Publisher, Receipt};
use crate::json::JsonObject;
use crate::shutdown::Shutdown;

pub fn run(ask: &PublishAsk, stop: &Shutdown) -> Result<(), Failure> {
    let mut publisher = Publisher::with_token(&ask.url, ask.token_file.clone())?
        .retry_for(ask.retry_for)
        .stop_by(stop.clone())
        .on_trouble(tell_trouble);
    let mut message = match &ask.source {
        Source::Text(text) => Message::text(text.clone()),
        Source::Json(json) => Message::json(json.clone()),
        Source::Whole => Message::text(Input::new(stop.clone()).whole()?),
        Source::Lines(kind) => return lines(ask, *kind, &mut publisher, stop),
    };
    message.tag.clone_from(&ask.tag);
    message.key.clone_from(&ask.key);
    let receipt = publisher.publish(&ask.topic, &message)?;
    print(receipt.json.into_bytes())
}

/// What was published so far.
#[derive(Default)]
struct Sum {
    events: u64,
    bytes: u64,
    last: Option<Receipt>,
}

fn lines(
    ask: &PublishAsk,
    kind: LineKind,
    publisher: &mut Publisher,
    stop: &Shutdown,
) -> Result<(), Failure> {
    let mut input = Input::new(stop.clone());
    let mut sum = Sum::default();
    let mut progress = Progress::new();
    let done = loop {
        let batch = match input.batch(kind) {
            Ok(Some(batch)) => batch,
            Ok(None) => break Ok(()),
            Err(why) => break Err(why),
        };
        let mut message = Message::lines(batch.body);
        message.tag.clone_from(&ask.tag);
        match publisher.publish(&ask.topic, &message) {
            Ok(receipt) => {
                sum.events += batch.events;
                sum.bytes += batch.bytes;
                sum.last = Some(receipt);
                progress.draw(&sum);
            }
            Err(error) => break Err(refused(&error, batch.first, batch.last)),
        }
    };
    progress.end(&sum);
    if let Err(failure) = done {
        tell(format_args!("{} events are published", sum.events));
        return Err(failure);
    }
    print(sum.json(&ask.topic))
}

fn refused(error: &Error, first: u64, last: u64) -> Failure {
    Failure::Stuck(format!("lines {first} to {last} of the input: {error}"))
}

fn print(mut line: Vec<u8>) -> Result<(), Failure> {
    line.push(b'\n');
    match std::io::stdout().write_all(&line) {
        // It is published, whether somebody wants to read that or not.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Stuck(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

impl Sum {
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

/// A line that is drawn over and over, on a terminal, once it takes long enough to ask oneself.
struct Progress {
    started: Instant,
    /// Nothing when nobody would see it.
    next_at: Option<Instant>,
    is_drawn: bool,
}

/// How long a publish may take without saying what it does, and then between two lines.
const SILENT: Duration = Duration::from_millis(500);

impl Progress {
    fn new() -> Progress {
        let started = Instant::now();
        let next_at = std::io::stderr().is_terminal().then(|| started + SILENT);
        Progress { started, next_at, is_drawn: false }
    }

    fn draw(&mut self, sum: &Sum) {
        let now = Instant::now();
        if self.next_at.is_none_or(|at| now < at) {
            return;
        }
        self.next_at = Some(now + SILENT);
        self.is_drawn = true;
        self.write(sum, "");
    }

    fn end(&mut self, sum: &Sum) {
        if self.is_drawn {
            self.write(sum, "\n");
        }
    }

    fn write(&self, sum: &Sum, end: &str) {
        let took = self.started.elapsed().as_millis().max(1);
        let rate = u128::from(sum.events) * 1_000 / took;
        let (events, kib) = (sum.events, sum.bytes >> 10);
        // Nobody is left to tell when stderr is gone.
        let _ = std::io::stderr().write_all(
            format!("\r\x1b[K{events} events, {kib} KiB, {rate} events/s{end}").as_bytes(),
        );
    }
}
