//! Goal: a follower that keeps its place goes on where it was, whatever ended it, and never at the
//! place of another.

use std::io::Read;

use crate::support::Server;
use crate::support::command::{RunningCommand, wait_for_exit};
use crate::support::command::{assert_failure, run};
use crate::support::temp_dir::TempDir;

const SIGTERM: i32 = 15;

struct Place {
    server: Server,
    folder: TempDir,
    url: String,
}

impl Place {
    fn new(flags: &[&str]) -> Place {
        let server = Server::start(flags);
        let url = format!("http://{}", server.address);
        Place { server, folder: TempDir::new(), url }
    }

    fn state(&self) -> String {
        self.folder.path("state")
    }

    fn kept(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.state()).unwrap()).unwrap()
    }

    fn follow(&self, args: &[&str]) -> RunningCommand {
        let state = self.state();
        let first = ["follow", "--format", "raw", "--state", &state];
        RunningCommand::start(&[&first, args, &[&self.url, "news"]].concat())
    }

    /// What is new since the last time.
    fn news(&self) -> Vec<String> {
        let (code, lines, errors) = self.follow(&["--wait", "0"]).finish();
        assert_eq!((code, &*errors), (Some(0), ""));
        lines
    }
}

#[test]
fn each_run_goes_on_where_the_last_one_ended() {
    let place = Place::new(&[]);
    place.server.publish_many("news", 3);
    assert_eq!(place.news(), ["0", "1", "2"]);
    assert_eq!(place.news(), [""; 0]);
    place.server.publish("news", "three");
    let follow = place.follow(&[]);
    assert_eq!(follow.line(), "three");
    place.server.wait_until_held(1);
    place.server.publish("news", "four");
    assert_eq!(follow.line(), "four");
    place.server.wait_until_held(1);
    follow.signal(SIGTERM);
    assert_eq!(follow.finish().0, Some(0));
    assert_eq!(place.news(), [""; 0]);
    place.server.publish("news", "five");
    // --since is for the first run.
    let (_, lines, _) = place.follow(&["--wait", "0", "--since", "start"]).finish();
    assert_eq!(lines, ["five"]);
}

#[test]
fn a_run_that_takes_some_leaves_the_rest() {
    let place = Place::new(&[]);
    place.server.publish_many("news", 5);
    let (_, lines, _) = place.follow(&["--count", "2"]).finish();
    assert_eq!(lines, ["0", "1"]);
    assert_eq!(place.news(), ["2", "3", "4"]);
}

#[test]
fn the_place_moves_on_while_nothing_comes_that_is_wanted() {
    let place = Place::new(&["--retain-events", "2"]);
    for _ in 0..3 {
        // It would be gone the next time, if it had stayed where it was.
        place.server.publish_many("news", 2);
        let (code, lines, errors) = place.follow(&["--type", "x", "--wait", "0"]).finish();
        assert_eq!((code, lines.len(), &*errors), (Some(0), 0, ""));
    }
}

#[test]
fn killed_between_printing_and_keeping_it_repeats_just_that() {
    let place = Place::new(&[]);
    place.server.publish("news", "zero");
    assert_eq!(place.news(), ["zero"]);
    place.server.publish_many("news", 2);
    // The new state is written aside first. To open a pipe there takes until somebody reads it.
    let aside = format!("{}.new", place.state());
    let made = std::process::Command::new("mkfifo").arg(&aside).status().unwrap();
    assert!(made.success());
    let follow = place.follow(&[]);
    assert_eq!(follow.take(2), ["0", "1"]);
    assert_eq!(follow.kill(), [""; 0]);
    std::fs::remove_file(&aside).unwrap();
    place.server.publish("news", "two");
    assert_eq!(place.news(), ["0", "1", "two"]);
}

#[test]
fn what_could_not_be_printed_is_not_kept() {
    let place = Place::new(&[]);
    place.server.publish("news", &"x".repeat(60_000));
    place.server.publish("news", &"y".repeat(60_000));
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let state = place.state();
    let mut command = crate::support::program();
    command.args(["follow", "--format", "raw", "--state", &state, &place.url, "news"]);
    let child = command.stdout(writer).spawn().unwrap();
    drop(command);
    // More than a pipe holds: it is still writing when the reader goes.
    let mut reader = std::fs::File::from(reader);
    reader.read_exact(&mut [0; 1_000]).unwrap();
    drop(reader);
    assert_eq!(wait_for_exit(child).status.code(), Some(0));
    assert_eq!(place.news().concat().len(), 120_000);
}

#[test]
fn a_gap_moves_the_place_only_when_it_may_be_skipped() {
    let place = Place::new(&["--retain-events", "2"]);
    place.server.publish("news", "first");
    assert_eq!(place.news(), ["first"]);
    place.server.publish_many("news", 5);
    for _ in 0..2 {
        assert_eq!(place.follow(&["--wait", "0"]).finish().0, Some(3));
    }
    let (code, lines, _) = place.follow(&["--wait", "0", "--on-gap", "skip"]).finish();
    assert_eq!((code, lines), (Some(0), vec!["3".to_owned(), "4".into()]));
    assert_eq!(place.news(), [""; 0]);
}

#[test]
fn the_place_among_other_topics_or_types_is_refused() {
    let place = Place::new(&[]);
    let state = place.state();
    let follow = |topics, types: &[&str]| {
        let first = ["follow", "--wait", "0", "--state", &state];
        run(&[&first, types, &[&place.url, topics]].concat())
    };
    assert_eq!(follow("b,a", &["--type", "y,x"]).status.code(), Some(0));
    // The order is the same to the server.
    assert_eq!(follow("a,b", &["--type", "x,y"]).status.code(), Some(0));
    let before = place.kept();
    assert_failure(&follow("a", &["--type", "x,y"]), 1, &[&state, "topics a,b", "asked is for a;"]);
    assert_failure(&follow("a,b", &[]), 1, &[&state, "types x,y", "asked is for all"]);
    assert_eq!(place.kept(), before);
}

#[test]
fn a_file_of_something_else_is_left_as_it_is() {
    let place = Place::new(&[]);
    place.server.publish("news", "hello");
    let state = place.state();
    let long = "x".repeat(100_000);
    for text in
        ["precious", "{}", "[]", "{\"topics\":\"news\",\"types\":\"\",\"cursor\":\"a b\"}", &long]
    {
        std::fs::write(&state, text).unwrap();
        let (code, lines, errors) = place.follow(&[]).finish();
        assert_eq!((code, lines.len()), (Some(1), 0), "{errors}");
        assert!(errors.contains(&state), "{errors}");
        assert_eq!(std::fs::read_to_string(&state).unwrap(), text);
    }
    for path in ["/", "/nowhere/state", "/dev/null"] {
        let output = run(&["follow", "--state", path, &place.url, "news"]);
        assert_failure(&output, 1, &["state file", path]);
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn two_at_the_same_place_are_not_let() {
    let place = Place::new(&[]);
    let first = place.follow(&[]);
    place.server.wait_until_held(1);
    for text in ["one", "two"] {
        // Also after the file was replaced.
        let (code, _, errors) = place.follow(&[]).finish();
        assert_eq!(code, Some(1));
        assert!(errors.contains("in use by another"), "{errors}");
        place.server.publish("news", text);
        assert_eq!(first.line(), text);
        place.server.wait_until_held(1);
    }
    drop(first);
    assert_eq!(place.news(), [""; 0]);
}

#[test]
fn a_link_to_the_state_and_its_mode_stay() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let place = Place::new(&[]);
    let target = place.folder.path("target");
    std::fs::write(&target, "").unwrap();
    std::fs::set_permissions(&target, PermissionsExt::from_mode(0o640)).unwrap();
    symlink(&target, place.state()).unwrap();
    place.server.publish("news", "hello");
    assert_eq!(place.news(), ["hello"]);
    assert!(std::fs::symlink_metadata(place.state()).unwrap().is_symlink());
    let mode = std::fs::metadata(&target).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(place.news(), [""; 0]);
}
