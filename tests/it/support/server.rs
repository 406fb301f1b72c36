//! The real program as a child process, on a port that the system chooses.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use super::{Client, Response, send_signal, wait_until};

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

/// A command that runs the program under test.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longpoll"));
    command.stdin(Stdio::null());
    command
}

/// A command that runs the program as systemd does: with this socket as descriptor 3, and with
/// environment variables such as `WATCHDOG_PID=$$`, in which `$$` is the process id of the program.
pub fn systemd_command(socket: OwnedFd, variables: &str) -> Command {
    let script = format!(
        "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 {variables}; exec \"$0\" \"$@\""
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(program().get_program()).stdin(socket);
    shell
}

impl Server {
    /// Starts the server with these flags and without wait jitter.
    pub fn start(flags: &[&str]) -> Server {
        let mut command = program();
        command.args(["--listen", "127.0.0.1:0", "--wait-jitter", "0", "--log", "error"]);
        Server::spawn(command.args(flags))
    }

    /// Starts the server with a command whose first listener is TCP.
    pub fn spawn(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .and_then(|address| address.parse().ok())
            .unwrap_or_else(|| panic!("the first line is not `listening on http://…`: {line:?}"));
        Server { child, address }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends a GET request on a new connection.
    pub fn get(&self, target: &str) -> Response {
        self.connect().get(target)
    }

    /// Publishes a text event.
    pub fn publish(&self, topic: &str, text: &str) -> Response {
        let response = self.connect().post(&format!("/topics/{topic}"), "", text);
        assert_eq!(response.status, 201, "{response:?}");
        response
    }

    /// Publishes an event whose page, 6 MiB of JSON, exceeds all buffers of a connection. The
    /// server must accept events of 1 MiB.
    pub fn publish_large_event(&self) {
        self.publish("large", &"\u{1}".repeat(1 << 20));
    }

    /// Occupies a connection with a response that the server cannot finish writing, because the
    /// client does not read it. Retries while the server is full.
    pub fn occupy_connection(&self) -> Client {
        let mut client = self.connect();
        wait_until("a connection is admitted", || {
            client = self.connect();
            client.shrink_receive_buffer().send_request("GET", "/topics/large");
            client.response_head_or_close().is_some_and(|head| head.status == 200)
        });
        client
    }

    /// Publishes the texts `0`, `1`, … `count - 1`; returns the last response.
    pub fn publish_many(&self, topic: &str, count: usize) -> Response {
        let mut client = self.connect();
        let target = format!("/topics/{topic}");
        let responses = (0..count).map(|n| client.post(&target, "", n.to_string()));
        responses
            .inspect(|response| assert_eq!(response.status, 201, "{response:?}"))
            .last()
            .unwrap()
    }

    /// The value of a metric; `name` is what follows `longpoll_`, with any labels.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics");
        let name = format!("longpoll_{name} ");
        let line = page.text().lines().find_map(|line| line.strip_prefix(&name));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// Waits until this number of polls is held.
    pub fn wait_until_held(&self, polls: usize) {
        wait_until("the polls are held", || self.metric("polls_held") == polls as f64);
    }

    /// Sends a poll on a new connection and waits until it is held. No other poll may start or end
    /// meanwhile.
    pub fn hold_poll(&self, target: &str) -> Client {
        let before = self.metric("polls_held");
        let mut client = self.connect();
        client.send_request("GET", target);
        wait_until("the poll is held", || self.metric("polls_held") > before);
        client
    }

    /// Sends a signal by its number.
    pub fn signal(&self, signal: i32) {
        send_signal(self.pid(), signal);
    }

    /// The stderr of a server that was spawned with a pipe for it.
    pub fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("a pipe")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the exit; returns the status and the unread rest of stdout.
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
