//! Goal: at each limit the server does what it promised, says so, and goes on as before.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::{Client, Response, Server, raise_descriptor_limit, wait_until};

/// Checks a refusal that passes by itself, and returns when to come back.
fn retry_after(response: &Response, status: u16) -> u64 {
    assert_eq!(response.status, status, "{response:?}");
    assert!(!response.detail().is_empty());
    let seconds = response.header("Retry-After").expect("a Retry-After header").parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
    seconds
}

/// Whether there is a place to ask for the metrics, and they show this.
fn shows(server: &Server, metric: &str) -> bool {
    server.get("/metrics").text().contains(&format!("\nlongpoll_{metric}"))
}

/// Holds one more poll, so that there are this many, however crowded the server is.
fn hold(server: &Server, polls: usize) -> Client {
    let mut poll = server.connect();
    let held = format!("polls_held {polls}\n");
    wait_until("it is held", || {
        if !poll.has_received_nothing() {
            poll = server.connect();
        }
        poll.send_request("GET", "/topics/news?since=now&wait=60");
        wait_until("it is held or refused", || {
            shows(server, &held) || !poll.has_received_nothing()
        });
        poll.has_received_nothing()
    });
    poll
}

/// Asks for more than fits into any buffer: this many times 15,000 bytes.
const MUCH: usize = 600;

fn ask_for_much(client: &mut Client) {
    let request = "GET /topics/large?format=raw HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.send(request.repeat(MUCH));
}

/// A client whose answers cannot all be written, because it reads none of them.
fn never_reads(server: &Server) -> Client {
    server.publish("large", &"x".repeat(15_000));
    let mut client = server.connect();
    ask_for_much(client.shrink_receive_buffer());
    client
}

#[test]
fn a_connection_beyond_the_cap_is_refused_while_all_are_held_or_being_answered() {
    let server =
        Server::start(&["--max-connections", "3", "--max-polls", "2", "--max-event", "1MiB"]);
    server.publish_large_event();
    let [mut first, mut second] = [1, 2].map(|polls| hold(&server, polls));
    let _blocked = server.occupy_connection();
    let mut refused = server.connect();
    let response = refused.get("/health");
    retry_after(&response, 503);
    assert_eq!(response.header("Connection"), Some("close"));
    assert!(refused.is_closed());
    assert!(first.has_received_nothing() && second.has_received_nothing());
    let times: BTreeSet<_> = (0..20).map(|_| retry_after(&server.get("/health"), 503)).collect();
    assert!(times.len() > 1, "all are to come back at once: {times:?}");
    // One hangs up, and there is a place again.
    drop(first);
    wait_until("there is a place", || server.get("/health").status == 200);
    wait_until("the refusals are counted", || {
        shows(&server, "refusals_total{cause=\"connection_cap\"} ")
    });
}

#[test]
fn a_connection_that_waits_for_its_next_request_gives_way() {
    for begun in [
        "",
        "\r\n",
        "GET /health HTTP/1.1\r\n",
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhel",
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel",
    ] {
        let server = Server::start(&["--max-connections", "2"]);
        let (mut silent, mut client) = (server.connect(), server.connect());
        silent.send(begun);
        let rested = Instant::now();
        wait_until("the silent one has waited long enough", || {
            assert_eq!(client.get("/health").status, 200);
            rested.elapsed() > Duration::from_millis(300)
        });
        let mut third = server.connect();
        assert_eq!(third.get("/health").status, 200, "{begun:?}");
        assert!(silent.is_closed(), "{begun:?}");
        assert_eq!(third.get("/topics/news?wait=0").seqs(), [0; 0]);
    }
}

#[test]
fn a_newcomer_queues_until_those_that_have_just_come_to_rest_may_be_closed() {
    let server = Server::start(&["--max-connections", "2"]);
    let (mut first, mut second) = (server.connect(), server.connect());
    assert_eq!((first.get("/health").status, second.get("/health").status), (200, 200));
    // A machine that is busy with something else may take longer over one than it may queue.
    let mut refused = 0;
    for _ in 0..6 {
        let mut newcomer = server.connect();
        while newcomer.get("/health").status != 200 {
            refused += 1;
            newcomer = server.connect();
        }
        (first, second) = (second, newcomer);
    }
    assert!(refused < 6, "nobody queued");
    assert_eq!(second.get("/health").status, 200);
    drop(first);
}

#[test]
fn an_idle_connection_gives_way_before_one_that_came_to_rest_later() {
    let server = Server::start(&["--max-connections", "2"]);
    let (mut early, mut late) = (server.connect(), server.connect());
    assert_eq!(early.get("/health").status, 200);
    let rested = Instant::now();
    wait_until("the early one is older", || {
        assert_eq!(late.get("/health").status, 200);
        rested.elapsed() > Duration::from_millis(300)
    });
    let mut third = server.connect();
    assert_eq!(third.get("/health").status, 200);
    assert!(early.is_closed());
    assert_eq!(late.get("/health").status, 200);
    assert_eq!(third.get("/health").status, 200);
}

#[test]
fn a_held_poll_does_not_give_way() {
    let server = Server::start(&["--max-connections", "2"]);
    let mut poll = server.connect();
    poll.send_request("GET", "/topics/news?since=now&wait=60");
    wait_until("it is held", || shows(&server, "polls_held 1"));
    for _ in 0..5 {
        let _idle = server.connect();
        wait_until("the idle one gives way", || server.get("/health").status == 200);
    }
    assert!(poll.has_received_nothing());
    let mut publisher = None;
    wait_until("it is published", || {
        publisher = Some(server.connect().post("/topics/news", "", "hello"));
        publisher.as_ref().is_some_and(|response| response.status == 201)
    });
    assert_eq!(poll.response().data(), ["hello"]);
}

#[test]
fn clients_that_come_one_after_the_other_need_one_place() {
    let server = Server::start(&["--max-connections", "2"]);
    let _poll = hold(&server, 1);
    let answers = (0..200).map(|_| server.get("/health").status);
    let refused = answers.filter(|status| *status != 200).count();
    assert_eq!(refused, 0, "of 200 clients, each of which had left before the next one came");
}

#[test]
fn a_poll_beyond_the_cap_is_refused_and_everything_else_gets_through() {
    let server = Server::start(&["--max-connections", "16", "--max-polls", "2"]);
    let mut held = [(); 2].map(|()| server.hold_poll("/topics/news?since=now&wait=60"));
    let mut client = server.connect();
    let response = client.get("/topics/news?since=now&wait=60");
    retry_after(&response, 503);
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
fn a_topic_beyond_the_cap_is_refused_until_one_is_empty() {
    let server = Server::start(&["--max-topics", "2"]);
    let mut client = server.connect();
    server.publish("a", "x");
    // To ask for a topic does not make it.
    assert_eq!(client.get("/topics/c,d,e?wait=0").status, 200);
    server.publish("b", "x");
    let response = client.post("/topics/c", "", "x");
    retry_after(&response, 429);
    assert!(response.detail().contains("--max-topics"), "{}", response.detail());
    assert_eq!(client.post("/topics/a", "", "x").status, 201);
    assert_eq!(client.send_request("DELETE", "/topics/b").response().status, 204);
    assert_eq!(client.post("/topics/c", "", "x").status, 201);
    assert_eq!(client.post("/topics/b", "", "x").status, 429);
    assert_eq!(server.metric("topics"), 2.0);
}

#[test]
fn a_head_or_body_that_does_not_arrive_in_time_is_refused() {
    let flags = ["--head-timeout", "100ms", "--body-timeout", "100ms"];
    let server = Server::start(&flags);
    for begun in [
        "G",
        "GET /health HTTP/1.1\r\nHost: localhost\r\n",
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhel",
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
    ] {
        let mut client = server.connect();
        let sent = Instant::now();
        let response = client.send(begun).response();
        assert!(sent.elapsed() >= Duration::from_millis(100));
        assert_eq!(response.status, 408, "{begun:?}");
        let what = if begun.starts_with("POST") { "body" } else { "head" };
        assert!(response.detail().contains(what), "{}", response.detail());
        assert_eq!(response.header("Connection"), Some("close"));
        assert!(client.is_closed());
    }
    assert_eq!(server.get("/topics/news?wait=0").seqs(), [0; 0]);
}

#[test]
fn a_byte_now_and_then_does_not_extend_the_time_for_a_head_or_a_body() {
    let server = Server::start(&["--head-timeout", "100ms", "--body-timeout", "100ms"]);
    for begun in [
        "GET /health HTTP/1.1\r\nHost: localhost\r\nX: ",
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65536\r\n\r\n",
    ] {
        let mut client = server.connect();
        let mut pace = server.connect();
        client.send(begun);
        wait_until("the time is over", || {
            client.send("x");
            pace.get("/health");
            !client.has_received_nothing()
        });
        assert_eq!(client.response().status, 408, "{begun:?}");
    }
}

#[test]
fn a_connection_that_stays_idle_is_closed_without_a_word() {
    let server = Server::start(&["--idle-timeout", "100ms"]);
    let mut silent = server.connect();
    assert!(silent.is_closed());
    let mut client = server.connect();
    assert_eq!(client.get("/health").status, 200);
    assert!(client.is_closed());
    // To be held is not to be idle.
    let begun = Instant::now();
    assert_eq!(server.get("/topics/news?wait=0.3").json()["reason"], "timeout");
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_reader_that_never_reads_is_closed_when_its_time_is_over() {
    let server = Server::start(&["--write-timeout", "200ms"]);
    let _client = never_reads(&server);
    // The one that asks is open, too.
    wait_until("it is closed", || server.metric("connections") == 1.0);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_reader_that_is_slow_to_begin_gets_all_of_its_answers() {
    let server = Server::start(&["--write-timeout", "60s"]);
    let mut client = server.connect();
    server.publish("large", &"x".repeat(15_000));
    ask_for_much(&mut client);
    let mut other = server.connect();
    for _ in 0..100 {
        assert_eq!(other.get("/health").status, 200);
    }
    for _ in 0..MUCH {
        assert_eq!(client.response().body.len(), 15_000);
    }
}

#[test]
fn whoever_asks_comes_before_a_crowd_that_does_not() {
    raise_descriptor_limit();
    for begun in [
        "",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-More: ",
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhel",
    ] {
        let server = Server::start(&["--max-connections", "2"]);
        // More than queue at the door, too.
        let mut crowd: Vec<_> = (0..3_000).map(|_| server.connect()).collect();
        for one in &mut crowd {
            one.send(begun);
        }
        // One after the other they would all have been let in, and closed, before this.
        let page = server.get("/metrics");
        let name = "\nlongpoll_connections_gave_way_total ";
        let gave_way = page.text().split(name).nth(1).and_then(|rest| rest.lines().next());
        let gave_way: usize = gave_way.expect("the metric").parse().unwrap();
        assert!(gave_way < 300, "{gave_way} were let in before, with {begun:?}");
    }
}

#[test]
fn those_who_queue_at_a_full_server_are_all_told_at_once_that_it_is_full() {
    let server =
        Server::start(&["--max-connections", "3", "--max-polls", "2", "--max-event", "1MiB"]);
    server.publish_large_event();
    let _polls = [1, 2].map(|polls| hold(&server, polls));
    let _blocked = server.occupy_connection();
    // More than queue at the door.
    let mut crowd: Vec<_> = (0..400).map(|_| server.connect()).collect();
    for one in &mut crowd {
        one.send_request("GET", "/health");
    }
    for one in &mut crowd {
        retry_after(&one.response(), 503);
    }
}

#[test]
fn a_burst_of_connections_is_answered_to_the_last() {
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
fn descriptors_are_given_back_and_threads_are_used_again() {
    let server = Server::start(&["--max-connections", "40"]);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    server.get("/health");
    wait_until("alone", || server.metric("connections") == 1.0);
    // Those of the connection that asked may be closing still.
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
        wait_until("the descriptors are back", || descriptors() <= before);
        assert!(server.status_number("Threads:") <= 40 + 8);
    }
}
