//! Goal: a host that refuses threads, or whose clock is wrong, gets the best that can be had there.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::faults::everything_is_back;
use crate::support::{Client, Response, Server, program, wait_until};

/// Threads that a user of these tests may have.
const THREADS: u64 = 32;

/// A user who has no process yet, so that theirs can be counted out: root may have as many as it
/// likes. None when this process cannot be somebody else.
struct Somebody {
    uid: String,
}

impl Somebody {
    fn new() -> Option<Somebody> {
        // The next user in each test of this process, and in the next process.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let user = std::process::id() * 4 + NEXT.fetch_add(1, Ordering::Relaxed);
        let somebody = Somebody { uid: (1_000_000_000 + user).to_string() };
        let tried = somebody.runs("/bin/true").output();
        let can = tried.is_ok_and(|output| output.status.success());
        if !can {
            println!("SKIPPED: no thread can be refused here: it takes root, and setpriv");
        }
        can.then_some(somebody)
    }

    /// A program that this user runs, with this many threads at most in all that they run.
    fn runs(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &self.uid, "--clear-groups"]);
        // It still has to reach the program, wherever that was built.
        command.args(["--inh-caps=-all,+dac_override", "--ambient-caps=+dac_override"]);
        command.args(["prlimit", &format!("--nproc={THREADS}")]).arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// The server, run by this user.
    fn serves(&self, flags: &[&str]) -> Server {
        let mut command = self.runs(program().get_program());
        Server::spawn(command.args(["--listen", "127.0.0.1:0", "--log", "error"]).args(flags))
    }

    /// Starts another process of this user, which ends when what is returned is dropped.
    fn does_something_else(&self) -> Child {
        let mut command = self.runs("cat");
        let mut cat = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        cat.stdin.as_mut().unwrap().write_all(b"here\n").unwrap();
        let mut line = String::new();
        BufReader::new(cat.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "here\n");
        cat
    }
}

/// A refusal that passes by itself.
fn is_refused_for_lack_of_threads(response: &Response) -> bool {
    response.status == 503
        && response.detail().contains("thread")
        && response.header("Retry-After").is_some()
}

#[test]
fn a_thread_that_is_refused_costs_its_connection_at_most() {
    let Some(somebody) = Somebody::new() else { return };
    let server = somebody.serves(&["--max-connections", "12"]);
    assert_eq!(server.metric("connections_max"), 12.0);
    // Something else of that user's takes all threads but two: with the one that there is, they
    // are for two polls and for whoever asks.
    let others = THREADS - server.status_number("Threads:") - 2;
    let mut others: Vec<_> = (0..others).map(|_| somebody.does_something_else()).collect();
    let mut held = [(); 2].map(|()| server.hold_poll("/topics/news?since=now&wait=60"));
    // Whoever waits for a request gives way, as if the cap had been reached.
    let mut idle = server.connect();
    assert_eq!(idle.get("/health").status, 200);
    assert_eq!(server.get("/health").status, 200);
    assert!(idle.is_closed());
    // With all of them busy there is only a refusal, again and again.
    let mut third = server.connect();
    third.send_request("GET", "/topics/news?since=now&wait=60");
    for _ in 0..20 {
        let response = server.get("/health");
        assert!(is_refused_for_lack_of_threads(&response), "{response:?}");
    }
    assert!(third.has_received_nothing() && held.iter_mut().all(Client::has_received_nothing));
    drop(third);
    wait_until("there is a place", || server.get("/health").status == 200);
    assert_eq!(server.publish("news", "hello").json()["released"], 2);
    assert!(held.iter_mut().all(|poll| poll.response().data() == ["hello"]));
    drop(held);
    for other in &mut others {
        drop(other.stdin.take());
        other.wait().unwrap();
    }
    everything_is_back(&server, 12);
}

#[test]
fn publishes_get_through_where_few_threads_are_allowed() {
    let Some(somebody) = Somebody::new() else { return };
    // So many that the server's own threads make the difference.
    let _others = [(); 5].map(|()| somebody.does_something_else());
    let server = somebody.serves(&[]);
    let polls = server.metric("polls_held_max");
    assert!(polls < THREADS as f64, "{polls} polls");
    let mut held: Vec<Client> = Vec::new();
    while (held.len() as f64) < polls {
        let mut poll = server.connect();
        poll.send_request("GET", "/topics/news?since=now&wait=60");
        held.push(poll);
        server.wait_until_held(held.len());
    }
    assert_eq!(server.publish("news", "hello").json()["released"].as_f64(), Some(polls));
    assert!(held.iter_mut().all(|poll| poll.response().data() == ["hello"]));
}

#[test]
fn a_start_without_threads_says_what_is_missing() {
    let Some(somebody) = Somebody::new() else { return };
    for left in 1..5 {
        let others = (left..THREADS).map(|_| somebody.does_something_else());
        let _others: Vec<_> = others.collect();
        let mut command = somebody.runs(program().get_program());
        let ended = command.args(["--listen", "127.0.0.1:0"]).output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), &*ended.stdout), (Some(1), &b""[..]), "{told}");
        assert!(told.contains("too few threads"), "{told}");
    }
}

/// libfaketime, which lets a program see another clock than everybody else.
fn faketime() -> Option<PathBuf> {
    let places = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let found = places
        .map(|place| place.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists());
    if found.is_none() {
        println!("SKIPPED: no clock can be made to jump here: it takes Debian's faketime");
    }
    found
}

/// A server whose wall clock is off by what the file says. Its other clock is as it should be.
fn with_clock(library: &Path, file: &Path, flags: &[&str]) -> Server {
    let mut command = program();
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", file);
    command.envs([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
    command.args(["--listen", "127.0.0.1:0", "--wait-jitter", "0", "--log", "requests"]);
    Server::spawn(command.args(flags).stderr(Stdio::null()))
}

#[test]
fn a_clock_that_jumps_trims_nothing_and_stops_nothing() {
    let Some(library) = faketime() else { return };
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clock");
    let turn_clock = |by: &str| {
        // At once: the server may read it at any moment.
        let new = file.with_extension("new");
        std::fs::write(&new, by).unwrap();
        std::fs::rename(new, &file).unwrap();
    };
    turn_clock("+0");
    let server = with_clock(&library, &file, &["--retain-age", "1h", "--max-connections", "8"]);
    server.publish("news", "0");
    let mut times = Vec::new();
    // Tomorrow, in ten years, twenty years ago, before 1970, after 9999, and today again.
    for (jump, by) in ["+1d", "+3650d", "-7300d", "-36500d", "+3650000d", "+0"].iter().enumerate() {
        let mut poll = server.hold_poll("/topics/news?since=now&wait=60");
        turn_clock(by);
        assert_eq!(server.publish("news", "x").status, 201, "{by}");
        let response = poll.response();
        assert_eq!(response.seqs(), [jump as u64 + 2], "{by}");
        assert_eq!(response.header("Date").map(str::len), Some(29), "{by}");
        times.push(response.json()["events"][0]["time"].as_str().unwrap().to_owned());
        assert_eq!(server.get("/topics/news?since=now&wait=0.1").json()["reason"], "timeout");
        // A hang-up is noticed where what is too old is let go: by the second one that has been
        // done.
        for _ in 0..2 {
            drop(server.hold_poll("/topics/news?since=now&wait=60"));
            server.wait_until_held(0);
        }
        let all: Vec<u64> = (1..=jump as u64 + 2).collect();
        assert_eq!(server.get("/topics/news").seqs(), all, "{by}");
    }
    assert!(times[0] < times[1] && times[1] > times[2], "{times:?}");
    assert_eq!(times[3], "1970-01-01T00:00:00.000Z");
    assert_eq!(times[4], "9999-12-31T23:59:59.999Z");
    everything_is_back(&server, 8);
}
