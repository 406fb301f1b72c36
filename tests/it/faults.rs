//! Goal: whatever fails beneath the server or at the other end of a line, the server goes on, and
//! every place that it had is free again.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use longpoll::config::{Config, ListenAddress, LogLevel};
use longpoll::server::{Server as LongpollServer, listen};
use longpoll::shutdown::Shutdown;

use crate::support::{Client, Server, program, until};

/// Requests that fit into no buffer together once they are answered: each answer has 15,000 bytes.
const MUCH: usize = 600;
const LARGE: &str = "GET /topics/large?format=raw HTTP/1.1\r\nHost: localhost\r\n\r\n";
const HELD: &str = "GET /topics/news?since=now&wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What a client may have sent when its line breaks.
fn beginnings() -> Vec<String> {
    let publish = "POST /topics/lost HTTP/1.1\r\nHost: localhost\r\n";
    vec![
        String::new(),
        "GET /hea".into(),
        "GET /health HTTP/1.1\r\nHost: localhost\r\nX-More: ".into(),
        format!("{publish}Content-Length: 60000\r\n\r\nhello"),
        format!("{publish}Expect: 100-continue\r\nContent-Length: 60000\r\n\r\n"),
        format!("{publish}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nFF\r\n"),
        "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        "no HTTP at all\r\n\r\n".into(),
        LARGE.repeat(MUCH),
        HELD.into(),
        format!("{HELD}{HELD}"),
    ]
}

/// Nothing is taken any more, and all places there are can be used at once.
pub fn everything_is_back(server: &Server, places: usize) {
    let mut asking = server.connect();
    until("nothing but the one that asks is left", || {
        let page = asking.get("/metrics");
        if page.header("Connection").is_some() {
            // There was no room for it, or somebody else wants its place.
            asking = server.connect();
        }
        let shows = |metric| page.text().contains(&format!("\nlongpoll_{metric}\n"));
        shows("connections 1") && shows("polls_held 0")
    });
    let mut clients: Vec<_> = (1..places).map(|_| server.connect()).collect();
    clients.push(asking);
    // The second time shows that none of them had to give way to another.
    for round in 0..2 {
        for client in &mut clients {
            client.ask("GET", "/health");
        }
        for (place, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.answer().status, 200, "round {round}, place {place} of {places}");
        }
    }
    let cursor = clients[0].post("/topics/after", "", "all is well").json()["seq"].clone();
    assert_eq!(clients[1].get("/topics/after?since=last:1").json()["events"][0]["seq"], cursor);
}

/// A server with few places, and a large event in it that has been read once.
fn small(places: &str, polls: &str) -> Server {
    let server = Server::start(&["--max-connections", places, "--max-polls", polls]);
    server.publish("large", &"x".repeat(15_000));
    assert_eq!(server.get("/topics/large?format=raw").status, 200);
    server
}

#[test]
fn reset_connections_leave_nothing_behind() {
    let server = small("8", "6");
    let in_flight = server.metric("answers_in_flight_bytes");
    for begun in beginnings() {
        for round in 0..3 {
            until("the last ones are gone", || server.metric("connections") == 1.0);
            let mut clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
            for client in &mut clients {
                client.receive_little().send(&begun);
            }
            // Once before the server has seen them, and then after it has.
            if round > 0 && begun.starts_with(HELD) {
                server.until_held(6);
            } else if round > 0 && begun.starts_with(LARGE) {
                assert!(clients.iter_mut().all(|client| client.head().status == 200));
            }
            clients.into_iter().for_each(Client::reset);
        }
    }
    until("no answer is in flight", || server.metric("answers_in_flight_bytes") <= in_flight);
    assert_eq!(server.get("/topics/lost?wait=0").seqs(), [0; 0]);
    everything_is_back(&server, 8);
}

#[test]
fn half_closed_connections_are_answered_and_leave_nothing_behind() {
    let server = small("8", "6");
    for begun in beginnings() {
        let mut clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send(&begun).end_output();
        }
        for client in &mut clients {
            let answers = String::from_utf8(client.rest()).unwrap();
            let answered = answers.matches("HTTP/1.1 200 OK").count();
            if begun.starts_with(LARGE) {
                assert_eq!(answered, MUCH);
            } else if begun.starts_with("GET /health") && begun.ends_with("\r\n\r\n") {
                assert_eq!(answered, 1, "{answers:?}");
            } else {
                // To whom waits for an answer with its half closed none is owed: it has hung up.
                assert_eq!(answered, 0, "{begun:?}: {answers:?}");
            }
        }
    }
    everything_is_back(&server, 8);
}

#[test]
fn a_broken_pipe_stops_nothing() {
    const SIGPIPE: i32 = 13;
    let (stderr, stderr_of_server) = UnixStream::pair().unwrap();
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--max-connections", "8", "--log", "requests"]);
    let server = Server::spawn(command.stderr(OwnedFd::from(stderr_of_server)));
    drop(command);
    let mut lines = BufReader::new(stderr);
    assert_eq!(server.get("/health").status, 200);
    let mut line = String::new();
    until("a request is told", || {
        line.clear();
        lines.read_line(&mut line).unwrap();
        line.contains("/health")
    });
    // Nobody reads its lines from here on.
    drop(lines);
    server.signal(SIGPIPE);
    for _ in 0..50 {
        assert_eq!(server.get("/health").status, 200);
    }
    everything_is_back(&server, 8);
}

#[test]
fn the_server_survives_a_table_of_descriptors_that_is_full() {
    let (stderr, stderr_of_server) = UnixStream::pair().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]).arg(program().get_program());
    shell.args(["--listen", "127.0.0.1:0", "--log", "error", "--max-event", "1MiB"]);
    let server = Server::spawn(shell.stderr(OwnedFd::from(stderr_of_server)));
    drop(shell);
    server.publish_much();
    // Two connections are all that so few descriptors allow. Both are taken by clients that read
    // nothing: all others are refused, and each of those lingers for a moment.
    let blocked: Vec<_> = (0..2).map(|_| server.take_a_place()).collect();
    let crowd: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let mut line = String::new();
    BufReader::new(stderr).read_line(&mut line).unwrap();
    assert!(line.contains("accept"), "{line}");
    drop((blocked, crowd));
    // Until then whoever is in the way of a descriptor is closed without an answer.
    let descriptors = format!("/proc/{}/fd", server.pid());
    until("there are descriptors", || std::fs::read_dir(&descriptors).unwrap().count() < 32);
    until("it serves again", || server.get("/health").status == 200);
    until("it takes events", || server.connect().post("/topics/news", "", "hello").status == 201);
    everything_is_back(&server, 2);
}

/// A server in this process, with settings that no command line gives. Its parts fail at them
/// with a panic: at a jitter of more than the whole wait where overflow is checked, and at a time
/// that no clock can show.
fn panicking(body_timeout: Duration) -> (LongpollServer, Shutdown, SocketAddr) {
    let addresses = vec![ListenAddress::Tcp("127.0.0.1:0".into())];
    let listeners = listen(&addresses).unwrap();
    let address = listeners[0].to_string().strip_prefix("http://").unwrap().parse().unwrap();
    let mut config = Config::default();
    (config.max_connections, config.wait_jitter) = (4, u32::MAX);
    config.body_timeout = body_timeout;
    config.log = LogLevel::Error;
    let shutdown = Shutdown::new().unwrap();
    let server = LongpollServer::start(listeners, config, &shutdown).unwrap();
    (server, shutdown, address)
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "the panic comes from a check of overflow")]
fn a_panic_in_a_handler_costs_one_500_and_no_worker() {
    let (server, shutdown, address) = panicking(Duration::from_secs(30));
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(address)).collect();
    for turn in 0..20 {
        let client = &mut clients[turn % 4];
        let answer = client.get("/topics/news?since=now&wait=25");
        assert_eq!(answer.status, 500);
        assert!(answer.detail().contains("stderr"), "{}", answer.detail());
        // The connection goes on.
        assert_eq!(client.get("/health").status, 200);
    }
    for _ in 0..2 {
        assert!(clients.iter_mut().all(|client| client.get("/health").status == 200));
    }
    let page = clients[0].get("/metrics");
    for metric in ["connections 4", "polls_held 0", "refusals_total{cause=\"internal\"} 20"] {
        assert!(page.text().contains(&format!("\nlongpoll_{metric}\n")), "{}", page.text());
    }
    shutdown.trigger();
    server.drain();
}

#[test]
fn a_panic_in_the_server_module_itself_costs_one_connection_and_no_worker() {
    let (server, shutdown, address) = panicking(Duration::MAX);
    for _ in 0..20 {
        let mut client = Client::connect(address);
        client
            .send("POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhel");
        assert!(client.is_closed());
    }
    let shows = |client: &mut Client, connections: usize| {
        let line = format!("\nlongpoll_connections {connections}\n");
        client.get("/metrics").text().contains(&line)
    };
    let mut first = Client::connect(address);
    until("all places are free", || shows(&mut first, 1));
    let mut clients: Vec<_> = (1..4).map(|_| Client::connect(address)).collect();
    clients.push(first);
    for _ in 0..2 {
        assert!(clients.iter_mut().all(|client| client.get("/health").status == 200));
    }
    assert!(shows(&mut clients[0], 4));
    shutdown.trigger();
    server.drain();
}
