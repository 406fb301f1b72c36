//! Goal: systemd knows when the server is ready, lives and stops, and its journal what matters.

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

use longpoll::access::Access;
use longpoll::api::LogHandle;
use longpoll::config::{Config, ListenAddress, LogLevel};
use longpoll::logger::{self, Logger};
use longpoll::metrics::Metrics;
use longpoll::server::{Server as LongpollServer, listener};
use longpoll::shutdown::Shutdown;
use longpoll::systemd::ServiceManager;

use crate::support::{Client, HANG, Server, program, scratch, service, until};

const SIGTERM: i32 = 15;

/// The end of the socket that systemd has, and what it calls the other end.
struct Systemd {
    socket: UnixDatagram,
    name: String,
}

impl Systemd {
    /// One in the file system.
    fn new(test: &str) -> Systemd {
        let path = std::env::temp_dir().join(format!("longpoll-{}-{test}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        Systemd { socket, name: path.into_os_string().into_string().unwrap() }
    }

    /// One that is in no file system, as containers have it.
    fn without_a_file() -> Systemd {
        let name = format!("longpoll-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        Systemd { socket, name: format!("@{name}") }
    }

    /// What it is told next.
    fn hears(&self) -> String {
        let mut word = [0; 1_000];
        let length = self.socket.recv(&mut word).expect("a word");
        String::from_utf8(word[..length].to_vec()).unwrap()
    }

    fn has_heard_nothing(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let got = self.socket.recv(&mut [0; 1_000]);
        self.socket.set_nonblocking(false).unwrap();
        got.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
    }

    /// The server, with a pipe for its stderr.
    fn runs(&self, flags: &[&str]) -> Command {
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

/// What was written to stderr until the end.
fn told(server: &mut Server) -> String {
    let mut told = String::new();
    server.stderr().read_to_string(&mut told).unwrap();
    told
}

fn failed(output: &Output, says: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(says.iter().all(|part| message.contains(part)), "{message}");
}

#[test]
fn systemd_is_told_when_the_server_serves_and_when_it_stops() {
    for systemd in [Systemd::new("ready"), Systemd::without_a_file()] {
        let mut server = Server::spawn(&mut systemd.runs(&["--log", "error"]));
        let (address, word) = (server.address, systemd.hears());
        assert_eq!(word, format!("READY=1\nSTATUS=listening on http://{address}"));
        assert_eq!(server.get("/health").status, 200);
        // It is draining while somebody has not asked to the end.
        let mut begun = server.connect();
        begun.send("GET /health HTTP/1.1\r\nHost: localhost\r\nX-Begun: ");
        until("it has begun", || server.metric("connections") >= 2.0);
        assert!(systemd.has_heard_nothing());
        server.signal(SIGTERM);
        assert_eq!(systemd.hears(), "STOPPING=1");
        begun.send("yes\r\n\r\n");
        assert_eq!(begun.answer().json()["status"], "draining");
        assert_eq!(server.wait().0.code(), Some(0));
        assert!(systemd.has_heard_nothing());
        assert_eq!(told(&mut server), "");
    }
}

#[cfg(feature = "store")]
#[test]
fn a_server_that_cannot_open_its_store_is_never_ready() {
    let (systemd, place) = (Systemd::new("store"), scratch("service-store"));
    let data = ["--data", place.to_str().unwrap()];
    let mut first = Server::spawn(&mut systemd.runs(&data));
    assert!(systemd.hears().starts_with("READY=1\n"));
    // The second is told that the directory is taken.
    failed(&systemd.runs(&data).output().unwrap(), &["--data"]);
    assert!(systemd.has_heard_nothing());
    first.signal(SIGTERM);
    first.wait();
    std::fs::remove_dir_all(place).unwrap();
}

#[test]
fn the_watchdog_hears_again_and_again_that_the_server_lives() {
    let systemd = Systemd::new("watchdog");
    let mut command = systemd.runs(&["--log", "error"]);
    let mut server = Server::spawn(command.env("WATCHDOG_USEC", "4000000"));
    let mut poll = server.hold("/topics/news?since=now&wait=3000");
    assert!(systemd.hears().starts_with("READY=1\n"));
    for _ in 0..2 {
        assert_eq!(systemd.hears(), "WATCHDOG=1");
    }
    assert!(poll.has_nothing());
    server.signal(SIGTERM);
    until("the last word", || systemd.hears() == "STOPPING=1");
    assert_eq!(poll.answer().json()["reason"], "drain");
    assert_eq!(server.wait().0.code(), Some(0));
}

/// Where lines of a server in this process go.
fn nowhere() -> (Arc<Metrics>, Logger) {
    let metrics = Arc::new(Metrics::default());
    let (diag, _) = logger::start(LogLevel::Error, Arc::clone(&metrics)).unwrap();
    (metrics, diag)
}

#[test]
fn the_watchdog_hears_nothing_while_the_server_is_not_seen_to_live() {
    let systemd = Systemd::new("stuck");
    let env = |name: &str| match name {
        "NOTIFY_SOCKET" => Some(systemd.name.clone().into()),
        "WATCHDOG_USEC" => Some("4000000".into()),
        _ => None,
    };
    let manager = ServiceManager::from_env(env, nowhere().1).unwrap();
    let (shutdown, looks) = (Shutdown::new().unwrap(), Cell::new(0));
    manager.feed_watchdog(&shutdown, || {
        assert!(systemd.has_heard_nothing(), "after {} looks", looks.get());
        looks.set(looks.get() + 1);
        if looks.get() == 4 {
            shutdown.trigger();
        }
        looks.get() == 4
    });
    assert_eq!((looks.get(), &*systemd.hears()), (4, "WATCHDOG=1"));
    assert!(systemd.has_heard_nothing());
}

#[test]
fn a_server_lives_only_if_each_acceptor_has_turned_over_again() {
    let listen = [(); 2].map(|()| ListenAddress::Tcp("127.0.0.1:0".into()));
    let listeners = listener::open(&listen).unwrap();
    let address = listeners[0].to_string().strip_prefix("http://").unwrap().parse().unwrap();
    let (config, shutdown) = (Config::default(), Shutdown::new().unwrap());
    let (metrics, diag) = nowhere();
    let log = LogHandle::open(&config, &metrics, &diag).unwrap();
    let access = Access::open(&config).unwrap();
    let door =
        LongpollServer::open(config, listeners, access, log, &metrics, diag, &shutdown).unwrap();
    for _ in 0..2 {
        until("it lives", || door.lives());
    }
    // Only the first turns over: somebody has come. The other one has nothing to do for a second.
    until("it was not seen to live", || {
        let _ = door.lives();
        // Whoever accepts the second one has turned over since the first.
        for _ in 0..2 {
            assert_eq!(Client::connect(address).get("/health").status, 200);
        }
        !door.lives()
    });
    shutdown.trigger();
    until("the acceptors have ended", || std::net::TcpStream::connect(address).is_err());
    let _ = (door.lives(), door.lives());
    assert!(!door.lives());
    door.drain();
}

#[test]
fn a_watchdog_of_another_process_is_not_ours_and_one_that_is_too_short_is_refused() {
    let systemd = Systemd::new("short");
    let short = |who: &str| {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let variables = format!("WATCHDOG_USEC=3999999 WATCHDOG_PID={who}");
        let mut command = service(socket.into(), &variables);
        command.env("NOTIFY_SOCKET", &systemd.name).args(["--log", "error"]);
        command
    };
    let server = Server::spawn(&mut short("1"));
    assert!(systemd.hears().starts_with("READY=1\n"));
    drop(server);
    failed(&short("$$").output().unwrap(), &["WATCHDOG_USEC", "3999999", "at least 4 s"]);
}

#[test]
fn variables_that_make_no_sense_are_refused_by_name() {
    let systemd = Systemd::new("sense");
    for (variable, value) in [
        ("NOTIFY_SOCKET", "nowhere"),
        ("NOTIFY_SOCKET", &*format!("/{}", "x".repeat(200))),
        ("WATCHDOG_USEC", "soon"),
        ("WATCHDOG_PID", "-1"),
    ] {
        let output = systemd.runs(&[]).env(variable, value).output().unwrap();
        failed(&output, &[variable, value]);
    }
    assert!(systemd.has_heard_nothing());
}

#[test]
fn a_systemd_that_does_not_listen_keeps_nobody_from_being_served() {
    let (gone, deaf) = (Systemd::new("gone"), Systemd::new("deaf"));
    std::fs::remove_file(&gone.name).unwrap();
    // Whoever does not read has a full socket some time.
    let full = UnixDatagram::unbound().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.send_to(b"STATUS=", &deaf.name).is_ok() {}
    for systemd in [gone, deaf] {
        let mut server = Server::spawn(&mut systemd.runs(&["--log", "error"]));
        assert_eq!(server.get("/health").status, 200);
        server.signal(SIGTERM);
        assert_eq!(server.wait().0.code(), Some(0));
        let told = told(&mut server);
        assert!(told.contains("cannot notify systemd \"READY=1"), "{told}");
    }
}

/// What a program writes to a file that is its stderr, and is the journal or something else.
fn journal(place: &Path, is_journal: bool, run: impl FnOnce(&mut Command)) -> String {
    let file = File::create(place).unwrap();
    let about = file.metadata().unwrap();
    let inode = about.ino() + u64::from(!is_journal);
    let mut command = program();
    command.env("JOURNAL_STREAM", format!("{}:{inode}", about.dev())).stderr(file);
    run(&mut command);
    std::fs::read_to_string(place).unwrap()
}

#[test]
fn the_journal_gets_priorities_and_others_get_times() {
    let folder = scratch("service-journal");
    std::fs::create_dir(&folder).unwrap();
    let place = folder.join("stderr");
    let serve = |command: &mut Command| {
        let flags = ["--listen", "0.0.0.0:0", "--log", "requests", "--max-connections", "1000000"];
        let mut server = Server::spawn(command.args(flags));
        let address = (std::net::Ipv4Addr::LOCALHOST, server.address.port());
        assert_eq!(Client::connect(address.into()).get("/topics/no!").status, 400);
        server.signal(SIGTERM);
        assert_eq!(server.wait().0.code(), Some(0));
    };
    let log = journal(&place, true, serve);
    for (priority, part) in [
        (4, "warning: --max-connections 1000000 lowered"),
        (4, "warning: whoever reaches"),
        (6, "refused"),
        (6, "/topics/no!"),
        (6, "stopped"),
    ] {
        let begins = format!("<{priority}>");
        let is_it = |line: &str| line.starts_with(&begins) && line.contains(part);
        assert!(log.lines().any(is_it), "{part}: {log}");
    }
    // No line without, and so no hints for somebody who looks on.
    assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
    assert!(!log.contains(">20"), "times: {log}");

    let log = journal(&place, false, serve);
    assert!(log.contains("Z warning: whoever reaches") && log.contains("Z stopped\n"), "{log}");
    assert!(!log.contains('<'), "{log}");

    let fail = |command: &mut Command| {
        assert_eq!(command.args(["--max-wait", "x"]).status().unwrap().code(), Some(2));
    };
    assert!(journal(&place, true, fail).starts_with("<3>longpoll: --max-wait x: "));
    assert!(journal(&place, false, fail).starts_with("longpoll: --max-wait x: "));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn who_asks_to_listen_elsewhere_than_systemd_does_is_told_that_it_is_not_done() {
    for (flags, is_told) in [(&["--listen", "127.0.0.1:0"][..], true), (&[], false)] {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut command = service(socket.into(), "");
        let mut server = Server::spawn(command.args(flags).stderr(Stdio::piped()));
        server.signal(SIGTERM);
        assert_eq!(server.wait().0.code(), Some(0));
        let told = told(&mut server);
        assert_eq!(told.contains("--listen is not used"), is_told, "{told}");
    }
}
