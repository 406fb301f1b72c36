//! A server whose file operations may fail, as a child process. Every wait ends at a guard: a
//! server that hangs is a result, not an obstacle.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::shim::FaultControl;
use crate::support::{program, send_signal};

/// No publish, DELETE, poll, start or end takes longer.
pub const HANG_GUARD: Duration = Duration::from_secs(20);

/// The files of one trial.
pub struct TrialFiles {
    pub directory: PathBuf,
    pub shim: PathBuf,
}

impl TrialFiles {
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The names in the data directory: of segments, and of other files.
    pub fn in_data(&self) -> (Vec<String>, Vec<String>) {
        let entries = std::fs::read_dir(self.data()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.partition(|name| Path::new(name).extension().is_some_and(|end| end == "log"))
    }

    /// What the servers of the trial print on stderr.
    pub fn server_log(&self) -> PathBuf {
        self.directory.join("stderr")
    }
}

/// A running server; killed when dropped.
pub struct FaultyServer {
    child: KillOnDrop,
    pub address: SocketAddr,
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_with_guard(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + HANG_GUARD;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Why there is no server.
pub enum StartFailure {
    Hung,
    Exited(Option<i32>),
}

impl FaultyServer {
    pub fn start(
        files: &TrialFiles,
        control: &FaultControl,
        flags: &[&str],
    ) -> Result<FaultyServer, StartFailure> {
        let log = OpenOptions::new().append(true).create(true).open(files.server_log()).unwrap();
        let mut command = program();
        command.args(["--listen", "127.0.0.1:0", "--wait-jitter", "0", "--data"]);
        command.arg(files.data()).args(flags);
        command.env("LD_PRELOAD", &files.shim).env("LONGPOLL_FAULT_DIR", files.data());
        command.env("LONGPOLL_FAULT_CONTROL", control.path());
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, line) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            let _ = sender.send(line);
        });
        let mut child = KillOnDrop(child);
        let Ok(line) = line.recv_timeout(HANG_GUARD) else { return Err(StartFailure::Hung) };
        let Some(address) = line.trim().strip_prefix("listening on http://") else {
            let status = wait_with_guard(&mut child.0).ok_or(StartFailure::Hung)?;
            return Err(StartFailure::Exited(status.code()));
        };
        let address = address.parse().unwrap();
        Ok(FaultyServer { child, address })
    }

    pub fn kill(mut self) {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
    }

    /// Ends the server in order; `None` if it does not end.
    pub fn end(mut self) -> Option<ExitStatus> {
        send_signal(self.child.0.id(), 15);
        wait_with_guard(&mut self.child.0)
    }
}

/// The result of `longpoll inspect`.
pub struct Inspection {
    pub succeeded: bool,
    pub text: String,
}

pub fn inspect(data: &Path) -> Inspection {
    let output = Command::new(program().get_program()).arg("inspect").arg(data).output().unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Inspection { succeeded: output.status.success(), text }
}
