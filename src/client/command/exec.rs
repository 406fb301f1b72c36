//! `longpoll follow --exec`: a shell command for each event.
//!
//! The event is on the command's stdin and its fields are in the environment. Nothing from a
//! publisher ever becomes part of the command's text.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::error::print_retry;
use crate::client::backoff::Backoff;
use crate::client::event::ReceivedEvent;
use crate::shutdown::Shutdown;

/// Runs the command until it succeeds. Returns false when the shutdown signal came first.
pub fn run_until_success(
    command: &OsStr,
    event: &ReceivedEvent,
    stdin: &[u8],
    shutdown: &Shutdown,
) -> bool {
    let mut backoff = Backoff::default();
    loop {
        let why = match run_once(command, event, stdin) {
            Ok(()) => return true,
            Err(why) => why,
        };
        let pause = backoff.next(Duration::ZERO);
        print_retry(&format!("event {}: the command failed ({why})", event.seq), pause);
        if shutdown.wait_until(Instant::now() + pause) {
            return false;
        }
    }
}

fn run_once(command: &OsStr, event: &ReceivedEvent, stdin: &[u8]) -> Result<(), String> {
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .env("LONGPOLL_SEQ", event.seq.to_string())
        .env("LONGPOLL_TOPIC", &*event.topic)
        .env("LONGPOLL_TIME", &event.time)
        .env("LONGPOLL_TYPE", event.event_type.as_deref().unwrap_or_default())
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|e| format!("/bin/sh: {e}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A command may exit without reading its event.
        let _ = pipe.write_all(stdin);
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}
