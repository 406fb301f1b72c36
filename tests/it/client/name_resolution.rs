//! Guards the resolution of the server's name: the system's resolver has no deadline and cannot be
//! interrupted, but the client has one and can.

use std::fs::File;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};

use crate::support::command::RunningCommand;
use crate::support::temp_dir::TempDir;
use crate::support::{program, wait_until};

const SIGTERM: i32 = 15;

/// A running command whose resolver hangs until this is dropped.
struct HangingResolver {
    command: RunningCommand,
    _aliases: File,
    _dir: TempDir,
}

impl HangingResolver {
    /// Starts a command with a server whose name has to be resolved. The C library reads the file in
    /// `HOSTALIASES` first; here it is a FIFO into which nothing is written. `None` where the library
    /// does without that file, for the test to be skipped.
    fn start(args: &[&str]) -> Option<HangingResolver> {
        let dir = TempDir::new();
        let fifo = dir.path("aliases");
        mknodat(CWD, &*fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let command = RunningCommand::spawn(program().args(args).env("HOSTALIASES", &fifo));
        let mut aliases = None;
        wait_until("the library opens the file, or resolves without it", || {
            // Fails until the other end is opened.
            aliases = open(&*fifo, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()).ok();
            aliases.is_some() || command.has_error_line()
        });
        let Some(aliases) = aliases else {
            println!("SKIPPED: the resolver of this system does not read HOSTALIASES");
            return None;
        };
        Some(HangingResolver { command, _aliases: aliases.into(), _dir: dir })
    }
}

#[test]
fn signal_ends_the_resolution_of_a_name() {
    let url = "http://server-without-address:8080";
    let publish = &["publish", url, "news", "x"];
    for (args, code, message) in
        [(&["follow", url, "news"][..], 0, ""), (publish, 1, "stopped before the server answered")]
    {
        let Some(hanging) = HangingResolver::start(args) else { return };
        hanging.command.signal(SIGTERM);
        let (exited, lines, errors) = hanging.command.finish();
        assert_eq!((exited, lines.len()), (Some(code), 0), "{errors}");
        assert_eq!(errors.trim_start_matches("longpoll: "), message);
    }
}

#[test]
fn resolution_of_a_name_has_a_deadline() {
    let url = "http://server-without-address:8080";
    let Some(hanging) = HangingResolver::start(&["follow", url, "news"]) else { return };
    let error = hanging.command.error_line("trying again");
    assert!(error.contains(url) && error.contains("not resolved in time"), "{error}");
}
