//! Guards the drain: on SIGINT or SIGTERM the server answers every held poll, accepts nothing new,
//! and exits.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Client, Server, wait_until};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// Waits until the server accepts no new connections, because it drains or has exited.
fn wait_until_draining(server: &Server) {
    wait_until("the server accepts nothing new", || TcpStream::connect(server.address).is_err());
}

/// A client that has sent a publish but for its body.
fn publishing(server: &Server) -> Client {
    let mut client = server.connect();
    client.send("POST /topics/news HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n");
    client.send("Content-Length: 5\r\n\r\n");
    assert_eq!(client.response_head().status, 100);
    client
}

#[test]
fn every_held_poll_is_answered_and_the_exit_status_is_0() {
    for signal in [SIGTERM, SIGINT] {
        let mut server = Server::start(&[]);
        let head = server.publish("news", "hello").next_cursor().to_owned();
        let mut polls: Vec<_> =
            ["news?", "*?", "n*,other?", "none?format=raw&", "news?format=ndjson&"]
                .iter()
                .map(|target| server.hold_poll(&format!("/topics/{target}since=now&wait=3000")))
                .collect();
        server.signal(signal);
        for (index, poll) in polls.iter_mut().enumerate() {
            let response = poll.response();
            assert_eq!((response.status, response.header("Poll-Reason")), (200, Some("drain")));
            assert_eq!(response.header("Connection"), Some("close"));
            assert_eq!((response.next_cursor(), response.header("Poll-Wait")), (&*head, None));
            if index < 3 {
                let json = response.json();
                assert_eq!(json["reason"], "drain");
                assert_eq!(
                    (&json["events"], &json["more"]),
                    (&serde_json::json!([]), &false.into())
                );
            } else {
                assert_eq!(response.text(), "");
            }
            assert!(poll.is_closed());
        }
        let (status, stdout) = server.wait();
        assert_eq!((status.code(), &*stdout), (Some(0), ""), "signal {signal}");
    }
}

#[test]
fn server_without_clients_exits_at_once() {
    let mut server = Server::start(&[]);
    server.signal(SIGTERM);
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn idle_connections_are_closed_without_a_response() {
    let mut server = Server::start(&[]);
    let (mut silent, mut idle) = (server.connect(), server.connect());
    assert_eq!(idle.get("/health").status, 200);
    wait_until("both connections are open", || server.metric("connections") >= 3.0);
    server.signal(SIGTERM);
    assert!(silent.is_closed() && idle.is_closed());
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn no_connection_is_accepted_during_a_drain() {
    let mut server = Server::start(&[]);
    let mut client = publishing(&server);
    server.signal(SIGTERM);
    wait_until_draining(&server);
    client.send("hello");
    let response = client.response();
    assert_eq!(response.header("Connection"), Some("close"));
    assert!(client.is_closed());
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn publish_in_progress_gets_a_truthful_response() {
    let mut server = Server::start(&[]);
    let mut publisher = publishing(&server);
    let mut poll = server.hold_poll("/topics/news?since=now&wait=3000");
    server.signal(SIGTERM);
    assert_eq!(poll.response().header("Poll-Reason"), Some("drain"));
    let response = publisher.send("hello").response();
    // In memory the event would be lost with the process, so that a refusal is as correct as 201.
    match response.status {
        201 => assert_eq!(response.json()["seq"], 1),
        status => {
            assert_eq!(status, 503, "{response:?}");
            assert!(!response.detail().is_empty());
            assert!(response.header("Retry-After").is_some());
        }
    }
    assert_eq!(response.header("Connection"), Some("close"));
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn requests_that_had_arrived_are_answered_before_the_connection_closes() {
    let mut server = Server::start(&[]);
    let mut client = server.hold_poll("/topics/news?since=now&wait=3000");
    client.send_request("GET", "/health");
    server.signal(SIGTERM);
    let response = client.response();
    assert_eq!(response.header("Poll-Reason"), Some("drain"));
    // The first response says that the connection closes after it.
    assert_eq!(response.header("Connection"), Some("close"));
    assert!(client.is_closed());
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn incomplete_request_does_not_delay_the_exit() {
    let mut server = Server::start(&[]);
    let mut client = server.connect();
    client.send("GET /health HTTP/1.1\r\n");
    let mut other = publishing(&server);
    let signalled = Instant::now();
    server.signal(SIGTERM);
    assert_eq!(server.wait().0.code(), Some(0));
    // Far below the default time-outs of 10 s for a head and 30 s for a body.
    assert!(signalled.elapsed() < Duration::from_secs(9));
    client.read_to_end();
    other.read_to_end();
}

#[test]
fn second_signal_ends_the_program_at_once() {
    let mut server = Server::start(&[]);
    server.publish("large", &"x".repeat(60_000));
    let mut blocked = server.connect();
    // The responses exceed all buffers, so that the drain waits for this client.
    let request = "GET /topics/large?format=raw HTTP/1.1\r\nHost: localhost\r\n\r\n";
    blocked.shrink_receive_buffer().send(request.repeat(200));
    assert_eq!(blocked.response().status, 200);
    server.signal(SIGTERM);
    wait_until_draining(&server);
    let again = Instant::now();
    server.signal(SIGTERM);
    let status = server.wait().0;
    assert!(!status.success(), "{status}");
    assert!(again.elapsed() < Duration::from_secs(9));
}

#[test]
fn drain_ends_when_the_last_of_many_polls_is_answered() {
    let mut server = Server::start(&["--max-connections", "300"]);
    let mut polls: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for (index, poll) in polls.iter_mut().enumerate() {
        poll.send_request("GET", &format!("/topics/t{index}?since=now&wait=3000"));
    }
    server.wait_until_held(200);
    server.signal(SIGTERM);
    for poll in &mut polls {
        assert_eq!(poll.response().json()["reason"], "drain");
    }
    drop(polls);
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn started_request_is_answered_and_health_reports_draining() {
    let mut server = Server::start(&[]);
    server.publish("news", "hello");
    let mut client = server.connect();
    let mut other = server.connect();
    client.send("GET /topics/news HTTP/1.1\r\nHost: localhost\r\nX-Begun: ");
    other.send("GET /health HTTP/1.1\r\nHost: localhost\r\nX-Begun: ");
    wait_until("both requests have started", || server.metric("connections") >= 3.0);
    server.signal(SIGTERM);
    wait_until_draining(&server);
    client.send("yes\r\n\r\n");
    other.send("yes\r\n\r\n");
    let response = client.response();
    assert_eq!(response.data(), ["hello"]);
    assert_eq!(response.header("Connection"), Some("close"));
    let response = other.response();
    assert_eq!((response.status, &response.json()["status"]), (503, &"draining".into()));
    assert_eq!(response.header("Connection"), Some("close"));
    assert_eq!(server.wait().0.code(), Some(0));
}
