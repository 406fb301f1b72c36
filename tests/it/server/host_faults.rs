//! Guards the behaviour on a host that refuses threads or whose clock jumps.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::faults::assert_all_capacity_is_free;
use crate::support::wall_clock::WallClock;
use crate::support::{Client, Response, Server, program, wait_until};

/// The limit of threads of a test's user.
const THREADS: u64 = 32;

/// A user without other processes, so that `RLIMIT_NPROC` applies to the threads of this test
/// alone; root has no such limit.
struct OtherUser {
    uid: String,
}

impl OtherUser {
    fn new() -> Option<OtherUser> {
        // A different user for each test of this process, and for the next process.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id() * 4 + NEXT.fetch_add(1, Ordering::Relaxed);
        let user = OtherUser { uid: (1_000_000_000 + number).to_string() };
        let tried = user.command("/bin/true").output();
        let can = tried.is_ok_and(|output| output.status.success());
        if !can {
            println!("SKIPPED: refusing threads takes root and setpriv");
        }
        can.then_some(user)
    }

    /// A command that this user runs under the limit of threads.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &self.uid, "--clear-groups"]);
        // The user must be able to reach the program in the build folder.
        command.args(["--inh-caps=-all,+dac_override", "--ambient-caps=+dac_override"]);
        command.args(["prlimit", &format!("--nproc={THREADS}")]).arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// Starts the server as this user.
    fn start_server(&self, flags: &[&str]) -> Server {
        let mut command = self.command(program().get_program());
        Server::spawn(command.args(["--listen", "127.0.0.1:0", "--log", "error"]).args(flags))
    }

    /// Starts another process of this user; it exits when its stdin, a part of the result, is
    /// dropped.
    fn start_other_process(&self) -> Child {
        let mut command = self.command("cat");
        let mut cat = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        cat.stdin.as_mut().unwrap().write_all(b"here\n").unwrap();
        let mut line = String::new();
        BufReader::new(cat.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "here\n");
        cat
    }
}

/// Whether a response is a temporary refusal for lack of threads.
fn is_refused_for_lack_of_threads(response: &Response) -> bool {
    response.status == 503
        && response.detail().contains("thread")
        && response.header("Retry-After").is_some()
}

#[test]
fn refused_thread_costs_at_most_its_connection() {
    let Some(user) = OtherUser::new() else { return };
    let server = user.start_server(&["--max-connections", "12"]);
    assert_eq!(server.metric("connections_max"), 12.0);
    // Other processes of the user take all threads but two. With the existing worker, they serve
    // two polls and one more client.
    let others = THREADS - server.status_number("Threads:") - 2;
    let mut others: Vec<_> = (0..others).map(|_| user.start_other_process()).collect();
    let mut held = [(); 2].map(|()| server.hold_poll("/topics/news?since=now&wait=60"));
    // An idle connection is evicted, as if the cap had been reached.
    let mut idle = server.connect();
    assert_eq!(idle.get("/health").status, 200);
    assert_eq!(server.get("/health").status, 200);
    assert!(idle.is_closed());
    // With all workers busy, each new connection is refused.
    let mut third = server.connect();
    third.send_request("GET", "/topics/news?since=now&wait=60");
    for _ in 0..20 {
        let response = server.get("/health");
        assert!(is_refused_for_lack_of_threads(&response), "{response:?}");
    }
    assert!(third.has_received_nothing() && held.iter_mut().all(Client::has_received_nothing));
    drop(third);
    wait_until("a worker is free", || server.get("/health").status == 200);
    assert_eq!(server.publish("news", "hello").json()["released"], 2);
    assert!(held.iter_mut().all(|poll| poll.response().data() == ["hello"]));
    drop(held);
    for other in &mut others {
        drop(other.stdin.take());
        other.wait().unwrap();
    }
    assert_all_capacity_is_free(&server, 12);
}

#[test]
fn publishes_succeed_where_few_threads_are_allowed() {
    let Some(user) = OtherUser::new() else { return };
    // This number makes the server's own threads decide how many polls it can hold.
    let _others = [(); 5].map(|()| user.start_other_process());
    let server = user.start_server(&[]);
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
fn start_without_threads_names_the_cause() {
    let Some(user) = OtherUser::new() else { return };
    for left in 1..5 {
        let others = (left..THREADS).map(|_| user.start_other_process());
        let _others: Vec<_> = others.collect();
        let mut command = user.command(program().get_program());
        let output = command.args(["--listen", "127.0.0.1:0"]).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{message}");
        assert!(message.contains("too few threads"), "{message}");
    }
}

#[test]
fn clock_jump_trims_nothing_and_stops_nothing() {
    let Some(clock) = WallClock::new() else { return };
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--wait-jitter", "0", "--log", "requests"]);
    command.args(["--retain-age", "1h", "--max-connections", "8"]).stderr(Stdio::null());
    clock.apply(&mut command);
    let server = Server::spawn(&mut command);
    server.publish("news", "0");
    let mut times = Vec::new();
    // Tomorrow, in ten years, twenty years ago, before 1970, after 9999, and today again.
    for (jump, by) in ["+1d", "+3650d", "-7300d", "-36500d", "+3650000d", "+0"].iter().enumerate() {
        let mut poll = server.hold_poll("/topics/news?since=now&wait=60");
        clock.set(by);
        assert_eq!(server.publish("news", "x").status, 201, "{by}");
        let response = poll.response();
        assert_eq!(response.seqs(), [jump as u64 + 2], "{by}");
        assert_eq!(response.header("Date").map(str::len), Some(29), "{by}");
        times.push(response.json()["events"][0]["time"].as_str().unwrap().to_owned());
        assert_eq!(server.get("/topics/news?since=now&wait=0.1").json()["reason"], "timeout");
        // The thread that notices closed clients also trims expired events: once it has noticed the
        // second client, a whole round of trimming is over.
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
    assert_all_capacity_is_free(&server, 8);
}
