//! Guards `longpoll publish`: it publishes its input once and reports the result.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use crate::support::Server;
use crate::support::command::{
    RunningCommand, assert_failure, numbered_lines, run, run_with_stdin, wait_for_exit,
};
use crate::support::fake_server::{FakeServer, http_response};
use crate::support::temp_dir::TempDir;
use crate::support::wall_clock::WallClock;
use crate::support::{Response, program};

const SIGTERM: i32 = 15;

fn url(server: &Server) -> String {
    format!("http://{}", server.address)
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{e}: {bytes:?}"))
}

fn all_events(server: &Server) -> Response {
    server.get("/topics/news?limit=1000&wait=0")
}

#[test]
fn one_event_is_published_unchanged() {
    let server = Server::start(&[]);
    let url = url(&server);
    let publish = |args: &[&str]| run(&[&["publish"], args].concat());
    let output = publish(&[&url, "news", "héllo", "--type", "alert"]);
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
    let receipt = json(&output.stdout);
    assert_eq!((&receipt["topic"], &receipt["seq"]), (&"news".into(), &1.into()));
    assert_eq!(receipt["cursor"], all_events(&server).next_cursor());
    publish(&["--json", &url, "news", "{\"a\": [1.0]}"]);
    publish(&[&url, "news", "--", "--json"]);
    publish(&[&url, "news", ""]);
    let whole = run_with_stdin(&["publish", "--stdin", "whole", &url, "news"], b"\xff\n\x00");
    assert_eq!(json(&whole.stdout)["seq"], 5);
    let page = all_events(&server).json();
    assert_eq!(page["events"][0]["type"], "alert");
    let data: Vec<_> = page["events"].as_array().unwrap().iter().map(|e| &e["data"]).collect();
    assert_eq!(
        data[..4],
        ["héllo".into(), serde_json::json!({"a": [1.0]}), "--json".into(), "".into()]
            .iter()
            .collect::<Vec<_>>()[..]
    );
    assert_eq!(page["events"][4]["data_base64"], "/woA");
}

#[test]
fn lines_are_published_in_batches_within_the_limits() {
    let server = Server::start(&["--retain-events", "100000"]);
    let url = url(&server);
    let lines = numbered_lines(2_500).replace('\n', "\n\n");
    let output = run_with_stdin(&["publish", "--type", "t", &url, "news", "-"], &lines);
    let sum = json(&output.stdout);
    assert_eq!((&sum["count"], &sum["seq"]), (&2_500.into(), &2_500.into()), "{output:?}");
    assert_eq!(server.metric("publishes_total"), 3.0);
    // 40 lines of 60,000 bytes: 17 fit into 1 MiB.
    let lines = format!("\"{}\"\n", "x".repeat(60_000)).repeat(40);
    let output = run_with_stdin(&["publish", &url, "large"], &lines);
    assert_eq!(json(&output.stdout)["count"], 40, "{output:?}");
    assert_eq!(server.metric("publishes_total"), 6.0);
    let last = server.get("/topics/news?since=last:1").json();
    assert_eq!(
        (&last["events"][0]["data"], &last["events"][0]["type"]),
        (&2_499.into(), &"t".into())
    );
    // Empty input publishes no event.
    let output = run_with_stdin(&["publish", &url, "news"], "\n \n");
    assert_eq!((output.status.code(), &json(&output.stdout)["count"]), (Some(0), &0.into()));
}

#[test]
fn text_lines_are_text_events() {
    let server = Server::start(&[]);
    let url = url(&server);
    let output =
        run_with_stdin(&["publish", "--stdin", "text", &url, "news"], "a \"b\"\n\n\tc\u{7}\nend");
    assert_eq!(json(&output.stdout)["count"], 4, "{output:?}");
    assert_eq!(all_events(&server).data(), ["a \"b\"", "", "\tc\u{7}", "end"]);
    let output = run_with_stdin(&["publish", "--stdin", "text", &url, "news"], b"fine\n\xff\n");
    assert_failure(&output, 1, &["line 2", "not UTF-8", "--stdin whole", "1 events are published"]);
}

#[test]
fn line_is_published_as_soon_as_it_is_complete() {
    let server = Server::start(&[]);
    let url = url(&server);
    let mut publish = RunningCommand::start(&["publish", &url, "news", "-"]);
    for n in 0..5 {
        let mut poll = server.hold_poll("/topics/news?since=now");
        // In two halves: an incomplete line waits.
        publish.stdin().write_all(format!("[{n}").as_bytes()).unwrap();
        publish.stdin().write_all(b"]\n").unwrap();
        assert_eq!(poll.response().data(), [serde_json::json!([n])]);
    }
    publish.close_stdin();
    let (code, lines, errors) = publish.finish();
    assert_eq!((code, &*errors), (Some(0), ""));
    assert_eq!(json(lines[0].as_bytes())["count"], 5);
}

#[test]
fn signal_between_two_lines_ends_the_publish_normally() {
    let server = Server::start(&[]);
    let url = url(&server);
    let mut publish = RunningCommand::start(&["publish", &url, "news", "-"]);
    let mut poll = server.hold_poll("/topics/news?since=now");
    publish.stdin().write_all(b"1\n").unwrap();
    poll.response();
    publish.signal(SIGTERM);
    assert!(publish.line().contains("\"count\":1"));
    assert_eq!(publish.finish().0, Some(0));
}

#[test]
fn error_reports_what_was_published() {
    let server = Server::start(&["--max-event", "100"]);
    let url = url(&server);
    let publish = |lines: &str| run_with_stdin(&["publish", &url, "news"], lines);
    assert_failure(
        &publish("1\n2\n\nx\n5\n"),
        1,
        &["line 4 of the input is not JSON", "2 events are"],
    );
    assert_eq!(all_events(&server).data(), [1, 2]);
    let long = format!("3\n\"{}\"\n", "x".repeat(200));
    assert_failure(
        &publish(&long),
        1,
        &["lines 1 to 2", "413", "line 2 has 202 bytes", "0 events"],
    );
    let endless = format!("4\n\"{}", "x".repeat(2 << 20));
    assert_failure(&publish(&endless), 1, &["line 2 of the input has", "1 events are"]);
    let whole = run_with_stdin(&["publish", "--stdin", "whole", &url, "news"], &endless);
    assert_failure(&whole, 1, &["too many for one event"]);
    assert_failure(&run(&["publish", "--json", &url, "news", "{"]), 1, &["400", "not JSON"]);
    assert_eq!(all_events(&server).data(), [1, 2, 4]);
}

#[test]
fn same_command_with_a_key_publishes_once() {
    let server = Server::start(&[]);
    let url = url(&server);
    let publish = |data| run(&["publish", "--key", "k 1", &url, "news", data]);
    assert_eq!(json(&publish("a").stdout)["seq"], 1);
    let again = json(&publish("a").stdout);
    assert_eq!((&again["seq"], &again["duplicate"]), (&1.into(), &true.into()));
    assert_failure(&publish("b"), 1, &["422"]);
    assert_eq!(all_events(&server).data(), ["a"]);
}

#[test]
fn publish_gives_up_in_time_and_reports_the_last_error() {
    let fake = FakeServer::new();
    let url = fake.url();
    let publish = RunningCommand::start(&["publish", "--retry-for", "2s", &url, "news", "x"]);
    let busy = http_response("503 Busy", "Connection: close\r\nRetry-After: 1\r\n", "");
    let key = |request: String| {
        let lower = request.to_ascii_lowercase();
        lower.split("idempotency-key: ").nth(1).unwrap().split('\r').next().unwrap().to_owned()
    };
    let first = key(fake.serve(&busy));
    assert_eq!((key(fake.serve(&busy)), first.len()), (first, 32));
    let (code, lines, errors) = publish.finish();
    assert_eq!((code, lines.len()), (Some(1), 0));
    assert!(errors.contains("gave up after ") && errors.contains("503"), "{errors}");
}

/// Such as while the machine slept: the monotonic clock stands still then, and the server forgets
/// the key after ten minutes.
#[test]
fn publish_is_not_sent_again_when_the_wall_clock_says_that_its_key_is_too_old() {
    let Some(clock) = WallClock::new() else { return };
    // A second of the pause counts as 500.
    clock.set("+0 x500");
    let fake = FakeServer::new();
    let url = fake.url();
    let mut command = program();
    command.args(["publish", "--retry-for", "8m", &url, "news", "x"]);
    clock.apply(&mut command);
    let publish = RunningCommand::spawn(&mut command);
    fake.serve(http_response("503 Busy", "Connection: close\r\nRetry-After: 1\r\n", ""));
    let (code, lines, errors) = publish.finish();
    assert_eq!(fake.unaccepted_requests(), [""; 0], "{errors}");
    assert_eq!((code, lines.len()), (Some(1), 0));
    assert!(errors.contains("the outcome is unknown"), "{errors}");
}

#[test]
fn signal_ends_the_retries() {
    let publish = RunningCommand::start(&["publish", "127.0.0.1:1", "news", "x"]);
    publish.error_line("trying again");
    publish.signal(SIGTERM);
    let (code, _, errors) = publish.finish();
    assert_eq!(code, Some(1));
    assert!(errors.contains("stopped before the server answered"), "{errors}");
}

#[test]
fn token_is_sent() {
    let dir = TempDir::new();
    let file = dir.path("token");
    std::fs::write(&file, "secret\n").unwrap();
    let fake = FakeServer::new();
    let url = fake.url();
    let publish = RunningCommand::start(&["publish", "--token-file", &file, &url, "news", "x"]);
    let receipt = "{\"topic\":\"news\",\"seq\":1,\"cursor\":\"e.1\"}\n";
    let request =
        fake.serve(http_response("201 Created", "Content-Type: application/json\r\n", receipt));
    assert!(request.to_ascii_lowercase().contains("authorization: bearer secret\r\n"), "{request}");
    assert_eq!(publish.line(), receipt.trim_end());
    assert_eq!(publish.finish().0, Some(0));
}

/// A pseudo-terminal: the end of the program and the end of the user.
fn terminal() -> (OwnedFd, std::fs::File) {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let user_end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&user_end).unwrap();
    unlockpt(&user_end).unwrap();
    let name = ptsname(&user_end, Vec::new()).unwrap();
    let program = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (program, user_end.into())
}

#[test]
fn long_publish_shows_its_progress_on_a_terminal() {
    let server = Server::start(&[]);
    let url = url(&server);
    let (tty, mut user_end) = terminal();
    let mut command = program();
    command.args(["publish", "--stdin", "text", &url, "news"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).stderr(tty);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut stdin = child.stdin.take().unwrap();
    let mut seen = String::new();
    // The test writes lines until the first progress report appears.
    let reader = std::thread::spawn(move || {
        let mut chunk = [0; 1_024];
        while !seen.contains("events/s") {
            let count = user_end.read(&mut chunk).unwrap();
            seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
        (seen, user_end)
    });
    while !reader.is_finished() {
        stdin.write_all(b"line\n").unwrap();
        server.get("/health");
    }
    drop(stdin);
    let (seen, _person) = reader.join().unwrap();
    assert!(seen.starts_with("\r\x1b[K") && seen.contains(" KiB, "), "{seen:?}");
    let output = wait_for_exit(child);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(json(&output.stdout)["topic"], "news");
}
