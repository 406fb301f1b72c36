//! Guards exactly-once delivery over a bad network: no matter how often and at which byte
//! connections are cut, no event is lost or repeated, in either direction.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::Server;
use crate::support::command::{RunningCommand, numbered_lines, run_with_stdin};
use crate::support::proxy::{FaultyProxy, ProxyMode};
use crate::support::temp_dir::TempDir;

fn url(server: &Server) -> String {
    format!("http://{}", server.address)
}

/// Cuts each connection after a random number of bytes, before the first response or after a few.
fn cuts(seed: u64) -> impl FnMut() -> ProxyMode + Send {
    let mut random = fastrand::Rng::with_seed(seed);
    move || {
        if random.u8(0..8) == 0 {
            ProxyMode::DropResponse
        } else {
            ProxyMode::CutAfter(random.usize(0..4_000))
        }
    }
}

#[test]
fn follower_behind_a_bad_network_prints_each_event_once_in_order() {
    let server = Server::start(&["--retain-events", "10000"]);
    for seed in 0..3 {
        let topic = format!("t{seed}");
        let proxy = FaultyProxy::start(server.address, cuts(seed));
        let follow = RunningCommand::start(&["follow", "--format", "raw", &proxy.url(), &topic]);
        let mut printed = Vec::new();
        // A few events at a time, so that there are many responses to cut.
        for _ in 0..10 {
            server.publish_many(&topic, 10);
            printed.extend(follow.take(10));
        }
        let expected: Vec<String> = (0..100).map(|n| (n % 10).to_string()).collect();
        assert_eq!(printed, expected, "seed {seed}");
        assert!(
            proxy.broken_connections() >= 5,
            "seed {seed}: only {} connections were cut",
            proxy.broken_connections()
        );
        assert!(!follow.has_line());
    }
}

#[test]
fn killed_follower_resumes_after_its_saved_cursor() {
    let server = Server::start(&["--retain-events", "10000"]);
    let dir = TempDir::new();
    let state = dir.path("state");
    let proxy = FaultyProxy::start(server.address, cuts(7));
    let mut random = fastrand::Rng::with_seed(7);
    let mut newest = 0;
    for _ in 0..12 {
        server.publish_many("news", 10);
        newest += 10;
        let saved = saved_seq(&state);
        let proxy = proxy.url();
        let args = ["follow", "--format", "{seq}", "--state", &state, &proxy, "news"];
        let follow = RunningCommand::start(&args);
        let mut lines = follow.take(random.usize(1..=10));
        lines.extend(follow.kill());
        let seqs: Vec<u64> = lines.iter().map(|line| line.parse().unwrap()).collect();
        // The follower started right after the saved cursor and skipped nothing.
        let expected: Vec<u64> = (saved + 1..).take(seqs.len()).collect();
        assert_eq!(seqs, expected);
        // The saved cursor is not ahead of the printed events.
        assert!((saved..=saved + seqs.len() as u64).contains(&saved_seq(&state)));
    }
    let url = url(&server);
    let last = ["follow", "--wait", "0", "--format", "{seq}", "--state", &state, &url, "news"];
    let saved = saved_seq(&state);
    let (_, rest, _) = RunningCommand::start(&last).finish();
    let expected: Vec<String> = (saved + 1..=newest).map(|seq| seq.to_string()).collect();
    assert_eq!((rest, saved_seq(&state)), (expected, newest));
}

/// The seq of the cursor in a state file.
fn saved_seq(state: &str) -> u64 {
    let Ok(text) = std::fs::read_to_string(state) else { return 0 };
    let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) else { return 0 };
    json["cursor"].as_str().unwrap().rsplit('.').next().unwrap().parse().unwrap()
}

#[test]
fn follower_reads_smaller_pages_when_large_ones_are_cut() {
    let server = Server::start(&["--retain-events", "10000"]);
    server.publish_many("news", 200);
    // Enough for a head and a few events.
    let proxy = FaultyProxy::start(server.address, || ProxyMode::CutAfter(1_500));
    let follow = RunningCommand::start(&["follow", "--format", "{seq}", &proxy.url(), "news"]);
    let expected: Vec<String> = (1..=200).map(|seq| seq.to_string()).collect();
    assert_eq!(follow.take(200), expected);
}

#[test]
fn publisher_behind_a_bad_network_publishes_each_line_once_in_order() {
    let server = Server::start(&["--retain-events", "10000"]);
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&dropped);
    // Every other response is dropped.
    let proxy = FaultyProxy::start(server.address, move || {
        if count.fetch_add(1, SeqCst) % 2 == 0 {
            ProxyMode::DropResponse
        } else {
            ProxyMode::CutAfter(400)
        }
    });
    let lines = numbered_lines(5_500);
    let output = run_with_stdin(&["publish", &proxy.url(), "news"], &lines);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("trying again"), "{errors}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["count"], &summary["seq"]), (&5_500.into(), &5_500.into()));
    let url = url(&server);
    let follow = RunningCommand::start(&["follow", "--wait", "0", "--format", "raw", &url, "news"]);
    let (_, printed, _) = follow.finish();
    let expected: Vec<String> = (0..5_500).map(|n| n.to_string()).collect();
    assert_eq!(printed, expected);
    assert!(server.metric("publish_repeats_total") >= 6.0, "no response was dropped");
}
