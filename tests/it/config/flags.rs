//! Guards the configuration: each flag and variable has its effect, and an invalid one is refused
//! with what is wrong and what is allowed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};

use crate::support::{Client, Server, program, systemd_command, wait_until};

/// Each flag with a valid and an invalid value.
const FLAGS: [(&str, &str, &str); 16] = [
    ("listen", "127.0.0.1:0", "nowhere"),
    ("max-connections", "100", "many"),
    ("max-polls", "50", "0"),
    ("max-wait", "5m", "5 minutes"),
    ("wait-jitter", "5", "101"),
    ("max-event", "2KiB", "2KB"),
    ("max-head", "2048", "-1"),
    ("max-topics", "7", "7.5"),
    ("retain-events", "10", "0"),
    ("retain-age", "1.5h", "forever"),
    ("retain-bytes", "1MiB", "1MiB "),
    ("head-timeout", "500ms", "0"),
    ("body-timeout", "7", "7sec"),
    ("idle-timeout", "1m", "-1s"),
    ("write-timeout", "3s", ""),
    ("log", "error", "loud"),
];

fn variable(flag: &str) -> String {
    format!("LONGPOLL_{}", flag.replace('-', "_").to_ascii_uppercase())
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

/// Checks a refusal to start: its exit code, and that its message contains all `parts`.
fn assert_refused(output: &Output, code: i32, parts: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(output.stdout.is_empty());
    for word in parts {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

/// A running server with listeners of any kind; killed when dropped.
struct ChildGuard(Child);

impl ChildGuard {
    /// Starts the server and reads this number of lines from its stdout.
    fn start(args: &[&str], lines: usize) -> (ChildGuard, Vec<String>) {
        let mut child = program().args(args).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let lines = stdout.lines().take(lines).map(Result::unwrap).collect();
        (ChildGuard(child), lines)
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A path for a unix socket; removed when dropped.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> SocketPath {
        let path = std::env::temp_dir().join(format!("longpoll-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        SocketPath(path)
    }

    fn listen(&self) -> String {
        format!("unix:{}", self.0.display())
    }

    /// Sends a GET request to the socket; returns the response as text.
    fn get(&self, target: &str) -> String {
        let mut stream = UnixStream::connect(&self.0).unwrap();
        let close = "Host: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("GET {target} HTTP/1.1\r\n{close}").as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn help_fits_one_screen_and_names_every_flag() {
    let help = run(&["--help"]);
    assert!(help.status.success() && help.stderr.is_empty());
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.lines().count() <= 40, "{} lines", text.lines().count());
    assert!(text.lines().all(|line| line.chars().count() <= 100));
    for (flag, ..) in FLAGS {
        assert!(text.contains(&format!("--{flag} ")), "{flag}");
    }
    for default in
        ["127.0.0.1:8080", "512", "55s", "64KiB", "16KiB", "10000", "1000", "24h", "64MiB"]
    {
        assert!(text.contains(default), "{default}");
    }
    assert!(text.contains("LONGPOLL_"));
    assert_eq!(String::from_utf8(run(&["-h"]).stdout).unwrap(), text);
    assert_eq!(String::from_utf8(run(&["serve", "--help"]).stdout).unwrap(), text);
}

#[test]
fn version_is_one_line() {
    for flag in ["--version", "-V"] {
        let version = run(&[flag]);
        assert!(version.status.success());
        let line = format!("longpoll {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(version.stdout).unwrap(), line);
    }
}

#[test]
fn every_flag_works_as_an_argument_and_from_the_environment() {
    for (flag, good, _) in FLAGS {
        assert_eq!(Server::start(&[&format!("--{flag}={good}")]).get("/health").status, 200);
        let server = Server::start(&[&format!("--{flag}"), good]);
        assert_eq!(server.get("/health").status, 200, "{flag}");
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0"]).env(variable(flag), good);
        assert_eq!(Server::spawn(command.stderr(Stdio::null())).get("/health").status, 200);
    }
}

#[test]
fn invalid_value_is_refused_with_the_flag_the_value_and_the_allowed_ones() {
    for (flag, _, bad) in FLAGS {
        assert_refused(
            &run(&[&format!("--{flag}"), bad]),
            2,
            &[&format!("--{flag}"), bad, "expected"],
        );
        let output = program().env(variable(flag), bad).output().unwrap();
        assert_refused(&output, 2, &[&variable(flag), bad, "expected"]);
    }
}

#[test]
fn unknown_flag_is_refused() {
    assert_refused(&run(&["--max-wiat", "5s"]), 2, &["--max-wiat"]);
    assert_refused(&run(&["--max-wait"]), 2, &["--max-wait"]);
    assert_refused(&run(&["start"]), 2, &["start"]);
    assert_refused(&run(&["serve", "8080"]), 2, &["8080"]);
    assert_refused(&run(&["-p", "8080"]), 2, &["-p"]);
}

#[test]
fn contradicting_values_are_refused() {
    let polls = run(&["--max-connections", "8", "--max-polls", "8"]);
    assert_refused(&polls, 2, &["--max-polls", "--max-connections", "8"]);
    let bytes = run(&["--max-event", "1MiB", "--retain-bytes", "1MiB"]);
    assert_refused(&bytes, 2, &["--retain-bytes", "--max-event"]);
}

#[test]
fn argument_overrides_the_environment_which_overrides_the_default() {
    let wait = |args: &[&str]| {
        let mut command = program();
        command.env("LONGPOLL_MAX_WAIT", "10ms").env("LONGPOLL_WAIT_JITTER", "0");
        let server = Server::spawn(command.args(["--listen", "127.0.0.1:0"]).args(args));
        server.get("/topics/news").header("Poll-Wait").unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(wait(&["--log", "error"]), 0.01);
    assert_eq!(wait(&["--log", "error", "--max-wait", "20ms"]), 0.02);
    assert_eq!(wait(&["--log", "error", "--max-wait", "5", "--max-wait", "30ms"]), 0.03);
}

#[test]
fn several_listeners_serve_the_same_topics() {
    let path = SocketPath::new("several");
    let unix = path.listen();
    let tcp = "127.0.0.1:0";
    let args = ["--log", "error", "--listen", tcp, "--listen", &unix, "--listen", tcp];
    let (_running, lines) = ChildGuard::start(&args, 3);
    assert_eq!(lines[1], format!("listening on {unix}"));
    let [first, third] = [0, 2].map(|line| {
        let address = lines[line].strip_prefix("listening on http://").unwrap();
        Client::connect(address.parse().unwrap())
    });
    let [mut first, mut third] = [first, third];
    assert_eq!(first.post("/topics/news", "", "hello").status, 201);
    assert_eq!(third.get("/topics/news").data(), ["hello"]);
    assert!(path.get("/topics/news?format=raw").ends_with("\r\n\r\nhello"));
}

#[test]
fn environment_lists_listeners_with_commas_and_an_argument_replaces_all() {
    let mut command = program();
    command.env("LONGPOLL_LISTEN", "127.0.0.1:0,127.0.0.1:0").env("LONGPOLL_LOG", "error");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let _running = ChildGuard(child);
    assert!(stdout.lines().take(2).all(|line| line.unwrap().starts_with("listening on http://")));

    let mut command = program();
    command.env("LONGPOLL_LISTEN", "192.0.2.1:1,192.0.2.1:2").args(["--log", "error"]);
    let server = Server::spawn(command.args(["--listen", "127.0.0.1:0"]));
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn unix_socket_is_removed_at_the_exit_and_replaced_if_it_is_stale() {
    let path = SocketPath::new("stale");
    let args = ["--log", "error", "--listen", &path.listen()];
    let (running, _) = ChildGuard::start(&args, 1);
    assert!(path.get("/health").starts_with("HTTP/1.1 200 "));
    // The first server is listening.
    assert_refused(&run(&args), 1, &[&path.listen()]);
    drop(running);
    assert!(path.0.exists(), "a killed server leaves its socket");
    let (mut running, lines) = ChildGuard::start(&args, 1);
    assert_eq!(lines, [format!("listening on {}", path.listen())]);
    assert!(path.get("/health").starts_with("HTTP/1.1 200 "));
    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(running.0.wait().unwrap().success());
    assert!(!path.0.exists());
}

#[test]
fn file_that_is_not_a_socket_is_not_removed() {
    let path = SocketPath::new("file");
    std::fs::write(&path.0, "precious").unwrap();
    assert_refused(&run(&["--listen", &path.listen()]), 1, &[&path.listen()]);
    assert_eq!(std::fs::read_to_string(&path.0).unwrap(), "precious");
}

#[test]
fn unavailable_address_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_refused(&run(&["--listen", &address]), 1, &[&address, "in use"]);
    // One unavailable address of several is enough.
    assert_refused(&run(&["--listen", "127.0.0.1:0", "--listen", &address]), 1, &[&address]);
    assert_refused(&run(&["--listen", "unix:/nowhere/at/all"]), 1, &["unix:/nowhere/at/all"]);
}

/// Starts the server as systemd does, with this socket.
fn start_with_socket(socket: OwnedFd) -> (ChildGuard, String) {
    let mut command = systemd_command(socket, "");
    // An address of another host, which no listener can bind.
    command.args(["--log", "error", "--listen", "192.0.2.1:1"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (ChildGuard(child), line)
}

#[test]
fn socket_from_systemd_replaces_the_listen_flags() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let (_running, line) = start_with_socket(tcp.into());
    assert_eq!(line, format!("listening on http://{address}\n"));
    assert_eq!(Client::connect(address).get("/health").status, 200);

    let path = SocketPath::new("passed");
    let (_running, line) = start_with_socket(UnixListener::bind(&path.0).unwrap().into());
    assert_eq!(line, format!("listening on {}\n", path.listen()));
    assert!(path.get("/health").starts_with("HTTP/1.1 200 "));
}

#[test]
fn log_has_a_line_per_request_only_at_level_requests() {
    for (level, lines) in [("requests", 2), ("info", 0), ("error", 0)] {
        let mut command = program();
        command.args(["--listen", "127.0.0.1:0", "--log", level]).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let mut running = ChildGuard(child);
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap();
        let mut client = Client::connect(address);
        client.get("/topics/one?wait=0");
        client.get("/topics/two?wait=0");
        let pid = rustix::process::Pid::from_child(&running.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait_until("the server exits", || running.0.try_wait().unwrap().is_some());
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        let requests = log
            .lines()
            .filter(|line| ["/topics/one", "/topics/two"].iter().any(|path| line.contains(path)))
            .count();
        assert_eq!(requests, lines, "{level}: {log}");
        assert_eq!(log.is_empty(), level == "error", "{level}: {log}");
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
    }
}

#[cfg(not(feature = "client"))]
#[test]
fn build_without_the_clients_says_so() {
    for command in ["follow", "publish"] {
        assert_refused(&run(&[command, "http://127.0.0.1:1", "news"]), 2, &["without its clients"]);
    }
    assert!(!String::from_utf8(run(&["--help"]).stdout).unwrap().contains("follow"));
}

#[cfg(not(feature = "store"))]
#[test]
fn build_without_the_store_says_so() {
    for args in [
        &["--data", "somewhere"][..],
        &["--sync", "never"],
        &["inspect", "somewhere"],
        &["repair", "--new-epoch", "somewhere"],
    ] {
        assert_refused(&run(args), 2, &["without its store", "cargo feature store"]);
    }
    assert!(!std::path::Path::new("somewhere").exists());
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(!help.contains("inspect") && help.contains("without its store"), "{help}");
}

#[test]
fn log_line_of_a_poll_has_the_bytes_of_its_whole_response() {
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--log", "requests"]).stderr(Stdio::piped());
    let mut server = Server::spawn(&mut command);
    let mut lines = BufReader::new(server.stderr()).lines();
    let mut bytes = || {
        let line = lines.find_map(|line| line.ok().filter(|line| line.contains("GET \"/topics/")));
        let line = line.expect("a line about the poll");
        line.split(' ').find_map(|word| word.strip_suffix('B')?.parse::<u32>().ok()).unwrap()
    };
    let mut held = server.hold_poll("/topics/news?since=now&wait=60");
    server.publish("news", "hello");
    let sent_by_the_publisher = held.response();
    let written = bytes();
    assert!(written as usize > sent_by_the_publisher.text().len(), "{written}");
    assert_eq!(server.get("/topics/news").text(), sent_by_the_publisher.text());
    assert_eq!(bytes(), written, "the same response, written by the poll's own thread");
}
