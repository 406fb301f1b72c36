//! The client commands as child processes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use super::temp_dir::TempDir;
use super::{TEST_TIMEOUT, program, send_signal};

/// A running command; killed when dropped.
pub struct RunningCommand {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

/// The lines of a stream, read on a thread so that the child never blocks on a full pipe.
fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            line.clear();
            if send.send(text).is_err() {
                return;
            }
        }
    });
    lines
}

impl RunningCommand {
    /// Starts the program with these arguments.
    pub fn start(args: &[&str]) -> RunningCommand {
        RunningCommand::spawn(program().args(args))
    }

    /// Starts this command.
    pub fn spawn(command: &mut Command) -> RunningCommand {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let lines = lines_of(child.stdout.take().unwrap());
        let errors = lines_of(child.stderr.take().unwrap());
        RunningCommand { child, lines, errors }
    }

    /// The next line on stdout.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(TEST_TIMEOUT).expect("a line on stdout")
    }

    pub fn has_line(&self) -> bool {
        self.lines.try_recv().is_ok()
    }

    pub fn has_error_line(&self) -> bool {
        self.errors.try_recv().is_ok()
    }

    /// The next `count` lines on stdout.
    pub fn take(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }

    /// The next line on stderr that contains `part`.
    pub fn error_line(&self, part: &str) -> String {
        loop {
            let line = self
                .errors
                .recv_timeout(TEST_TIMEOUT)
                .unwrap_or_else(|_| panic!("no line on stderr contains {part:?}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    pub fn stdin(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().expect("stdin is open")
    }

    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    pub fn signal(&self, signal: i32) {
        send_signal(self.child.id(), signal);
    }

    /// Closes stdin and waits for the exit; returns the exit code and the unread rest of stdout and
    /// stderr.
    pub fn finish(mut self) -> (Option<i32>, Vec<String>, String) {
        self.close_stdin();
        let mut rest = Vec::new();
        loop {
            match self.lines.recv_timeout(TEST_TIMEOUT) {
                Ok(line) => rest.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the command does not exit; it printed {rest:?}")
                }
            }
        }
        let errors: Vec<_> = self.errors.iter().collect();
        (self.child.wait().unwrap().code(), rest, errors.join("\n"))
    }

    /// Kills the command with SIGKILL; returns the unread lines that it had printed.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.iter().collect()
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a child process to exit, at most [`TEST_TIMEOUT`].
pub fn wait_for_exit(child: Child) -> Output {
    let pid = child.id();
    let (send, output) = channel();
    std::thread::spawn(move || send.send(child.wait_with_output().unwrap()));
    output.recv_timeout(TEST_TIMEOUT).unwrap_or_else(|_| {
        send_signal(pid, 9);
        panic!("the process does not exit")
    })
}

/// Runs a command until it exits.
pub fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

/// Runs a command until it exits, with `input` on stdin.
pub fn run_with_stdin(args: &[&str], input: impl AsRef<[u8]>) -> Output {
    let dir = TempDir::new();
    std::fs::write(dir.path("stdin"), input).unwrap();
    program().args(args).stdin(File::open(dir.path("stdin")).unwrap()).output().unwrap()
}

/// Checks that a command failed with this exit code and that its message contains all `parts`.
pub fn assert_failure(output: &Output, code: i32, parts: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

/// The numbers below `count`, one on a line.
pub fn numbered_lines(count: u32) -> String {
    (0..count).map(|n| n.to_string() + "\n").collect()
}
