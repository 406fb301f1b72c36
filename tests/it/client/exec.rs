//! Guards `follow --exec`: the command runs once per event, one after the other, and event content
//! is never parsed by a shell.

use std::path::Path;

use crate::support::command::{RunningCommand, run};
use crate::support::temp_dir::TempDir;
use crate::support::{Server, wait_until};

const SIGTERM: i32 = 15;

fn url(server: &Server) -> String {
    format!("http://{}", server.address)
}

#[test]
fn event_is_on_stdin_and_its_fields_are_in_the_environment() {
    let server = Server::start(&[]);
    let dir = TempDir::new();
    let touched = dir.path("touched");
    let hostile = format!("$(touch {touched}) `touch {touched}`; touch {touched} '\" \n{touched}");
    let path = "/topics/news?type=alert";
    assert_eq!(server.connect().post(path, "", &hostile).status, 201);
    server.publish("other", "plain");
    let show = "printf '%s/%s/%s/%s/' \"$LONGPOLL_SEQ\" \"$LONGPOLL_TOPIC\" \"$LONGPOLL_TYPE\" \
                \"${LONGPOLL_TIME%T*}\"; cat; echo .";
    let output =
        run(&["follow", "--wait", "0", "--format", "raw", "--exec", show, &url(&server), "*"]);
    let page = server.get("/topics/*").json();
    let day = page["events"][0]["time"].as_str().unwrap().split('T').next().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(shown, format!("1/news/alert/{day}/{hostile}.\n2/other//{day}/plain.\n"));
    assert!(!Path::new(&touched).exists());
    let output = run(&["follow", "--wait", "0", "--exec", "cat", &url(&server), "other"]);
    let event: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(event, page["events"][1]);
}

#[test]
fn failing_command_is_retried_and_later_events_wait() {
    let server = Server::start(&[]);
    let dir = TempDir::new();
    let (state, allow, log) = (dir.path("state"), dir.path("allow"), dir.path("log"));
    server.publish_many("news", 4);
    // The command fails for event 3 until a file exists.
    let command = format!("read n; echo $n >> {log}; [ $LONGPOLL_SEQ -ne 3 ] || [ -e {allow} ]");
    let url = url(&server);
    let args = ["follow", "--format", "raw", "--state", &state, "--exec", &command, &url, "news"];
    let follow = RunningCommand::start(&args);
    for _ in 0..3 {
        assert!(follow.error_line("event 3").contains("exit status: 1"));
    }
    let kept = std::fs::read_to_string(&state).unwrap();
    assert!(kept.contains(".2\""), "{kept}");
    follow.signal(SIGTERM);
    assert_eq!(follow.finish().0, Some(0));
    assert_eq!(std::fs::read_to_string(&state).unwrap(), kept);
    let seen = std::fs::read_to_string(&log).unwrap();
    assert!(seen.starts_with("0\n1\n2\n2\n2\n") && !seen.contains('3'), "{seen:?}");
    std::fs::write(&allow, "").unwrap();
    std::fs::remove_file(&log).unwrap();
    let follow = RunningCommand::start(&args);
    wait_until("the last event is handled", || {
        std::fs::read_to_string(&state).unwrap().contains(".4\"")
    });
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "2\n3\n");
    drop(follow);
}

#[test]
fn command_runs_again_if_the_follower_was_killed_meanwhile() {
    let server = Server::start(&[]);
    let dir = TempDir::new();
    let (state, pipe) = (dir.path("state"), dir.path("pipe"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    server.publish_many("news", 2);
    let url = url(&server);
    // The command prints its event and runs until the test writes to the pipe.
    let command = format!("cat; echo; read go < {pipe}");
    let args = ["follow", "--format", "raw", "--state", &state, "--exec", &command, &url, "news"];
    let follow = RunningCommand::start(&args);
    assert_eq!(follow.line(), "0");
    std::fs::write(&pipe, "go\n").unwrap();
    assert_eq!(follow.line(), "1");
    follow.signal(9);
    std::fs::write(&pipe, "go\n").unwrap();
    let _ = follow.finish();
    let follow = RunningCommand::start(&args);
    assert_eq!(follow.line(), "1");
    std::fs::write(&pipe, "go\n").unwrap();
    wait_until("the cursor is saved", || std::fs::read_to_string(&state).unwrap().contains(".2\""));
    assert!(!follow.has_line());
}

#[test]
fn command_may_ignore_its_stdin() {
    let server = Server::start(&["--max-event", "1MiB"]);
    for _ in 0..2 {
        let large = vec![b'x'; 1 << 20];
        assert_eq!(server.connect().post("/topics/news", "", large).status, 201);
    }
    let args = ["follow", "--wait", "0", "--exec", "echo $LONGPOLL_SEQ", &url(&server), "news"];
    let output = run(&args);
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"1\n2\n"[..]), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn running_command_finishes_before_the_follower_stops() {
    let server = Server::start(&[]);
    let dir = TempDir::new();
    let (state, pipe) = (dir.path("state"), dir.path("pipe"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    server.publish_many("news", 2);
    let command = format!("cat; echo; read go < {pipe}");
    let url = url(&server);
    let args = ["follow", "--format", "raw", "--state", &state, "--exec", &command, &url, "news"];
    let follow = RunningCommand::start(&args);
    assert_eq!(follow.line(), "0");
    follow.signal(SIGTERM);
    std::fs::write(&pipe, "go\n").unwrap();
    assert_eq!(follow.finish(), (Some(0), vec![], String::new()));
    assert!(std::fs::read_to_string(&state).unwrap().contains(".1\""));
}
