//! The real program, on a port that the system picks.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use super::{Answer, Client, until};

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

/// The program under test.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longpoll"));
    command.stdin(Stdio::null());
    command
}

/// The program as systemd starts it: with this socket as descriptor 3, and with variables, such as
/// `WATCHDOG_PID=$$`, in which `$$` is its own process.
pub fn service(socket: OwnedFd, variables: &str) -> Command {
    let script = format!(
        "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 {variables}; exec \"$0\" \"$@\""
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(program().get_program()).stdin(socket);
    shell
}

impl Server {
    /// Starts the server with these flags. Waits are not shortened unless the flags say so.
    pub fn start(flags: &[&str]) -> Server {
        let mut command = program();
        command.args(["--listen", "127.0.0.1:0", "--wait-jitter", "0", "--log", "error"]);
        Server::spawn(command.args(flags))
    }

    /// Starts it with a command that listens on TCP first.
    pub fn spawn(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .and_then(|address| address.parse().ok())
            .unwrap_or_else(|| panic!("not the promised line: {line:?}"));
        Server { child, address }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// A request of its own connection.
    pub fn get(&self, target: &str) -> Answer {
        self.connect().get(target)
    }

    /// Publishes a text.
    pub fn publish(&self, topic: &str, text: &str) -> Answer {
        let answer = self.connect().post(&format!("/topics/{topic}"), "", text);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer
    }

    /// Publishes what makes one answer too large for all buffers of a connection, 6 MiB of JSON. The
    /// server has to take events of 1 MiB.
    pub fn publish_much(&self) {
        self.publish("much", &"\u{1}".repeat(1 << 20));
    }

    /// Takes a place, however crowded the server is, with an answer that cannot be written because
    /// nobody reads it.
    pub fn take_a_place(&self) -> Client {
        let mut client = self.connect();
        until("there is a place", || {
            client = self.connect();
            client.receive_little().ask("GET", "/topics/much");
            client.head_or_end().is_some_and(|answer| answer.status == 200)
        });
        client
    }

    /// Publishes `count` texts, `0` onward, and returns the last answer.
    pub fn publish_many(&self, topic: &str, count: usize) -> Answer {
        let mut client = self.connect();
        let target = format!("/topics/{topic}");
        let answers = (0..count).map(|n| client.post(&target, "", n.to_string()));
        answers.inspect(|answer| assert_eq!(answer.status, 201, "{answer:?}")).last().unwrap()
    }

    /// A metric's value, by its name (and labels) after `longpoll_`.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics");
        let name = format!("longpoll_{name} ");
        let line = page.text().lines().find_map(|line| line.strip_prefix(&name));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// Waits until so many polls are held.
    pub fn until_held(&self, polls: usize) {
        until("polls held", || self.metric("polls_held") == polls as f64);
    }

    /// Sends a poll on a connection of its own and waits until it is held, as the only one.
    pub fn hold(&self, target: &str) -> Client {
        let before = self.metric("polls_held");
        let mut client = self.connect();
        client.ask("GET", target);
        until("the poll is held", || self.metric("polls_held") > before);
        client
    }

    /// Sends a signal by its number.
    pub fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// What it writes to stderr, when it was spawned with a pipe for that.
    pub fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("a pipe")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end, and returns what was left on stdout.
    pub fn wait(&mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }

    /// A number from `/proc/PID/status`.
    pub fn status_number(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        let digits: String = line.chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
