//! Guards that the server survives faults of clients and of the host, such as resets, a broken
//! pipe, a full descriptor table or a panic, and that all its capacity is free afterwards.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use longpoll::config::{Config, ListenAddress, LogLevel};
use longpoll::server::{Server as LongpollServer, listen};
use longpoll::shutdown::Shutdown;

use crate::support::{Client, Server, program, wait_until};

/// Requests whose responses, 15,000 bytes each, together exceed all buffers.
const MANY: usize = 600;
const LARGE: &str = "GET /topics/large?format=raw HTTP/1.1\r\nHost: localhost\r\n\r\n";
const HELD: &str = "GET /topics/news?since=now&wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What a client may have sent when its connection breaks.
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
        LARGE.repeat(MANY),
        HELD.into(),
        format!("{HELD}{HELD}"),
    ]
}

/// Checks that no permit is taken any more and that all connections can be used at the same time.
pub fn assert_all_capacity_is_free(server: &Server, places: usize) {
    let mut observer = server.connect();
    wait_until("only the observer's connection is left", || {
        let page = observer.get("/metrics");
        if page.header("Connection").is_some() {
            // The server was full, or another connection evicts this one.
            observer = server.connect();
        }
        let shows = |metric| page.text().contains(&format!("\nlongpoll_{metric}\n"));
        shows("connections 1") && shows("polls_held 0")
    });
    let mut clients: Vec<_> = (1..places).map(|_| server.connect()).collect();
    clients.push(observer);
    // The second round shows that no connection was evicted for another.
    for round in 0..2 {
        for client in &mut clients {
            client.send_request("GET", "/health");
        }
        for (place, client) in clients.iter_mut().enumerate() {
            assert_eq!(
                client.response().status,
                200,
                "round {round}, connection {place} of {places}"
            );
        }
    }
    let cursor = clients[0].post("/topics/after", "", "all is well").json()["seq"].clone();
    assert_eq!(clients[1].get("/topics/after?since=last:1").json()["events"][0]["seq"], cursor);
}

/// A server with small caps and a large event that has been read once.
fn small_server(places: &str, polls: &str) -> Server {
    let server = Server::start(&["--max-connections", places, "--max-polls", polls]);
    server.publish("large", &"x".repeat(15_000));
    assert_eq!(server.get("/topics/large?format=raw").status, 200);
    server
}

#[test]
fn reset_connections_release_all_capacity() {
    let server = small_server("8", "6");
    let in_flight = server.metric("answers_in_flight_bytes");
    for beginning in beginnings() {
        for round in 0..3 {
            wait_until("the connections of the last round are closed", || {
                server.metric("connections") == 1.0
            });
            let mut clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
            for client in &mut clients {
                client.shrink_receive_buffer().send(&beginning);
            }
            // One round resets before the server has read the requests, the next one after.
            if round > 0 && beginning.starts_with(HELD) {
                server.wait_until_held(6);
            } else if round > 0 && beginning.starts_with(LARGE) {
                assert!(clients.iter_mut().all(|client| client.response_head().status == 200));
            }
            clients.into_iter().for_each(Client::reset);
        }
    }
    wait_until("no answer is in flight", || server.metric("answers_in_flight_bytes") <= in_flight);
    assert_eq!(server.get("/topics/lost?wait=0").seqs(), [0; 0]);
    assert_all_capacity_is_free(&server, 8);
}

#[test]
fn half_closed_connections_are_answered_and_release_all_capacity() {
    let server = small_server("8", "6");
    for beginning in beginnings() {
        let mut clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send(&beginning).close_write();
        }
        for client in &mut clients {
            let answers = String::from_utf8(client.read_to_end()).unwrap();
            let answered = answers.matches("HTTP/1.1 200 OK").count();
            if beginning.starts_with(LARGE) {
                assert_eq!(answered, MANY);
            } else if beginning.starts_with("GET /health") && beginning.ends_with("\r\n\r\n") {
                assert_eq!(answered, 1, "{answers:?}");
            } else {
                // A held poll whose client has closed its sending direction counts as gone.
                assert_eq!(answered, 0, "{beginning:?}: {answers:?}");
            }
        }
    }
    assert_all_capacity_is_free(&server, 8);
}

#[test]
fn broken_pipe_on_stderr_stops_nothing() {
    const SIGPIPE: i32 = 13;
    let (stderr, stderr_of_server) = UnixStream::pair().unwrap();
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--max-connections", "8", "--log", "requests"]);
    let server = Server::spawn(command.stderr(OwnedFd::from(stderr_of_server)));
    drop(command);
    let mut lines = BufReader::new(stderr);
    assert_eq!(server.get("/health").status, 200);
    let mut line = String::new();
    wait_until("a request is logged", || {
        line.clear();
        lines.read_line(&mut line).unwrap();
        line.contains("/health")
    });
    // From here on, writes to stderr fail with EPIPE.
    drop(lines);
    server.signal(SIGPIPE);
    for _ in 0..50 {
        assert_eq!(server.get("/health").status, 200);
    }
    assert_all_capacity_is_free(&server, 8);
}

#[test]
fn server_survives_a_full_descriptor_table() {
    let (stderr, stderr_of_server) = UnixStream::pair().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""]).arg(program().get_program());
    shell.args(["--listen", "127.0.0.1:0", "--log", "error", "--max-event", "1MiB"]);
    let server = Server::spawn(shell.stderr(OwnedFd::from(stderr_of_server)));
    drop(shell);
    server.publish_large_event();
    // So few descriptors allow two connections. Both are occupied by clients that do not read, so
    // that all others are refused, and each of those lingers for a moment.
    let blocked: Vec<_> = (0..2).map(|_| server.occupy_connection()).collect();
    let crowd: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let mut line = String::new();
    BufReader::new(stderr).read_line(&mut line).unwrap();
    assert!(line.contains("accept"), "{line}");
    drop((blocked, crowd));
    // Until descriptors are free, connections are closed without a response.
    let descriptors = format!("/proc/{}/fd", server.pid());
    wait_until("descriptors are free", || std::fs::read_dir(&descriptors).unwrap().count() < 32);
    wait_until("the server serves again", || server.get("/health").status == 200);
    wait_until("the server accepts events", || {
        server.connect().post("/topics/news", "", "hello").status == 201
    });
    assert_all_capacity_is_free(&server, 2);
}

/// A server in this process, with settings that the command line refuses and that cause panics: a
/// jitter above the whole wait overflows where overflow is checked, and a body time-out beyond the
/// range of the clock overflows everywhere.
fn panicking_server(body_timeout: Duration) -> (LongpollServer, Shutdown, SocketAddr) {
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
#[cfg_attr(not(debug_assertions), ignore = "the panic comes from an overflow check")]
fn panic_in_a_handler_costs_one_500_and_no_worker() {
    let (server, shutdown, address) = panicking_server(Duration::from_secs(30));
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(address)).collect();
    for turn in 0..20 {
        let client = &mut clients[turn % 4];
        let response = client.get("/topics/news?since=now&wait=25");
        assert_eq!(response.status, 500);
        assert!(response.detail().contains("stderr"), "{}", response.detail());
        // The connection stays usable.
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
fn panic_in_the_connection_loop_costs_one_connection_and_no_worker() {
    let (server, shutdown, address) = panicking_server(Duration::MAX);
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
    wait_until("all connections are free", || shows(&mut first, 1));
    let mut clients: Vec<_> = (1..4).map(|_| Client::connect(address)).collect();
    clients.push(first);
    for _ in 0..2 {
        assert!(clients.iter_mut().all(|client| client.get("/health").status == 200));
    }
    assert!(shows(&mut clients[0], 4));
    shutdown.trigger();
    server.drain();
}
