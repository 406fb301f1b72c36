//! `longpoll follow`: print or run, then keep the place.
//!
//! In this order, so that a crash in between repeats an event and never skips one. The place that
//! is kept is the cursor of a whole answer; so an answer is asked to hold no more than what is
//! dealt with before the place is kept.

use std::io::Write as _;

use rustix::event::{PollFd, PollFlags};

use super::args::{FollowAsk, OnGap};
use super::state::StateFile;
use super::{Failure, exec, tell, tell_trouble};
use crate::client::{Error, Follow, Page};
use crate::limits::MAX_PAGE_EVENTS;
use crate::shutdown::Shutdown;

/// How a page was dealt with.
enum Dealt {
    Done,
    /// It was not: told to stop, or nobody listens any more.
    Stopped,
}

pub fn run(ask: &FollowAsk, stop: &Shutdown) -> Result<(), Failure> {
    let mut subscription = ask.subscription.clone();
    subscription.stop = Some(stop.clone());
    let mut state = match &ask.state {
        Some(path) => Some(StateFile::open(path, &subscription)?),
        None => None,
    };
    if let Some(cursor) = state.as_ref().and_then(StateFile::cursor) {
        cursor.clone_into(&mut subscription.since);
    }
    let mut follow = Follow::start(subscription)?.on_trouble(tell_trouble);
    if ask.exec.is_none() {
        stop_with_the_reader(stop)?;
    }
    let mut left = ask.count.unwrap_or(u64::MAX);
    while left > 0 {
        // The cursor that is kept is that of a whole answer. So an answer holds no more than what
        // is dealt with before it is kept: for a command that is one event.
        let most = if ask.exec.is_some() { 1 } else { MAX_PAGE_EVENTS };
        follow.set_limit(left.min(most as u64) as usize);
        let page = match follow.page() {
            Ok(Some(page)) => page,
            Ok(None) => return Ok(()),
            Err(Error::Gap(gap)) if ask.on_gap == OnGap::Skip => {
                tell(format_args!("{gap}; going on with the oldest that is left"));
                continue;
            }
            Err(Error::Gap(gap)) => {
                tell(format_args!("{gap}; --on-gap skip would go on with the oldest that is left"));
                return Err(Failure::Gap);
            }
            Err(error) => return Err(error.into()),
        };
        match deal(ask, &page, stop)? {
            Dealt::Done => {}
            Dealt::Stopped => return Ok(()),
        }
        if let Some(state) = &mut state {
            state.save(&page.next)?;
        }
        left -= page.events.len() as u64;
    }
    Ok(())
}

/// Prints the events of a page, or runs the command for each.
fn deal(ask: &FollowAsk, page: &Page, stop: &Shutdown) -> Result<Dealt, Failure> {
    let Some(command) = &ask.exec else {
        return print(&ask.format.lines(page));
    };
    for event in &page.events {
        if !exec::run(command, event, &ask.format.input(event, page), stop) {
            return Ok(Dealt::Stopped);
        }
    }
    Ok(Dealt::Done)
}

fn print(lines: &[u8]) -> Result<Dealt, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(lines).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Dealt::Done),
        // Such as head, which has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Dealt::Stopped),
        Err(error) => Err(Failure::Stuck(format!("stdout: {error}"))),
    }
}

/// Stops when the other end of stdout is closed, and not only at the event after that.
fn stop_with_the_reader(stop: &Shutdown) -> std::io::Result<()> {
    let stop = stop.clone();
    let watch = move || {
        // No flags: only an end or an error makes it ready.
        let stdout = std::io::stdout();
        if stop.wait_for(&PollFd::new(&stdout, PollFlags::empty()), None).is_ok() {
            stop.trigger();
        }
    };
    std::thread::Builder::new().name("stdout".into()).spawn(watch).map(drop)
}
