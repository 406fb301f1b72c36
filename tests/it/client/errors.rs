//! Guards the follower's reaction to errors of the server and the network: it continues, retries
//! later, or exits with a reason.

use std::time::{Duration, Instant};

use crate::support::Server;
use crate::support::command::{RunningCommand, assert_failure, run};
use crate::support::fake_server::{FakeServer, http_response, page_response};
use crate::support::proxy::{FaultyProxy, ProxyMode};
use crate::support::temp_dir::TempDir;
use crate::support::wait_until;

const SIGTERM: i32 = 15;

fn follow(url: &str, args: &[&str]) -> RunningCommand {
    RunningCommand::start(&[&["follow", "--format", "raw"], args, &[url, "news"]].concat())
}

/// The `since` of a request.
fn since(request: &str) -> &str {
    request.split("since=").nth(1).unwrap().split('&').next().unwrap()
}

#[test]
fn follower_reconnects_at_once_after_a_drain() {
    let fake = FakeServer::new();
    let follow = follow(&fake.url(), &[]);
    assert_eq!(since(&fake.serve(page_response(&[], "e.1", "timeout"))), "start");
    let mut held = fake.accept();
    assert_eq!(since(&held.request()), "e.1");
    held.send(
        page_response(&[2], "e.2", "drain").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
    );
    assert_eq!(follow.line(), "2");
    assert_eq!(since(&fake.serve(page_response(&[3], "e.3", "data"))), "e.2");
    assert_eq!(follow.line(), "3");
    assert!(follow.error_line("shutting down").contains("at once"));
}

#[test]
fn follower_waits_for_a_server_that_is_gone() {
    let mut first = Server::start(&[]);
    let proxy = FaultyProxy::start(first.address, || ProxyMode::PassThrough);
    let follow = follow(&proxy.url(), &["--on-gap", "skip"]);
    first.wait_until_held(1);
    first.publish("news", "one");
    assert_eq!(follow.line(), "one");
    first.wait_until_held(1);
    first.signal(SIGTERM);
    first.wait();
    follow.error_line("hangs up");
    // Without a store, the next server has a new epoch, which the follower reports.
    let second = Server::start(&[]);
    second.publish("news", "two");
    proxy.set_upstream(second.address);
    assert_eq!(follow.line(), "two");
    assert!(follow.error_line("gap").contains("new epoch"));
    second.wait_until_held(1);
    second.publish("news", "three");
    assert_eq!(follow.line(), "three");
}

#[test]
fn new_epoch_ends_the_follower_unless_it_skips_gaps() {
    let first = Server::start(&[]);
    let proxy = FaultyProxy::start(first.address, || ProxyMode::PassThrough);
    let follow = follow(&proxy.url(), &[]);
    first.wait_until_held(1);
    let second = Server::start(&[]);
    second.publish("news", "two");
    proxy.set_upstream(second.address);
    drop(first);
    let (code, lines, errors) = follow.finish();
    assert_eq!((code, lines.len()), (Some(3), 0), "{errors}");
    assert!(errors.contains("new epoch"), "{errors}");
}

#[test]
fn retry_after_is_honoured() {
    let fake = FakeServer::new();
    let follow = follow(&fake.url(), &[]);
    let refused_at = Instant::now();
    fake.serve(http_response(
        "503 Service Unavailable",
        "Retry-After: 2\r\nConnection: close\r\n",
        "",
    ));
    fake.serve(page_response(&[1], "e.1", "data"));
    assert!(refused_at.elapsed() >= Duration::from_secs(2));
    assert_eq!(follow.line(), "1");
    follow.error_line("503");
}

#[test]
fn silent_network_times_out() {
    let server = Server::start(&[]);
    server.publish("news", "hello");
    let mut modes = [ProxyMode::Silent].into_iter();
    let proxy =
        FaultyProxy::start(server.address, move || modes.next().unwrap_or(ProxyMode::PassThrough));
    let follow = follow(&proxy.url(), &["--wait", "0.1s"]);
    assert_eq!(follow.line(), "hello");
    assert_eq!(proxy.broken_connections(), 1);
    follow.error_line("in time");
}

#[test]
fn response_that_stalls_is_abandoned_and_requested_again() {
    let fake = FakeServer::new();
    let follow = follow(&fake.url(), &["--wait", "0.1s"]);
    let whole = page_response(&[1, 2], "e.2", "data");
    let mut connection = fake.accept();
    connection.request();
    connection.send(&whole[..whole.len() - 30]);
    let request = fake.serve(&whole);
    assert_eq!(since(&request), "start");
    assert_eq!(follow.take(2), ["1", "2"]);
    follow.error_line("in time");
}

#[test]
fn foreign_response_is_not_taken_for_events() {
    let good = page_response(&[1], "e.1", "data");
    let body = good.split_once("\r\n\r\n").unwrap().1;
    let json = "Content-Type: application/json\r\nConnection: close\r\n";
    for strange in [
        http_response("200 OK", "Content-Type: text/html\r\nConnection: close\r\n", "<p>Log in!"),
        http_response("200 OK", json, ""),
        http_response("200 OK", json, "{}"),
        http_response("200 OK", json, &body[..body.len() - 1]),
        http_response("200 OK", json, &body.replace("e.1", "e 1&wait=0")),
        http_response("200 OK", json, &body.replace("\"data\":", "\"date\":")),
        http_response("200 OK", json, &body.replace("\"news\"", "\"$(reboot)\"")),
        // A body that is cut at a line end looks complete.
        format!("HTTP/1.1 200 OK\r\n{json}\r\n{body}"),
        "SSH-2.0-OpenSSH_9.2\r\n".into(),
        http_response("200 OK", json, &" ".repeat(9 << 20)),
    ] {
        let fake = FakeServer::new();
        let follow = follow(&fake.url(), &[]);
        fake.serve(&strange);
        follow.error_line("trying again");
        assert!(!follow.has_line(), "{strange}");
        assert_eq!(since(&fake.serve(&good)), "start");
        assert_eq!(follow.line(), "1");
    }
}

/// A page with more events than requested once made the number of those still to print wrap around.
#[test]
fn page_with_more_events_than_requested_is_refused() {
    for args in [&["--count", "2"][..], &["--exec", "cat; echo"]] {
        let fake = FakeServer::new();
        let follow = follow(&fake.url(), args);
        fake.serve(page_response(&[1, 2, 3], "e.3", "data"));
        follow.error_line("trying again");
        assert!(!follow.has_line());
        assert_eq!(since(&fake.serve(page_response(&[1], "e.1", "data"))), "start");
        assert_eq!(follow.line(), "1");
    }
}

#[test]
fn chunked_responses_of_a_proxy_are_read_completely() {
    let fake = FakeServer::new();
    let follow = follow(&fake.url(), &[]);
    let whole = page_response(&[1], "e.1", "data");
    let body = whole.split_once("\r\n\r\n").unwrap().1;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let (a, b) = body.split_at(40);
    let chunks = format!("{head}{:x}\r\n{a}\r\n{:x}\r\n{b}\r\n", a.len(), b.len());
    // The last chunk is missing.
    fake.serve(&chunks);
    assert_eq!(since(&fake.serve(format!("{chunks}0\r\n\r\n"))), "start");
    assert_eq!(follow.line(), "1");
}

#[test]
fn permanent_error_exits_with_reason() {
    let problem = "{\"title\":\"t\",\"status\":403,\"detail\":\"no right to\\u001b[2J news\"}";
    let json = "Content-Type: application/problem+json\r\n";
    for (refusal, says) in [
        (http_response("403 Forbidden", json, problem), "403: no right to [2J news"),
        (http_response("404 Not Found", "", "<html>"), "404: Not Found"),
        (http_response("301 Moved", "Location: https://x/\r\n", ""), "go to https://x/"),
        (http_response("410 Gone", "", ""), "410: Gone"),
        ("HTTP/1.1 401 Unauthorized\r\n\r\nno end is said".into(), "401: Unauthorized"),
    ] {
        let fake = FakeServer::new();
        let follow = follow(&fake.url(), &[]);
        fake.serve(refusal);
        let (code, lines, errors) = follow.finish();
        assert_eq!((code, lines.len()), (Some(1), 0), "{errors}");
        assert!(errors.contains(says), "{errors}");
    }
}

#[test]
fn refusal_of_the_real_server_is_reported() {
    let server = Server::start(&[]);
    let url = format!("http://{}", server.address);
    assert_failure(
        &run(&["follow", "--since", "yesterday", &url, "news"]),
        1,
        &["400", "since=yesterday"],
    );
}

#[test]
fn token_file_is_read_for_each_request() {
    let dir = TempDir::new();
    let file = dir.path("token");
    std::fs::write(&file, "first-secret\n").unwrap();
    let fake = FakeServer::new();
    let follow = follow(&fake.url(), &["--token-file", &file]);
    let request = fake.serve(page_response(&[1], "e.1", "data"));
    assert!(
        request.to_ascii_lowercase().contains("authorization: bearer first-secret\r\n"),
        "{request}"
    );
    assert_eq!(follow.line(), "1");
    let mut held = fake.accept();
    held.request();
    std::fs::write(&file, "second-secret").unwrap();
    held.send(page_response(&[2], "e.2", "data"));
    let request = held.request();
    assert!(request.to_ascii_lowercase().contains("bearer second-secret\r\n"), "{request}");
}

#[test]
fn token_gives_access_to_a_server_with_tokens() {
    let dir = TempDir::new();
    let (tokens, secret) = (dir.path("tokens"), dir.path("secret"));
    let output = run(&["token", "reader", "read", "news"]);
    std::fs::write(&tokens, &output.stdout).unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    std::fs::write(&secret, message.trim().rsplit(' ').next().unwrap()).unwrap();
    let server = Server::start(&["--tokens", &tokens]);
    let url = format!("http://{}", server.address);
    assert_failure(&run(&["follow", &url, "news"]), 1, &["401"]);
    let with_token =
        |topic| run(&["follow", "--wait", "0", "--token-file", &secret, &url, topic]).status.code();
    assert_eq!((with_token("news"), with_token("other")), (Some(0), Some(1)));
    let publish = ["publish", "--token-file", &secret, &url, "news", "hello"];
    assert_failure(&run(&publish), 1, &["403"]);
}

#[test]
fn invalid_token_is_refused_before_the_first_request() {
    let dir = TempDir::new();
    let file = dir.path("token");
    let args = ["follow", "--token-file", &file, "127.0.0.1:1", "news"];
    assert_failure(&run(&args), 1, &["token file", &file, "No such file"]);
    for token in ["", "\n", "two words", "a\r\nEvil: yes", "\u{e9}", &"x".repeat(5_000)] {
        std::fs::write(&file, token).unwrap();
        assert_failure(&run(&args), 1, &["token file", &file]);
    }
}

#[test]
fn path_prefix_of_a_proxy_is_kept() {
    let fake = FakeServer::new();
    let follow = follow(&format!("{}/events/", fake.url()), &["--type", "b,a"]);
    let request = fake.serve(page_response(&[1], "e.1", "data"));
    assert!(request.starts_with("GET /events/topics/news?since=start&"), "{request}");
    assert!(request.contains("&type=a,b "), "{request}");
    assert_eq!(follow.line(), "1");
}

#[test]
fn follower_limits_its_rate_when_empty_pages_arrive_at_once() {
    let server = Server::start(&["--max-wait", "0"]);
    let polls = || server.metric("polls_total{reason=\"timeout\"}");
    let started = Instant::now();
    let follow = follow(&format!("http://{}", server.address), &[]);
    wait_until("three polls have been sent", || polls() >= 3.0);
    // The first poll only fetches the cursor; a second passes between the others.
    assert!(started.elapsed() >= Duration::from_secs(1));
    drop(follow);
}

#[test]
fn signal_ends_the_wait_for_a_server() {
    let fake = FakeServer::new();
    let follow = follow(&fake.url(), &[]);
    fake.serve(http_response(
        "503 Service Unavailable",
        "Retry-After: 500\r\nConnection: close\r\n",
        "",
    ));
    follow.error_line("503");
    follow.signal(SIGTERM);
    assert_eq!(follow.finish().0, Some(0));
}
