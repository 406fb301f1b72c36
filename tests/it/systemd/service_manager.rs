//! Guards the notifications to systemd, which learns when the server is ready, healthy and
//! stopping, and the format of log lines for the journal.

use std::cell::Cell;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use longpoll::config::{Config, ListenAddress, LogLevel};
use longpoll::logger::{self, Logger};
use longpoll::metrics::Metrics;
use longpoll::server::{Server as LongpollServer, listen};
use longpoll::shutdown::Shutdown;
use longpoll::systemd::ServiceManager;

use crate::support::{
    Client, Server, TEST_TIMEOUT, fresh_path, program, systemd_command, wait_until,
};

const SIGTERM: i32 = 15;

/// The notification socket as systemd has it, and its name for `NOTIFY_SOCKET`.
struct Systemd {
    socket: UnixDatagram,
    name: String,
}

impl Systemd {
    /// A socket in the file system.
    fn new(test: &str) -> Systemd {
        let path = std::env::temp_dir().join(format!("longpoll-{}-{test}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        Systemd { socket, name: path.into_os_string().into_string().unwrap() }
    }

    /// An abstract socket, as containers use it.
    fn abstract_socket() -> Systemd {
        let name = format!("longpoll-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        Systemd { socket, name: format!("@{name}") }
    }

    /// The next notification.
    fn next_notification(&self) -> String {
        let mut message = [0; 1_000];
        let length = self.socket.recv(&mut message).expect("a notification");
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    fn has_received_nothing(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let got = self.socket.recv(&mut [0; 1_000]);
        self.socket.set_nonblocking(false).unwrap();
        got.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
    }

    /// A command that runs the server with this socket and with a pipe for its stderr.
    fn server_command(&self, flags: &[&str]) -> Command {
        let mut command = program();
        command.env("NOTIFY_SOCKET", &self.name).stderr(Stdio::piped());
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        command
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.name);
    }
}

/// The stderr of a server up to its exit.
fn stderr_of(server: &mut Server) -> String {
    let mut log = String::new();
    server.stderr().read_to_string(&mut log).unwrap();
    log
}

fn assert_failure(output: &Output, parts: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

#[test]
fn systemd_is_notified_when_the_server_is_ready_and_when_it_stops() {
    for systemd in [Systemd::new("ready"), Systemd::abstract_socket()] {
        let mut server = Server::spawn(&mut systemd.server_command(&["--log", "error"]));
        let (address, notification) = (server.address, systemd.next_notification());
        assert_eq!(notification, format!("READY=1\nSTATUS=listening on http://{address}"));
        assert_eq!(server.get("/health").status, 200);
        // The server drains until this incomplete request is over.
        let mut incomplete = server.connect();
        incomplete.send("GET /health HTTP/1.1\r\nHost: localhost\r\nX-Begun: ");
        wait_until("the request has started", || server.metric("connections") >= 2.0);
        assert!(systemd.has_received_nothing());
        server.signal(SIGTERM);
        assert_eq!(systemd.next_notification(), "STOPPING=1");
        incomplete.send("yes\r\n\r\n");
        assert_eq!(incomplete.response().json()["status"], "draining");
        assert_eq!(server.wait().0.code(), Some(0));
        assert!(systemd.has_received_nothing());
        assert_eq!(stderr_of(&mut server), "");
    }
}

#[cfg(feature = "store")]
#[test]
fn server_that_cannot_open_its_store_is_never_ready() {
    let (systemd, path) = (Systemd::new("store"), fresh_path("service-store"));
    let data = ["--data", path.to_str().unwrap()];
    let mut first = Server::spawn(&mut systemd.server_command(&data));
    assert!(systemd.next_notification().starts_with("READY=1\n"));
    // The second server finds the directory in use.
    assert_failure(&systemd.server_command(&data).output().unwrap(), &["--data"]);
    assert!(systemd.has_received_nothing());
    first.signal(SIGTERM);
    first.wait();
    std::fs::remove_dir_all(path).unwrap();
}

#[test]
fn watchdog_gets_pings_while_the_server_is_healthy() {
    let systemd = Systemd::new("watchdog");
    let mut command = systemd.server_command(&["--log", "error"]);
    let mut server = Server::spawn(command.env("WATCHDOG_USEC", "4000000"));
    let mut poll = server.hold_poll("/topics/news?since=now&wait=3000");
    assert!(systemd.next_notification().starts_with("READY=1\n"));
    for _ in 0..2 {
        assert_eq!(systemd.next_notification(), "WATCHDOG=1");
    }
    assert!(poll.has_received_nothing());
    server.signal(SIGTERM);
    wait_until("the last notification", || systemd.next_notification() == "STOPPING=1");
    assert_eq!(poll.response().json()["reason"], "drain");
    assert_eq!(server.wait().0.code(), Some(0));
}

fn quiet_logger() -> Logger {
    logger::start(LogLevel::Error, Arc::new(Metrics::default())).unwrap().0
}

#[test]
fn watchdog_gets_no_ping_while_the_server_is_unhealthy() {
    let systemd = Systemd::new("stuck");
    let env = |name: &str| match name {
        "NOTIFY_SOCKET" => Some(systemd.name.clone().into()),
        "WATCHDOG_USEC" => Some("4000000".into()),
        _ => None,
    };
    let manager = ServiceManager::from_env(env, quiet_logger()).unwrap();
    let (shutdown, checks) = (Shutdown::new().unwrap(), Cell::new(0));
    manager.feed_watchdog(&shutdown, || {
        assert!(systemd.has_received_nothing(), "after {} looks", checks.get());
        checks.set(checks.get() + 1);
        if checks.get() == 4 {
            shutdown.trigger();
        }
        checks.get() == 4
    });
    assert_eq!((checks.get(), &*systemd.next_notification()), (4, "WATCHDOG=1"));
    assert!(systemd.has_received_nothing());
}

#[test]
fn server_is_healthy_only_if_each_acceptor_has_made_progress() {
    let addresses = [(); 2].map(|()| ListenAddress::Tcp("127.0.0.1:0".into()));
    let listeners = listen(&addresses).unwrap();
    let address = listeners[0].to_string().strip_prefix("http://").unwrap().parse().unwrap();
    let (mut config, shutdown) = (Config::default(), Shutdown::new().unwrap());
    config.log = LogLevel::Error;
    let server = LongpollServer::start(listeners, config, &shutdown).unwrap();
    for _ in 0..2 {
        wait_until("the server is healthy", || server.is_alive());
    }
    // Only the first acceptor makes progress, because of a connection. The other one sleeps for up
    // to a second.
    wait_until("the server is reported unhealthy", || {
        let _ = server.is_alive();
        // The acceptor of the second connection has made progress since the first one.
        for _ in 0..2 {
            assert_eq!(Client::connect(address).get("/health").status, 200);
        }
        !server.is_alive()
    });
    shutdown.trigger();
    wait_until("the acceptors have ended", || std::net::TcpStream::connect(address).is_err());
    let _ = (server.is_alive(), server.is_alive());
    assert!(!server.is_alive());
    server.drain();
}

#[test]
fn watchdog_of_another_process_is_ignored_and_a_too_short_one_is_refused() {
    let systemd = Systemd::new("short");
    let short = |pid: &str| {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let variables = format!("WATCHDOG_USEC=3999999 WATCHDOG_PID={pid}");
        let mut command = systemd_command(socket.into(), &variables);
        command.env("NOTIFY_SOCKET", &systemd.name).args(["--log", "error"]);
        command
    };
    let server = Server::spawn(&mut short("1"));
    assert!(systemd.next_notification().starts_with("READY=1\n"));
    drop(server);
    assert_failure(&short("$$").output().unwrap(), &["WATCHDOG_USEC", "3999999", "at least 4 s"]);
}

#[test]
fn invalid_variables_are_refused_by_name() {
    let systemd = Systemd::new("sense");
    for (variable, value) in [
        ("NOTIFY_SOCKET", "nowhere"),
        ("NOTIFY_SOCKET", &*format!("/{}", "x".repeat(200))),
        ("WATCHDOG_USEC", "soon"),
        ("WATCHDOG_PID", "-1"),
    ] {
        let output = systemd.server_command(&[]).env(variable, value).output().unwrap();
        assert_failure(&output, &[variable, value]);
    }
    assert!(systemd.has_received_nothing());
}

#[test]
fn unreachable_systemd_does_not_prevent_serving() {
    let (gone, deaf) = (Systemd::new("gone"), Systemd::new("deaf"));
    std::fs::remove_file(&gone.name).unwrap();
    // A socket whose owner does not read fills up.
    let full = UnixDatagram::unbound().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.send_to(b"STATUS=", &deaf.name).is_ok() {}
    for systemd in [gone, deaf] {
        let mut server = Server::spawn(&mut systemd.server_command(&["--log", "error"]));
        assert_eq!(server.get("/health").status, 200);
        server.signal(SIGTERM);
        assert_eq!(server.wait().0.code(), Some(0));
        let log = stderr_of(&mut server);
        assert!(log.contains("cannot notify systemd \"READY=1"), "{log}");
    }
}

/// What a program writes to its stderr, which is a file; `is_journal` declares it the journal.
fn journal(path: &Path, is_journal: bool, run: impl FnOnce(&mut Command)) -> String {
    let file = File::create(path).unwrap();
    let about = file.metadata().unwrap();
    let inode = about.ino() + u64::from(!is_journal);
    let mut command = program();
    command.env("JOURNAL_STREAM", format!("{}:{inode}", about.dev())).stderr(file);
    run(&mut command);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn journal_lines_have_priorities_and_other_lines_have_times() {
    let folder = fresh_path("service-journal");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("stderr");
    let serve = |command: &mut Command| {
        let flags = ["--listen", "0.0.0.0:0", "--log", "requests", "--max-connections", "1000000"];
        let mut server = Server::spawn(command.args(flags));
        let address = (std::net::Ipv4Addr::LOCALHOST, server.address.port());
        assert_eq!(Client::connect(address.into()).get("/topics/no!").status, 400);
        server.signal(SIGTERM);
        assert_eq!(server.wait().0.code(), Some(0));
    };
    let log = journal(&path, true, serve);
    for (priority, part) in [
        (4, "warning: --max-connections 1000000 lowered"),
        (4, "warning: any client that reaches"),
        (6, "refused"),
        (6, "/topics/no!"),
        (6, "stopped"),
    ] {
        let begins = format!("<{priority}>");
        let is_it = |line: &str| line.starts_with(&begins) && line.contains(part);
        assert!(log.lines().any(is_it), "{part}: {log}");
    }
    // Every line has a priority, so that there are no hints for a terminal.
    assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
    assert!(!log.contains(">20"), "times: {log}");

    let log = journal(&path, false, serve);
    assert!(
        log.contains("Z warning: any client that reaches") && log.contains("Z stopped\n"),
        "{log}"
    );
    assert!(!log.contains('<'), "{log}");

    let fail = |command: &mut Command| {
        assert_eq!(command.args(["--max-wait", "x"]).status().unwrap().code(), Some(2));
    };
    assert!(journal(&path, true, fail).starts_with("<3>longpoll: --max-wait x: "));
    assert!(journal(&path, false, fail).starts_with("longpoll: --max-wait x: "));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn listen_flags_are_reported_as_unused_with_a_socket_from_systemd() {
    for (flags, is_told) in [(&["--listen", "127.0.0.1:0"][..], true), (&[], false)] {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut command = systemd_command(socket.into(), "");
        let mut server = Server::spawn(command.args(flags).stderr(Stdio::piped()));
        server.signal(SIGTERM);
        assert_eq!(server.wait().0.code(), Some(0));
        let log = stderr_of(&mut server);
        assert_eq!(log.contains("--listen is not used"), is_told, "{log}");
    }
}
