//! Guards `follow --state`: a follower resumes at its saved cursor after any end, and never at the
//! cursor of another subscription.

use std::io::Read;

use crate::support::Server;
use crate::support::command::{RunningCommand, wait_for_exit};
use crate::support::command::{assert_failure, run};
use crate::support::temp_dir::TempDir;

const SIGTERM: i32 = 15;

struct StatefulFollower {
    server: Server,
    dir: TempDir,
    url: String,
}

impl StatefulFollower {
    fn new(flags: &[&str]) -> StatefulFollower {
        let server = Server::start(flags);
        let url = format!("http://{}", server.address);
        StatefulFollower { server, dir: TempDir::new(), url }
    }

    fn state(&self) -> String {
        self.dir.path("state")
    }

    fn saved_state(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.state()).unwrap()).unwrap()
    }

    fn follow(&self, args: &[&str]) -> RunningCommand {
        let state = self.state();
        let first = ["follow", "--format", "raw", "--state", &state];
        RunningCommand::start(&[&first, args, &[&self.url, "news"]].concat())
    }

    /// Runs the follower to the head of the log; returns the printed lines.
    fn new_lines(&self) -> Vec<String> {
        let (code, lines, errors) = self.follow(&["--wait", "0"]).finish();
        assert_eq!((code, &*errors), (Some(0), ""));
        lines
    }
}

#[test]
fn each_run_resumes_where_the_last_one_ended() {
    let follower = StatefulFollower::new(&[]);
    follower.server.publish_many("news", 3);
    assert_eq!(follower.new_lines(), ["0", "1", "2"]);
    assert_eq!(follower.new_lines(), [""; 0]);
    follower.server.publish("news", "three");
    let follow = follower.follow(&[]);
    assert_eq!(follow.line(), "three");
    follower.server.wait_until_held(1);
    follower.server.publish("news", "four");
    assert_eq!(follow.line(), "four");
    follower.server.wait_until_held(1);
    follow.signal(SIGTERM);
    assert_eq!(follow.finish().0, Some(0));
    assert_eq!(follower.new_lines(), [""; 0]);
    follower.server.publish("news", "five");
    // `--since` applies to the first run only.
    let (_, lines, _) = follower.follow(&["--wait", "0", "--since", "start"]).finish();
    assert_eq!(lines, ["five"]);
}

#[test]
fn run_with_a_count_leaves_the_rest() {
    let follower = StatefulFollower::new(&[]);
    follower.server.publish_many("news", 5);
    let (_, lines, _) = follower.follow(&["--count", "2"]).finish();
    assert_eq!(lines, ["0", "1"]);
    assert_eq!(follower.new_lines(), ["2", "3", "4"]);
}

#[test]
fn saved_cursor_advances_without_matching_events() {
    let follower = StatefulFollower::new(&["--retain-events", "2"]);
    for _ in 0..3 {
        // A cursor that does not advance would be in a gap at the next run.
        follower.server.publish_many("news", 2);
        let (code, lines, errors) = follower.follow(&["--type", "x", "--wait", "0"]).finish();
        assert_eq!((code, lines.len(), &*errors), (Some(0), 0, ""));
    }
}

#[test]
fn event_is_repeated_after_a_kill_between_print_and_save() {
    let follower = StatefulFollower::new(&[]);
    follower.server.publish("news", "zero");
    assert_eq!(follower.new_lines(), ["zero"]);
    follower.server.publish_many("news", 2);
    // The follower writes the new state to a temporary file first. Here that file is a pipe, so
    // that its open blocks until the test reads.
    let temporary = format!("{}.new", follower.state());
    let made = std::process::Command::new("mkfifo").arg(&temporary).status().unwrap();
    assert!(made.success());
    let follow = follower.follow(&[]);
    assert_eq!(follow.take(2), ["0", "1"]);
    assert_eq!(follow.kill(), [""; 0]);
    std::fs::remove_file(&temporary).unwrap();
    follower.server.publish("news", "two");
    assert_eq!(follower.new_lines(), ["0", "1", "two"]);
}

#[test]
fn unprinted_event_is_not_saved() {
    let follower = StatefulFollower::new(&[]);
    follower.server.publish("news", &"x".repeat(60_000));
    follower.server.publish("news", &"y".repeat(60_000));
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let state = follower.state();
    let mut command = crate::support::program();
    command.args(["follow", "--format", "raw", "--state", &state, &follower.url, "news"]);
    let child = command.stdout(writer).spawn().unwrap();
    drop(command);
    // More than a pipe holds, so that the follower is still writing when the reader closes.
    let mut reader = std::fs::File::from(reader);
    reader.read_exact(&mut [0; 1_000]).unwrap();
    drop(reader);
    assert_eq!(wait_for_exit(child).status.code(), Some(0));
    assert_eq!(follower.new_lines().concat().len(), 120_000);
}

#[test]
fn gap_advances_the_saved_cursor_only_if_it_is_skipped() {
    let follower = StatefulFollower::new(&["--retain-events", "2"]);
    follower.server.publish("news", "first");
    assert_eq!(follower.new_lines(), ["first"]);
    follower.server.publish_many("news", 5);
    for _ in 0..2 {
        assert_eq!(follower.follow(&["--wait", "0"]).finish().0, Some(3));
    }
    let (code, lines, _) = follower.follow(&["--wait", "0", "--on-gap", "skip"]).finish();
    assert_eq!((code, lines), (Some(0), vec!["3".to_owned(), "4".into()]));
    assert_eq!(follower.new_lines(), [""; 0]);
}

#[test]
fn state_of_other_topics_or_types_is_refused() {
    let follower = StatefulFollower::new(&[]);
    let state = follower.state();
    let follow = |topics, types: &[&str]| {
        let first = ["follow", "--wait", "0", "--state", &state];
        run(&[&first, types, &[&follower.url, topics]].concat())
    };
    assert_eq!(follow("b,a", &["--type", "y,x"]).status.code(), Some(0));
    // The server ignores the order of topics and types.
    assert_eq!(follow("a,b", &["--type", "x,y"]).status.code(), Some(0));
    let before = follower.saved_state();
    assert_failure(&follow("a", &["--type", "x,y"]), 1, &[&state, "topics a,b", "is for a;"]);
    assert_failure(&follow("a,b", &[]), 1, &[&state, "types x,y", "is for all;"]);
    assert_eq!(follower.saved_state(), before);
}

#[test]
fn foreign_file_is_not_overwritten() {
    let follower = StatefulFollower::new(&[]);
    follower.server.publish("news", "hello");
    let state = follower.state();
    let long = "x".repeat(100_000);
    for text in
        ["precious", "{}", "[]", "{\"topics\":\"news\",\"types\":\"\",\"cursor\":\"a b\"}", &long]
    {
        std::fs::write(&state, text).unwrap();
        let (code, lines, errors) = follower.follow(&[]).finish();
        assert_eq!((code, lines.len()), (Some(1), 0), "{errors}");
        assert!(errors.contains(&state), "{errors}");
        assert_eq!(std::fs::read_to_string(&state).unwrap(), text);
    }
    for path in ["/", "/nowhere/state", "/dev/null"] {
        let output = run(&["follow", "--state", path, &follower.url, "news"]);
        assert_failure(&output, 1, &["state file", path]);
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn second_follower_with_the_same_state_is_refused() {
    let follower = StatefulFollower::new(&[]);
    let first = follower.follow(&[]);
    follower.server.wait_until_held(1);
    for text in ["one", "two"] {
        // Refused also after the file was replaced.
        let (code, _, errors) = follower.follow(&[]).finish();
        assert_eq!(code, Some(1));
        assert!(errors.contains("in use by another"), "{errors}");
        follower.server.publish("news", text);
        assert_eq!(first.line(), text);
        follower.server.wait_until_held(1);
    }
    drop(first);
    assert_eq!(follower.new_lines(), [""; 0]);
}

#[test]
fn symlink_to_the_state_and_its_mode_are_kept() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let follower = StatefulFollower::new(&[]);
    let target = follower.dir.path("target");
    std::fs::write(&target, "").unwrap();
    std::fs::set_permissions(&target, PermissionsExt::from_mode(0o640)).unwrap();
    symlink(&target, follower.state()).unwrap();
    follower.server.publish("news", "hello");
    assert_eq!(follower.new_lines(), ["hello"]);
    assert!(std::fs::symlink_metadata(follower.state()).unwrap().is_symlink());
    let mode = std::fs::metadata(&target).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(follower.new_lines(), [""; 0]);
}
