//! Guards the limits: at each one the server responds as documented, reports the cause, and serves
//! as before afterwards.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::{Client, Response, Server, raise_descriptor_limit, wait_until};

/// Checks a temporary refusal; returns the seconds of its `Retry-After`.
fn assert_temporary_refusal(response: &Response, status: u16) -> u64 {
    assert_eq!(response.status, status, "{response:?}");
    assert!(!response.detail().is_empty());
    let seconds = response.header("Retry-After").expect("a Retry-After header").parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
    seconds
}

/// Whether the server admits a request for the metrics and they contain this one.
fn shows(server: &Server, metric: &str) -> bool {
    server.get("/metrics").text().contains(&format!("\nlongpoll_{metric}"))
}

/// Adds a held poll, so that there are `polls` of them. Retries while the server is full.
fn add_held_poll(server: &Server, polls: usize) -> Client {
    let mut poll = server.connect();
    let held = format!("polls_held {polls}\n");
    wait_until("the poll is held", || {
        if !poll.has_received_nothing() {
            poll = server.connect();
        }
        poll.send_request("GET", "/topics/news?since=now&wait=60");
        wait_until("the poll is held or refused", || {
            shows(server, &held) || !poll.has_received_nothing()
        });
        poll.has_received_nothing()
    });
    poll
}

/// Requests whose responses, 15,000 bytes each, together exceed all buffers.
const MANY: usize = 600;

fn request_many_pages(client: &mut Client) {
    let request = "GET /topics/large?format=raw HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.send(request.repeat(MANY));
}

/// A client whose responses exceed all buffers and that reads none of them.
fn client_that_never_reads(server: &Server) -> Client {
    server.publish("large", &"x".repeat(15_000));
    let mut client = server.connect();
    request_many_pages(client.shrink_receive_buffer());
    client
}

#[test]
fn connection_above_the_cap_is_refused_while_all_others_are_busy() {
    let server =
        Server::start(&["--max-connections", "3", "--max-polls", "2", "--max-event", "1MiB"]);
    server.publish_large_event();
    let [mut first, mut second] = [1, 2].map(|polls| add_held_poll(&server, polls));
    let _blocked = server.occupy_connection();
    let mut refused = server.connect();
    let response = refused.get("/health");
    assert_temporary_refusal(&response, 503);
    assert_eq!(response.header("Connection"), Some("close"));
    assert!(refused.is_closed());
    assert!(first.has_received_nothing() && second.has_received_nothing());
    let times: BTreeSet<_> =
        (0..20).map(|_| assert_temporary_refusal(&server.get("/health"), 503)).collect();
    assert!(times.len() > 1, "`Retry-After` has no jitter: {times:?}");
    // One client disconnects, which frees a connection.
    drop(first);
    wait_until("a connection is free", || server.get("/health").status == 200);
    wait_until("the refusals are counted", || {
        shows(&server, "refusals_total{cause=\"connection_cap\"} ")
    });
}

#[test]
fn idle_connection_is_evicted() {
    for beginning in [
        "",
        "\r\n",
        "GET /health HTTP/1.1\r\n",
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhel",
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel",
    ] {
        let server = Server::start(&["--max-connections", "2"]);
        let (mut silent, mut client) = (server.connect(), server.connect());
        silent.send(beginning);
        let idle_since = Instant::now();
        wait_until("the silent connection is idle for long enough", || {
            assert_eq!(client.get("/health").status, 200);
            idle_since.elapsed() > Duration::from_millis(300)
        });
        let mut third = server.connect();
        assert_eq!(third.get("/health").status, 200, "{beginning:?}");
        assert!(silent.is_closed(), "{beginning:?}");
        assert_eq!(third.get("/topics/news?wait=0").seqs(), [0; 0]);
    }
}

#[test]
fn new_connection_queues_until_recently_idle_ones_may_be_evicted() {
    let server = Server::start(&["--max-connections", "2"]);
    let (mut first, mut second) = (server.connect(), server.connect());
    assert_eq!((first.get("/health").status, second.get("/health").status), (200, 200));
    // On a busy machine a connection may wait longer than the queue allows.
    let mut refused = 0;
    for _ in 0..6 {
        let mut queued = server.connect();
        while queued.get("/health").status != 200 {
            refused += 1;
            queued = server.connect();
        }
        (first, second) = (second, queued);
    }
    assert!(refused < 6, "no connection queued");
    assert_eq!(second.get("/health").status, 200);
    drop(first);
}

#[test]
fn longest_idle_connection_is_evicted_first() {
    let server = Server::start(&["--max-connections", "2"]);
    let (mut early, mut late) = (server.connect(), server.connect());
    assert_eq!(early.get("/health").status, 200);
    let idle_since = Instant::now();
    wait_until("the early connection is idle for longer", || {
        assert_eq!(late.get("/health").status, 200);
        idle_since.elapsed() > Duration::from_millis(300)
    });
    let mut third = server.connect();
    assert_eq!(third.get("/health").status, 200);
    assert!(early.is_closed());
    assert_eq!(late.get("/health").status, 200);
    assert_eq!(third.get("/health").status, 200);
}

#[test]
fn held_poll_is_not_evicted() {
    let server = Server::start(&["--max-connections", "2"]);
    let mut poll = server.connect();
    poll.send_request("GET", "/topics/news?since=now&wait=60");
    wait_until("the poll is held", || shows(&server, "polls_held 1"));
    for _ in 0..5 {
        let _idle = server.connect();
        wait_until("the idle connection is evicted", || server.get("/health").status == 200);
    }
    assert!(poll.has_received_nothing());
    let mut publisher = None;
    wait_until("the publish succeeds", || {
        publisher = Some(server.connect().post("/topics/news", "", "hello"));
        publisher.as_ref().is_some_and(|response| response.status == 201)
    });
    assert_eq!(poll.response().data(), ["hello"]);
}

#[test]
fn consecutive_clients_need_one_connection() {
    let server = Server::start(&["--max-connections", "2"]);
    let _poll = add_held_poll(&server, 1);
    let statuses = (0..200).map(|_| server.get("/health").status);
    let refused = statuses.filter(|status| *status != 200).count();
    assert_eq!(
        refused, 0,
        "refusals among 200 clients, each of which had left before the next one connected"
    );
}

#[test]
fn poll_above_the_cap_is_refused_and_other_requests_succeed() {
    let server = Server::start(&["--max-connections", "16", "--max-polls", "2"]);
    let mut held = [(); 2].map(|()| server.hold_poll("/topics/news?since=now&wait=60"));
    let mut client = server.connect();
    let response = client.get("/topics/news?since=now&wait=60");
    assert_temporary_refusal(&response, 503);
    assert!(response.detail().contains('2'), "{}", response.detail());
    assert_eq!(response.header("Connection"), None);
    assert_eq!(client.get("/topics/news?since=now&wait=0").status, 200);
    assert_eq!(client.get("/health").status, 200);
    assert_eq!(server.metric("polls_held"), 2.0);
    assert_eq!(client.post("/topics/news", "", "hello").json()["released"], 2);
    assert!(held.iter_mut().all(|poll| poll.response().data() == ["hello"]));
    assert_eq!(client.get("/topics/news?wait=60").data(), ["hello"]);
    client.send_request("GET", "/topics/news?since=now&wait=60");
    server.wait_until_held(1);
    assert_eq!(server.metric("refusals_total{cause=\"poll_cap\"}"), 1.0);
}

#[test]
fn topic_above_the_cap_is_refused_until_one_is_empty() {
    let server = Server::start(&["--max-topics", "2"]);
    let mut client = server.connect();
    server.publish("a", "x");
    // A poll does not create its topic.
    assert_eq!(client.get("/topics/c,d,e?wait=0").status, 200);
    server.publish("b", "x");
    let response = client.post("/topics/c", "", "x");
    assert_temporary_refusal(&response, 429);
    assert!(response.detail().contains("--max-topics"), "{}", response.detail());
    assert_eq!(client.post("/topics/a", "", "x").status, 201);
    assert_eq!(client.send_request("DELETE", "/topics/b").response().status, 204);
    assert_eq!(client.post("/topics/c", "", "x").status, 201);
    assert_eq!(client.post("/topics/b", "", "x").status, 429);
    assert_eq!(server.metric("topics"), 2.0);
}

#[test]
fn late_head_or_body_is_refused() {
    let flags = ["--head-timeout", "100ms", "--body-timeout", "100ms"];
    let server = Server::start(&flags);
    for beginning in [
        "G",
        "GET /health HTTP/1.1\r\nHost: localhost\r\n",
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhel",
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
    ] {
        let mut client = server.connect();
        let sent = Instant::now();
        let response = client.send(beginning).response();
        assert!(sent.elapsed() >= Duration::from_millis(100));
        assert_eq!(response.status, 408, "{beginning:?}");
        let part = if beginning.starts_with("POST") { "body" } else { "head" };
        assert!(response.detail().contains(part), "{}", response.detail());
        assert_eq!(response.header("Connection"), Some("close"));
        assert!(client.is_closed());
    }
    assert_eq!(server.get("/topics/news?wait=0").seqs(), [0; 0]);
}

#[test]
fn slow_bytes_do_not_extend_the_time_for_a_head_or_a_body() {
    let server = Server::start(&["--head-timeout", "100ms", "--body-timeout", "100ms"]);
    for beginning in [
        "GET /health HTTP/1.1\r\nHost: localhost\r\nX: ",
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65536\r\n\r\n",
    ] {
        let mut client = server.connect();
        let mut pace = server.connect();
        client.send(beginning);
        wait_until("the time-out is over", || {
            client.send("x");
            pace.get("/health");
            !client.has_received_nothing()
        });
        assert_eq!(client.response().status, 408, "{beginning:?}");
    }
}

#[test]
fn connection_that_stays_idle_is_closed_without_a_response() {
    let server = Server::start(&["--idle-timeout", "100ms"]);
    let mut silent = server.connect();
    assert!(silent.is_closed());
    let mut client = server.connect();
    assert_eq!(client.get("/health").status, 200);
    assert!(client.is_closed());
    // A held poll is not idle.
    let started = Instant::now();
    assert_eq!(server.get("/topics/news?wait=0.3").json()["reason"], "timeout");
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[test]
fn client_that_never_reads_is_disconnected_after_the_write_timeout() {
    let server = Server::start(&["--write-timeout", "200ms"]);
    let _client = client_that_never_reads(&server);
    // The connection of this request is open, too.
    wait_until("the client is disconnected", || server.metric("connections") == 1.0);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn client_that_starts_to_read_late_gets_all_responses() {
    let server = Server::start(&["--write-timeout", "60s"]);
    let mut client = server.connect();
    server.publish("large", &"x".repeat(15_000));
    request_many_pages(&mut client);
    let mut other = server.connect();
    for _ in 0..100 {
        assert_eq!(other.get("/health").status, 200);
    }
    for _ in 0..MANY {
        assert_eq!(client.response().body.len(), 15_000);
    }
}

#[test]
fn client_with_a_request_is_served_before_silent_connections() {
    raise_descriptor_limit();
    for beginning in [
        "",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-More: ",
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhel",
    ] {
        let server = Server::start(&["--max-connections", "2"]);
        // More than the admission queue holds.
        let mut crowd: Vec<_> = (0..3_000).map(|_| server.connect()).collect();
        for one in &mut crowd {
            one.send(beginning);
        }
        // In order of arrival, all of them would have been admitted and evicted first.
        let page = server.get("/metrics");
        let name = "\nlongpoll_connections_gave_way_total ";
        let gave_way = page.text().split(name).nth(1).and_then(|rest| rest.lines().next());
        let gave_way: usize = gave_way.expect("the metric").parse().unwrap();
        assert!(gave_way < 300, "{gave_way} were admitted first, with {beginning:?}");
    }
}

#[test]
fn queued_connections_are_all_refused_at_once_when_the_server_is_full() {
    let server =
        Server::start(&["--max-connections", "3", "--max-polls", "2", "--max-event", "1MiB"]);
    server.publish_large_event();
    let _polls = [1, 2].map(|polls| add_held_poll(&server, polls));
    let _blocked = server.occupy_connection();
    // More than the admission queue holds.
    let mut crowd: Vec<_> = (0..400).map(|_| server.connect()).collect();
    for one in &mut crowd {
        one.send_request("GET", "/health");
    }
    for one in &mut crowd {
        assert_temporary_refusal(&one.response(), 503);
    }
}

#[test]
fn burst_of_connections_is_answered_completely() {
    let server = Server::start(&["--max-connections", "400"]);
    let mut clients: Vec<_> = (0..300).map(|_| server.connect()).collect();
    for _ in 0..2 {
        for client in &mut clients {
            client.send_request("GET", "/health");
        }
        assert!(clients.iter_mut().all(|client| client.response().status == 200));
    }
}

#[test]
fn descriptors_are_released_and_threads_are_reused() {
    let server = Server::start(&["--max-connections", "40"]);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    server.get("/health");
    wait_until("alone", || server.metric("connections") == 1.0);
    // The connection of the last request may still be closing.
    let before = descriptors();
    for _ in 0..3 {
        let polls: Vec<_> = (0..30)
            .map(|_| {
                let mut client = server.connect();
                client.send_request("GET", "/topics/news?since=now&wait=60");
                client
            })
            .collect();
        server.wait_until_held(30);
        drop(polls);
        server.wait_until_held(0);
        wait_until("the descriptors are released", || descriptors() <= before);
        assert!(server.status_number("Threads:") <= 40 + 8);
    }
}
