//! A command for each event.
//!
//! The event is on its stdin and its fields are in the environment: nothing that a publisher has
//! sent is ever part of the command's text.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::tell_trouble;
use crate::client::Event;
use crate::client::backoff::Backoff;
use crate::shutdown::Shutdown;

/// Runs the command until it succeeds; says whether it did before the order to stop.
pub fn run(command: &OsStr, event: &Event, input: &[u8], stop: &Shutdown) -> bool {
    let mut backoff = Backoff::default();
    loop {
        let why = match once(command, event, input) {
            Ok(()) => return true,
            Err(why) => why,
        };
        let pause = backoff.next(Duration::ZERO);
        tell_trouble(&format!("event {}: the command failed ({why})", event.seq), pause);
        if stop.wait_until(Instant::now() + pause) {
            return false;
        }
    }
}

fn once(command: &OsStr, event: &Event, input: &[u8]) -> Result<(), String> {
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .env("LONGPOLL_SEQ", event.seq.to_string())
        .env("LONGPOLL_TOPIC", &*event.topic)
        .env("LONGPOLL_TIME", &event.time)
        .env("LONGPOLL_TYPE", event.tag.as_deref().unwrap_or_default())
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|e| format!("/bin/sh: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command need not read its event.
        let _ = stdin.write_all(input);
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}
