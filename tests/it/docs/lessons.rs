//! Guards the lessons in `scripts/lessons/`: each one demonstrates its point and leaves no process
//! or file behind, even when it is interrupted.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The time limit of a lesson in seconds.
const LESSON_TIMEOUT: &str = "120";

/// Lessons about optional features, and whether this build has them.
const NEEDS: [(&str, bool); 4] = [
    ("11-restart.sh", cfg!(feature = "store")),
    ("14-sse.sh", cfg!(feature = "streams")),
    ("15-four-transports.sh", cfg!(feature = "websocket")),
    ("16-follow-and-publish.sh", cfg!(all(feature = "client", feature = "store"))),
];

/// All lessons in reading order, without the library and the programs that they use.
fn all_lessons() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lessons");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_lesson = |file: &PathBuf| {
        name(file).starts_with(|c: char| c.is_ascii_digit())
            && file.extension().is_some_and(|e| e == "sh")
    };
    let mut lessons: Vec<_> = files.filter(is_lesson).collect();
    lessons.sort();
    lessons
}

/// The lessons that this build can run.
fn lessons() -> Vec<PathBuf> {
    for (needing, _) in NEEDS {
        assert!(all_lessons().iter().any(|file| name(file) == needing), "there is no {needing}");
    }
    let is_built = |file: &PathBuf| !NEEDS.contains(&(name(file), false));
    all_lessons().into_iter().filter(is_built).collect()
}

fn lesson(number: usize) -> PathBuf {
    all_lessons().swap_remove(number)
}

fn name(file: &Path) -> &str {
    file.file_name().and_then(|name| name.to_str()).expect("a plain name")
}

/// An empty directory for one run's temporary files.
fn temp_dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    std::fs::create_dir_all(&dir).unwrap();
    dir.canonicalize().unwrap()
}

/// Files in a directory, and processes whose working directory it is.
fn left_in(dir: &Path) -> Vec<PathBuf> {
    let inside = |path: &Path| std::fs::read_dir(path).unwrap().flatten().map(|entry| entry.path());
    let runs_there = |process: &PathBuf| {
        std::fs::read_link(process.join("cwd")).is_ok_and(|directory| directory.starts_with(dir))
    };
    inside(dir).chain(inside(Path::new("/proc")).filter(runs_there)).collect()
}

/// Starts a lesson outside of the repository, with the program under test.
fn start(command: &mut Command, temp_dir: &Path) -> Child {
    let longpoll = Path::new(env!("CARGO_BIN_EXE_longpoll"));
    command
        .current_dir(temp_dir)
        .env("LONGPOLL", longpoll)
        // Cargo builds the examples, chapter zero's program among them, with the tests.
        .env("LONGPOLL_CHAPTER_ZERO", longpoll.with_file_name("examples/whole-server"))
        .env("TMPDIR", temp_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a lesson starts")
}

#[test]
fn lessons_are_numbered_from_0() {
    let lessons = all_lessons();
    assert!(!lessons.is_empty());
    for (number, lesson) in (0..).zip(&lessons) {
        assert!(name(lesson).starts_with(&format!("{number:02}-")), "{}", lesson.display());
    }
}

#[test]
fn every_lesson_succeeds_and_cleans_up() {
    let run = |lesson: &PathBuf| {
        let temp_dir = temp_dir(name(lesson));
        let child = start(Command::new("timeout").args([LESSON_TIMEOUT]).arg(lesson), &temp_dir);
        (child, temp_dir)
    };
    let lessons = lessons();
    let running: Vec<_> = lessons.iter().map(run).collect();
    let mut failed = Vec::new();
    for (lesson, (child, temp_dir)) in lessons.iter().zip(running) {
        let done = child.wait_with_output().unwrap();
        let left = left_in(&temp_dir);
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
fn interrupted_lesson_stops_its_server() {
    for signal in [Signal::TERM, Signal::HUP] {
        let temp_dir = temp_dir("interrupted");
        let mut lesson = start(&mut Command::new(lesson(3)), &temp_dir);
        let mut lines = BufReader::new(lesson.stdout.take().unwrap()).lines();
        lines
            .find(|line| line.as_ref().is_ok_and(|line| line.starts_with("listening on ")))
            .expect("the server starts")
            .unwrap();
        assert!(left_in(&temp_dir).len() > 1, "the lesson and its server run in the directory");
        let pid = Pid::from_raw(lesson.id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
        // Read to the end: the pipe stays open as long as a process holds it.
        lines.for_each(drop);
        assert_eq!(lesson.wait().unwrap().code(), Some(128 + signal.as_raw()));
        assert!(left_in(&temp_dir).is_empty(), "{:?}", left_in(&temp_dir));
    }
}

/// `begin` also runs shell functions, which start commands of their own.
#[test]
fn interrupted_lesson_stops_the_processes_of_its_jobs() {
    let temp_dir = temp_dir("interrupted-jobs");
    let script = temp_dir.join("held.sh");
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lessons/lib.sh");
    let text = format!(
        "set -euo pipefail\n. '{}'\nmkfifo \"$TMP/up\"\n\
         job() {{ sh -c 'echo up >\"$0\"; exec tail -f /dev/null' \"$TMP/up\"; true; }}\n\
         begin job job\nread -r up <\"$TMP/up\"\necho \"it is $up\"\nanswer job\n",
        lib.display()
    );
    std::fs::write(&script, text).unwrap();
    let mut lesson = start(Command::new("bash").arg(&script), &temp_dir);
    let mut lines = BufReader::new(lesson.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().is_ok_and(|line| line == "it is up")).unwrap().unwrap();
    let pid = Pid::from_raw(lesson.id() as i32).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    lines.for_each(drop);
    let ended = lesson.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(128 + Signal::TERM.as_raw()), "{ended:?}");
    // A killed process may take a moment to exit.
    crate::support::wait_until("no process and no file is left", || {
        left_in(&temp_dir) == [script.clone()]
    });
}

#[test]
fn lesson_on_tabs_works_without_node() {
    let temp_dir = temp_dir("without-node");
    let child = start(
        Command::new("timeout").args([LESSON_TIMEOUT]).arg(lesson(13)).env("NODE", ""),
        &temp_dir,
    );
    let done = child.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{out}{}", String::from_utf8_lossy(&done.stderr));
    assert!(out.contains("There is no Node here"), "{out}");
    assert!(out.contains("ok: tab 6 has it"), "{out}");
}
