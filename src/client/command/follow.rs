//! `longpoll follow`: print events or run a command for each, then save the cursor.
//!
//! In this order, a crash in between repeats events and never skips one. Only the cursor of a whole
//! page can be saved, so a page holds no more events than may be repeated.

use std::io::Write as _;

use rustix::event::{PollFd, PollFlags};

use super::args::{FollowArgs, GapAction};
use super::error::{CommandError, print_error, print_retry};
use super::exec::run_until_success;
use super::state::StateFile;
use crate::client::error::Error;
use crate::client::event::ReceivedPage;
use crate::client::follow::Follow;
use crate::limits::MAX_PAGE_EVENTS;
use crate::shutdown::Shutdown;

/// Whether a page was processed.
enum PageOutcome {
    Processed,
    /// Not processed: the shutdown signal was given, or stdout is closed.
    Stopped,
}

pub fn run(args: &FollowArgs, shutdown: &Shutdown) -> Result<(), CommandError> {
    let mut subscription = args.subscription.clone();
    subscription.shutdown = Some(shutdown.clone());
    let mut state = match &args.state {
        Some(path) => Some(StateFile::open(path, &subscription)?),
        None => None,
    };
    if let Some(cursor) = state.as_ref().and_then(StateFile::cursor) {
        cursor.clone_into(&mut subscription.since);
    }
    let mut follow = Follow::start(subscription)?.on_retry(print_retry);
    if args.exec.is_none() {
        stop_when_stdout_closes(shutdown)?;
    }
    // Save the cursor after each command: then a crash repeats no command that has succeeded.
    let page_limit = if args.exec.is_some() { 1 } else { MAX_PAGE_EVENTS };
    let mut remaining = args.count.unwrap_or(u64::MAX);
    while remaining > 0 {
        follow.set_limit(remaining.min(page_limit as u64) as usize);
        let page = match follow.next_page() {
            Ok(Some(page)) => page,
            Ok(None) => return Ok(()),
            Err(Error::Gap(gap)) if args.on_gap == GapAction::Skip => {
                print_error(format_args!("{gap}; going on with the oldest retained event"));
                continue;
            }
            Err(Error::Gap(gap)) => {
                let hint = "use --on-gap skip to go on with the oldest retained event";
                print_error(format_args!("{gap}; {hint}"));
                return Err(CommandError::Gap);
            }
            Err(error) => return Err(error.into()),
        };
        match process(args, &page, shutdown)? {
            PageOutcome::Processed => {}
            PageOutcome::Stopped => return Ok(()),
        }
        if let Some(state) = &mut state {
            state.save(&page.next)?;
        }
        remaining -= page.events.len() as u64;
    }
    Ok(())
}

/// Prints the events of a page, or runs the command for each.
fn process(
    args: &FollowArgs,
    page: &ReceivedPage,
    shutdown: &Shutdown,
) -> Result<PageOutcome, CommandError> {
    let Some(command) = &args.exec else {
        return print(&args.format.encode_page(page));
    };
    for event in &page.events {
        let stdin = args.format.encode_for_command(event, page);
        if !run_until_success(command, event, &stdin, shutdown) {
            return Ok(PageOutcome::Stopped);
        }
    }
    Ok(PageOutcome::Processed)
}

fn print(lines: &[u8]) -> Result<PageOutcome, CommandError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(lines).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(PageOutcome::Processed),
        // A reader such as `head` closes the pipe once it has enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(PageOutcome::Stopped),
        Err(error) => Err(CommandError::Failed(format!("stdout: {error}"))),
    }
}

/// Triggers the shutdown as soon as the reader of stdout closes its end. A failed write alone would
/// detect that only at the next event.
fn stop_when_stdout_closes(shutdown: &Shutdown) -> std::io::Result<()> {
    let shutdown = shutdown.clone();
    let watch = move || {
        // Without flags, poll(2) reports only a hang-up or an error.
        let stdout = std::io::stdout();
        if shutdown.wait_for(&PollFd::new(&stdout, PollFlags::empty()), None).is_ok() {
            shutdown.trigger();
        }
    };
    std::thread::Builder::new().name("stdout".into()).spawn(watch).map(drop)
}
