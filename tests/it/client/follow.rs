//! Guards `longpoll follow`: it prints every event once, in order, in the requested format.

use std::net::SocketAddr;

use crate::support::Server;
use crate::support::command::{RunningCommand, numbered_lines, run, wait_for_exit};
use crate::support::fake_server::{FakeServer, page_response};
use crate::support::temp_dir::TempDir;

const SIGTERM: i32 = 15;

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn follow(server: &Server, args: &[&str]) -> RunningCommand {
    let url = url(server.address);
    RunningCommand::start(&[&["follow", "--format", "raw"], args, &[&url, "news"]].concat())
}

/// The output of a follower that exits at the head of the log.
fn caught_up(args: &[&str]) -> String {
    let output = run(&[&["follow", "--wait", "0"], args].concat());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn events_are_printed_from_the_oldest_kept_one_onward() {
    let server = Server::start(&[]);
    server.publish("news", "one");
    server.publish("other", "not this");
    server.publish("news", "two");
    let follow = follow(&server, &[]);
    assert_eq!(follow.take(2), ["one", "two"]);
    for text in ["three", "four"] {
        server.wait_until_held(1);
        server.publish("news", text);
        assert_eq!(follow.line(), text);
    }
}

#[test]
fn since_selects_the_first_event() {
    let server = Server::start(&[]);
    let cursor = server.publish_many("news", 3).next_cursor().to_owned();
    server.publish_many("news", 2);
    for (since, expected) in
        [("last:2", "0\n1\n"), ("start", "0\n1\n2\n0\n1\n"), ("now", ""), (&*cursor, "0\n1\n")]
    {
        let url = url(server.address);
        let printed = caught_up(&["--format", "raw", "--since", since, &url, "news"]);
        assert_eq!(printed, expected, "{since}");
    }
    let now = follow(&server, &["--since", "now"]);
    server.wait_until_held(1);
    server.publish("news", "later");
    assert_eq!(now.line(), "later");
}

#[test]
fn since_now_fetches_the_cursor_before_it_waits() {
    let fake = FakeServer::new();
    let follow = RunningCommand::start(&["follow", "--since", "now", &fake.url(), "news"]);
    // The response to this request is lost. "now" must not move to a later moment.
    let request = fake.serve("");
    assert!(request.contains("since=now&wait=0&"), "{request}");
    fake.serve(page_response(&[], "e.1", "timeout").replacen(
        "\r\n",
        "\r\nConnection: close\r\n",
        1,
    ));
    for _ in 0..2 {
        let request = fake.serve("");
        assert!(request.contains("since=e.1&wait=25&"), "{request}");
    }
    fake.serve(page_response(&[2], "e.2", "data"));
    assert!(follow.line().contains("\"seq\":2"));
}

#[test]
fn count_ends_the_follower_after_this_number_of_events() {
    let server = Server::start(&[]);
    server.publish_many("news", 5);
    for count in 1..5 {
        let (code, lines, errors) = follow(&server, &["--count", &count.to_string()]).finish();
        assert_eq!((code, lines.len(), &*errors), (Some(0), count, ""));
    }
    // With fewer events than the count, the follower waits for the rest.
    let follow = follow(&server, &["--count", "6"]);
    server.wait_until_held(1);
    server.publish("news", "last");
    let (code, lines, _) = follow.finish();
    assert_eq!((code, lines.len()), (Some(0), 6));
}

#[test]
fn each_format_prints_events_as_documented() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.post("/topics/a?type=alert", "", "line\nbreak");
    let json = "{\"n\":1.10,\r\n\"big\":123456789012345678901234567890}";
    client.post("/topics/b", "Content-Type: application/json\r\n", json);
    client.post("/topics/c", "Content-Type: image/png\r\n", b"\xff\x00\n\x1b[2J");
    let url = url(server.address);
    let print = |format| {
        let args = ["follow", "--wait", "0", "--format", format, &url, "c,a,b"];
        run(&args).stdout
    };
    let lines = print("ndjson");
    let page = server.get("/topics/a,b,c").json();
    let events: Vec<serde_json::Value> = lines
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(events, *page["events"].as_array().unwrap());
    let text = String::from_utf8(lines).unwrap();
    assert!(text.contains("{\"n\":1.10,  \"big\":123456789012345678901234567890}"), "{text}");
    let raw = [
        b"line\nbreak\n".as_slice(),
        b"{\"n\":1.10,  \"big\":123456789012345678901234567890}\n",
        b"\xff\x00\n\x1b[2J\n",
    ];
    assert_eq!(print("raw"), raw.concat());
    let page_json: serde_json::Value = serde_json::from_slice(&print("json")).unwrap();
    assert_eq!((&page_json["events"], &page_json["next"]), (&page["events"], &page["next"]));
    let shown = print("{seq}:{topic}:{type}:{{\\t}}");
    assert_eq!(shown, b"1:a:alert:{\t}\n2:b::{\t}\n3:c::{\t}\n");
    let times = String::from_utf8(print("{time}|{json}")).unwrap();
    for (line, event) in times.lines().zip(events) {
        let (time, json) = line.split_once('|').unwrap();
        assert_eq!(event["time"], *time);
        assert_eq!(serde_json::from_str::<serde_json::Value>(json).unwrap(), event);
    }
}

#[test]
fn only_the_requested_types_are_printed() {
    let server = Server::start(&[]);
    for tag in ["?type=a", "?type=b", "", "?type=c"] {
        server.connect().post(&format!("/topics/news{tag}"), "", tag);
    }
    let url = url(server.address);
    let printed = caught_up(&["--type", "c,a", "--format", "{type}", &url, "*"]);
    assert_eq!(printed, "a\nc\n");
}

#[test]
fn unix_socket_works_as_an_address() {
    let dir = TempDir::new();
    let url = format!("unix:{}", dir.path("socket"));
    let server = Server::start(&["--listen", &url]);
    let follow = RunningCommand::start(&["follow", "--format", "raw", &url, "news"]);
    server.wait_until_held(1);
    let published = run(&["publish", &url, "news", "hello"]);
    assert!(published.status.success(), "{published:?}");
    assert_eq!(follow.line(), "hello");
}

#[test]
fn largest_event_is_printed_whole() {
    let server = Server::start(&["--max-event", "1MiB"]);
    // JSON makes this event six times as large.
    let body = vec![1; 1 << 20];
    assert_eq!(server.connect().post("/topics/news", "", &body).status, 201);
    let output = run(&["follow", "--wait", "0", "--format", "raw", &url(server.address), "news"]);
    assert_eq!(output.stdout.len(), body.len() + 1, "{output:?}");
    assert_eq!(output.stdout[..body.len()], body);
}

#[test]
fn many_pages_are_read_in_order() {
    let server = Server::start(&["--retain-events", "100000"]);
    let lines = numbered_lines(1_000);
    for _ in 0..5 {
        let response =
            server.connect().post("/topics/news", "Content-Type: application/x-ndjson\r\n", &lines);
        assert_eq!(response.status, 201);
    }
    let url = url(server.address);
    let printed = caught_up(&["--format", "raw", &url, "news"]);
    assert_eq!(printed, lines.repeat(5));
}

#[test]
fn signal_ends_the_follower_at_once_with_status_0() {
    for signal in [2, SIGTERM] {
        let server = Server::start(&[]);
        let follow = follow(&server, &["--wait", "50s"]);
        server.wait_until_held(1);
        follow.signal(signal);
        assert_eq!(follow.finish(), (Some(0), vec![], String::new()));
    }
}

#[test]
fn follower_ends_when_its_stdout_is_closed() {
    use std::process::Stdio;
    let server = Server::start(&[]);
    let url = url(server.address);
    let mut command = crate::support::program();
    command.args(["follow", "--format", "raw", &url, "news"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    server.wait_until_held(1);
    // As `head` does after its last line; the follower ends without another event.
    drop(child.stdout.take());
    let output = wait_for_exit(child);
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[test]
fn closed_pipe_during_a_write_is_not_an_error() {
    let server = Server::start(&[]);
    server.publish("news", &"x".repeat(60_000));
    server.publish("news", &"x".repeat(60_000));
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let url = url(server.address);
    let mut command = crate::support::program();
    command.args(["follow", "--format", "raw", &url, "news"]).stdout(writer);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(command);
    // The reader closes while the follower is blocked in a write, or before that write.
    drop(reader);
    let output = wait_for_exit(child);
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[test]
fn gap_ends_the_follower_with_its_own_status_or_is_reported_and_skipped() {
    let server = Server::start(&["--retain-events", "3"]);
    let cursor = server.publish("news", "0").next_cursor().to_owned();
    server.publish_many("news", 10);
    let (code, lines, errors) = follow(&server, &["--since", &cursor]).finish();
    assert_eq!((code, lines.len()), (Some(3), 0));
    assert!(errors.contains("gap") && errors.contains("7 in news"), "{errors}");
    assert!(errors.contains("--on-gap skip"), "{errors}");
    let args = ["--since", &cursor, "--on-gap", "skip", "--wait", "0"];
    let (code, lines, errors) = follow(&server, &args).finish();
    assert_eq!((code, lines), (Some(0), vec!["7".to_owned(), "8".into(), "9".into()]));
    assert!(errors.contains("7 in news") && errors.contains("going on"), "{errors}");
}
