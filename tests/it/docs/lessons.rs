//! Goal: every lesson in `scripts/lessons/` finds what it shows, and leaves nothing behind, even
//! when it is interrupted.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Seconds after which a lesson hangs.
const TEST_TIMEOUT: &str = "120";

/// Lessons about what a build may be without.
const NEEDS: [(&str, bool); 4] = [
    ("11-restart.sh", cfg!(feature = "store")),
    ("14-sse.sh", cfg!(feature = "streams")),
    ("15-four-transports.sh", cfg!(feature = "websocket")),
    ("16-follow-and-publish.sh", cfg!(all(feature = "client", feature = "store"))),
];

/// All lessons in reading order. Beside them stand what they share and programs that they run.
fn all_lessons() -> Vec<PathBuf> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lessons");
    let files = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    let is_lesson = |file: &PathBuf| name(file).starts_with(|c: char| c.is_ascii_digit());
    let mut lessons: Vec<_> = files.filter(is_lesson).collect();
    lessons.sort();
    lessons
}

/// Those that this build can run.
fn lessons() -> Vec<PathBuf> {
    for (needing, _) in NEEDS {
        assert!(all_lessons().iter().any(|file| name(file) == needing), "{needing} is not there");
    }
    let is_built = |file: &PathBuf| !NEEDS.contains(&(name(file), false));
    all_lessons().into_iter().filter(is_built).collect()
}

fn lesson(number: usize) -> PathBuf {
    all_lessons().swap_remove(number - 1)
}

fn name(file: &Path) -> &str {
    file.file_name().and_then(|name| name.to_str()).expect("a plain name")
}

/// An empty directory for one run's temporary files.
fn fresh_path(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if place.exists() {
        std::fs::remove_dir_all(&place).unwrap();
    }
    std::fs::create_dir_all(&place).unwrap();
    place.canonicalize().unwrap()
}

/// Files in that directory, and processes that run in it.
fn left_in(place: &Path) -> Vec<PathBuf> {
    let inside = |path: &Path| std::fs::read_dir(path).unwrap().flatten().map(|entry| entry.path());
    let runs_there = |process: &PathBuf| {
        std::fs::read_link(process.join("cwd")).is_ok_and(|directory| directory.starts_with(place))
    };
    inside(place).chain(inside(Path::new("/proc")).filter(runs_there)).collect()
}

/// Runs a lesson from a directory that is not the repository's, on the program under test.
fn start(command: &mut Command, fresh_path: &Path) -> Child {
    command
        .current_dir(fresh_path)
        .env("LONGPOLL", env!("CARGO_BIN_EXE_longpoll"))
        .env("TMPDIR", fresh_path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a lesson starts")
}

#[test]
fn the_lessons_are_numbered_from_1() {
    let lessons = all_lessons();
    assert!(!lessons.is_empty());
    for (number, lesson) in (1..).zip(&lessons) {
        assert!(name(lesson).starts_with(&format!("{number:02}-")), "{}", lesson.display());
    }
}

#[test]
fn every_lesson_finds_what_it_shows_and_cleans_up() {
    let run = |lesson: &PathBuf| {
        let fresh_path = fresh_path(name(lesson));
        let child = start(Command::new("timeout").args([TEST_TIMEOUT]).arg(lesson), &fresh_path);
        (child, fresh_path)
    };
    let lessons = lessons();
    let running: Vec<_> = lessons.iter().map(run).collect();
    let mut failed = Vec::new();
    for (lesson, (child, fresh_path)) in lessons.iter().zip(running) {
        let done = child.wait_with_output().unwrap();
        let left = left_in(&fresh_path);
        if !done.status.success() || !left.is_empty() {
            let out = String::from_utf8_lossy(&done.stdout);
            let err = String::from_utf8_lossy(&done.stderr);
            println!("=== {}: {}, left: {left:?}\n{out}{err}", lesson.display(), done.status);
            failed.push(name(lesson));
        }
    }
    assert!(failed.is_empty(), "these lessons failed, or left something behind: {failed:?}");
}

#[test]
fn an_interrupted_lesson_takes_its_server_with_it() {
    for signal in [Signal::TERM, Signal::HUP] {
        let fresh_path = fresh_path("interrupted");
        let mut lesson = start(&mut Command::new(lesson(3)), &fresh_path);
        let mut lines = BufReader::new(lesson.stdout.take().unwrap()).lines();
        lines
            .find(|line| line.as_ref().is_ok_and(|line| line.starts_with("listening on ")))
            .expect("the server starts")
            .unwrap();
        assert!(left_in(&fresh_path).len() > 1, "the lesson and its server run there");
        let pid = Pid::from_raw(lesson.id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
        // To the end: whoever holds the pipe still runs.
        lines.for_each(drop);
        assert_eq!(lesson.wait().unwrap().code(), Some(128 + signal.as_raw()));
        assert!(left_in(&fresh_path).is_empty(), "{:?}", left_in(&fresh_path));
    }
}

/// `begin` runs functions, too, and those run commands of their own.
#[test]
fn an_interrupted_lesson_takes_with_it_what_its_jobs_have_started() {
    let fresh_path = fresh_path("interrupted-jobs");
    let script = fresh_path.join("held.sh");
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lessons/lib.sh");
    let text = format!(
        "set -euo pipefail\n. '{}'\nmkfifo \"$TMP/up\"\n\
         job() {{ sh -c 'echo up >\"$0\"; exec tail -f /dev/null' \"$TMP/up\"; true; }}\n\
         begin job job\nread -r up <\"$TMP/up\"\necho \"it is $up\"\nanswer job\n",
        lib.display()
    );
    std::fs::write(&script, text).unwrap();
    let mut lesson = start(Command::new("bash").arg(&script), &fresh_path);
    let mut lines = BufReader::new(lesson.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().is_ok_and(|line| line == "it is up")).unwrap().unwrap();
    let pid = Pid::from_raw(lesson.id() as i32).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    lines.for_each(drop);
    let ended = lesson.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(128 + Signal::TERM.as_raw()), "{ended:?}");
    // What was killed may take a moment to go.
    crate::support::wait_until("nothing is left", || left_in(&fresh_path) == [script.clone()]);
}

#[test]
fn the_lesson_on_tabs_has_something_to_show_without_node() {
    let fresh_path = fresh_path("without-node");
    let child = start(
        Command::new("timeout").args([TEST_TIMEOUT]).arg(lesson(13)).env("NODE", ""),
        &fresh_path,
    );
    let done = child.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{out}{}", String::from_utf8_lossy(&done.stderr));
    assert!(out.contains("There is no Node here"), "{out}");
    assert!(out.contains("ok: tab 6 has it"), "{out}");
}
