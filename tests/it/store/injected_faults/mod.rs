//! Guards the store of the real program on a real directory under faults of the disk. A library in
//! the server makes file operations fail, once, several times or for ever, at random moments of
//! commits, rotations and compactions. Then the fault ends, or the server is killed, or it ends in
//! order, and the next start is compared with what the clients saw.
//!
//! `scripts/faults.sh` runs it. `faults.rs` and `double_faults.rs` beside this folder go through all
//! operations of a simulated disk instead, without a server.

mod clients;
mod observed;
mod plan;
mod process;
mod report;
mod shim;
mod trial;
mod verdict;
mod verdict_checks;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use observed::{Rule, Violation};
use plan::TrialPlan;
use process::TrialFiles;
use report::Report;
use verdict::Verdict;

use crate::support::fresh_path;

/// The default number of trials: each fault with each continuation, at least once.
/// `LONGPOLL_FAULT_TRIALS` overrides it, and `LONGPOLL_FAULT_SEED` the seed of the first trial.
const TRIALS: u64 = 68;
/// Trials that run at the same time: a trial mostly waits for the next attempt of the store.
const CONCURRENT: usize = 8;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
#[ignore = "scripts/faults.sh runs it"]
fn server_whose_disk_fails_keeps_what_it_acknowledged_and_nothing_that_it_refused() {
    let trials = number("LONGPOLL_FAULT_TRIALS").unwrap_or(TRIALS);
    let first = number("LONGPOLL_FAULT_SEED");
    let first = first.unwrap_or_else(|| fastrand::u64(..1_000_000) * TRIALS);
    let directory = fresh_path(&format!("store-injected-faults-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let shim = shim::build_shim(&directory);
    let (next, report) = (AtomicU64::new(first), Mutex::new(Report::default()));
    thread::scope(|scope| {
        for _ in 0..CONCURRENT {
            scope.spawn(|| {
                let seeds = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                for seed in seeds.take_while(|seed| *seed < first + trials) {
                    let directory = directory.join(seed.to_string());
                    run_trial(seed, &TrialFiles { directory, shim: shim.clone() }, &report);
                }
            });
        }
    });
    let report = report.into_inner().unwrap();
    println!("{report}");
    assert_eq!(report.violations(), 0, "the directories of these trials are in {directory:?}");
    std::fs::remove_dir_all(&directory).unwrap();
}

fn run_trial(seed: u64, files: &TrialFiles, report: &Mutex<Report>) {
    let plan = TrialPlan::new(seed);
    let verdict = catch_unwind(AssertUnwindSafe(|| trial::run(&plan, files)));
    let verdict = verdict.unwrap_or_else(|_| Verdict {
        violations: vec![Violation { rule: Rule::Panics, text: "the driver".to_owned() }],
        ..Verdict::default()
    });
    report.lock().unwrap().add(&plan, &verdict, &files.directory);
    if verdict.violations.is_empty() {
        std::fs::remove_dir_all(&files.directory).unwrap();
    }
}
