//! Guards `longpoll inspect` beside a busy server: it reads one consistent picture of files that the
//! server begins, rewrites and removes meanwhile. Of 840 runs, 380 failed with "cannot open" and 30
//! called the store damaged.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::data_dir::{StopOnDrop, start_with_data};
use crate::support::{Server, fresh_path, program, wait_until};

fn inspect(directory: &Path) -> Output {
    program().args(["inspect", directory.to_str().unwrap()]).output().unwrap()
}

/// Publishes until `stop`: large batches to a busy topic, so that the server begins several
/// segments a second, and small events to a quiet one, so that it rewrites old segments.
fn publish(server: &Server, stop: &AtomicBool) {
    let mut client = server.connect();
    let line = format!("\"{}\"\n", "x".repeat(9_000));
    let batch = line.repeat(20);
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(client.post("/topics/quiet", "", "small").status, 201);
        let kind = "Content-Type: application/x-ndjson\r\n";
        assert_eq!(client.post("/topics/busy", kind, &batch).status, 201);
    }
}

fn beside_a_busy_server(name: &str, test: impl FnOnce(&Path, &Server)) {
    let dir = fresh_path(name);
    let server = start_with_data(&dir, &["--retain-bytes", "1MiB", "--retain-events", "100000"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| publish(&server, &stop));
        scope.spawn(|| publish(&server, &stop));
        let _stop = StopOnDrop(&stop);
        wait_until("there are several segments", || server.metric("store_segments") >= 4.0);
        test(&dir, &server);
    });
}

#[test]
fn inspect_is_right_beside_a_server_that_replaces_its_files() {
    beside_a_busy_server("inspect-busy", |dir, server| {
        let before = server.metric("store_segments_rewritten_total");
        for run in 0..200 {
            let output = inspect(dir);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "run {run}: {text}{message}");
            assert!(text.ends_with("valid\n"), "run {run}: {text}");
        }
        let rewritten = server.metric("store_segments_rewritten_total") - before;
        assert!(rewritten > 0.0, "the server rewrote no segment meanwhile");
    });
}

#[test]
fn copy_that_cp_takes_without_complaint_is_valid() {
    let copy = fresh_path("inspect-copied");
    beside_a_busy_server("inspect-copy", |dir, _| {
        let script = "rm -rf \"$2\" && mkdir \"$2\" && cp \"$1\"/*.log \"$2\"";
        let taken = || {
            let mut shell = Command::new("sh");
            shell.args(["-c", script, "sh"]).arg(dir).arg(&copy);
            shell.output().unwrap().status.success()
        };
        for run in 0..40 {
            wait_until("no segment is removed during the copy", taken);
            let output = inspect(&copy);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && text.ends_with("valid\n"), "run {run}: {text}");
        }
    });
}
