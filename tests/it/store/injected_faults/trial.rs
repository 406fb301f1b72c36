//! One trial: a server with clients meets a fault, goes on or ends, and starts again without
//! faults. What clients and this driver find is judged at the end.

use std::sync::atomic::Ordering;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::clients::{Publisher, Reply, events_of, get, parse_cursor, poller};
use super::observed::{Observed, Observer, Rule, SeenEvent};
use super::plan::{Durability, TrialPlan, Trimming};
use super::process::{FaultyServer, HANG_GUARD, StartFailure, TrialFiles, inspect};
use super::shim::{FaultControl, InjectedFault};
use super::verdict::{Findings, RETAIN_EVENTS, Verdict, judge};
use crate::support::data_dir::StopOnDrop;

const PUBLISHERS: usize = 3;
/// Within this time a server takes publishes again after the fault has ended. It tries each second.
const RECOVERY_GUARD: Duration = Duration::from_secs(10);
/// A fault that no operation meets within this time does not show.
const FAULT_GUARD: Duration = Duration::from_secs(3);
/// Within this time a change is answered, also while the disk fails. Trials with a long delay check
/// it; the others end the server while changes are in flight.
const ANSWER_GUARD: Duration = Duration::from_secs(5);
const LONG_DELAY: Duration = Duration::from_millis(500);
/// What `/health` says follows the answers of publishes within this time.
const HEALTH_GUARD: Duration = Duration::from_secs(5);

/// A trial that runs.
struct Trial<'t> {
    plan: &'t TrialPlan,
    files: &'t TrialFiles,
    control: FaultControl,
    observer: &'t Observer,
    findings: Findings,
}

/// The server does not do what the rest of the trial needs; the observer knows the violation.
struct Stuck;

/// Runs a trial, and judges it.
pub fn run(plan: &TrialPlan, files: &TrialFiles) -> Verdict {
    std::fs::create_dir_all(&files.directory).unwrap();
    let control = FaultControl::create(files.directory.join("control"));
    let observer = &Observer::default();
    let mut trial = Trial { plan, files, control, observer, findings: Findings::default() };
    let mut random = fastrand::Rng::with_seed(plan.seed);
    thread::scope(|scope| {
        // Also when this scope panics.
        let _stop = (StopOnDrop(&observer.stop), StopOnDrop(&observer.stop_publishing));
        let publisher = |id| {
            let random = random.fork();
            scope.spawn(move || {
                let trimming = plan.trimming;
                Publisher { observer, id, random, trimming, count: 0, settled: true }.run();
            })
        };
        let publishers: Vec<_> = (0..PUBLISHERS).map(publisher).collect();
        scope.spawn(|| poller(observer, plan.trimming));
        trial.findings.completed = trial.run(publishers).is_ok();
    });
    let log = std::fs::read_to_string(files.server_log()).unwrap_or_default();
    if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
        observer.violated(Rule::Panics, line.to_owned());
    }
    judge(plan, &observer.lock(), &trial.findings)
}

impl Trial<'_> {
    fn run(&mut self, publishers: Vec<ScopedJoinHandle<'_, ()>>) -> Result<(), Stuck> {
        let server = self.start()?;
        let warm_up = self.plan.warm_up;
        self.wait_for("the first publishes", HANG_GUARD, |observed| {
            observed.acknowledged_since(0).count() >= warm_up
        });
        assert!(self.control.is_loaded(), "the server runs without the shim: is it static?");
        self.control.arm(&self.plan.fault);
        self.wait_for_the_fault();
        thread::sleep(self.plan.delay);
        if self.plan.kind.needs_its_size() {
            let step = self.observer.change(Observed::next_step);
            self.wait_for_each_publisher("publishes on a disk of that size", RECOVERY_GUARD, step);
        }
        if self.plan.delay >= LONG_DELAY {
            self.check_answers();
        }
        if self.plan.continuation.recovers() {
            self.check_health_while_failing(&server);
            self.end_fault();
            self.recover(&server);
        }
        self.end(server);
        self.findings.lasted_to_the_end = self.control.is_armed();
        self.end_fault();
        self.inspect("after the end", &["valid"]);
        if let Some(fault) = &self.plan.at_start {
            self.start_with_fault(fault);
        }
        let server = self.start()?;
        let step = self.observer.change(Observed::next_step);
        self.wait_for_each_publisher("publishes after the restart", HANG_GUARD, step);
        self.observer.stop_publishing.store(true, Ordering::Relaxed);
        for publisher in publishers {
            if publisher.join().is_err() {
                self.observer.violated(Rule::Panics, "a publisher panicked".to_owned());
            }
        }
        self.findings.remains = self.read_all(&server)?;
        self.findings.read_at = Some(Instant::now());
        self.observer.stop.store(true, Ordering::Relaxed);
        self.end_in_order(server);
        self.inspect("after the last end", &["valid"]);
        self.check_last_start()
    }

    fn start(&self) -> Result<FaultyServer, Stuck> {
        let flags = self.flags();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        match FaultyServer::start(self.files, &self.control, &flags) {
            Ok(server) => {
                self.observer.change(|observed| {
                    observed.address = Some(server.address);
                    observed.run += 1;
                });
                Ok(server)
            }
            Err(StartFailure::Hung) => {
                self.stuck(Rule::Restart, "a start without faults hangs".to_owned())
            }
            Err(StartFailure::Exited(code)) => {
                let log = std::fs::read_to_string(self.files.server_log()).unwrap_or_default();
                let last = log.lines().last().unwrap_or_default();
                self.stuck(
                    Rule::Restart,
                    format!("a start without faults exits with {code:?}: {last}"),
                )
            }
        }
    }

    fn stuck<R>(&self, rule: Rule, text: String) -> Result<R, Stuck> {
        self.observer.violated(rule, text);
        Err(Stuck)
    }

    fn flags(&self) -> Vec<String> {
        let sync = match self.plan.durability {
            Durability::Always => "always",
            Durability::Interval => "50ms",
        };
        let (events, bytes) = (RETAIN_EVENTS.to_string(), self.plan.trimming.bytes().to_string());
        let flags = ["--sync", sync, "--retain-events", &events, "--retain-bytes", &bytes];
        let flags = flags.iter().chain(self.plan.trimming.flags());
        flags.map(|flag| (*flag).to_owned()).collect()
    }

    /// Waits until a condition holds; otherwise notes a violation.
    fn wait_for(&self, what: &str, guard: Duration, holds: impl FnMut(&Observed) -> bool) {
        if !self.observer.wait_until(guard, holds) {
            self.observer.violated(Rule::Answered, format!("not within {guard:?}: {what}"));
        }
    }

    /// Waits until each publisher has an acknowledgement of an attempt that began after a step.
    fn wait_for_each_publisher(&self, what: &str, guard: Duration, step: u64) {
        self.wait_for(what, guard, |observed| {
            (0..PUBLISHERS).all(|id| {
                let mut since = observed.acknowledged_since(step);
                since.any(|operation| operation.topic.ends_with(&format!(".{id}")))
            })
        });
    }

    fn wait_for_the_fault(&self) {
        let deadline = Instant::now() + FAULT_GUARD;
        while self.control.failed() == 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn end_fault(&mut self) {
        self.findings.failed = self.findings.failed.max(self.control.failed());
        self.control.clear();
    }

    /// The state of the store by `/health`, and by the metric.
    fn health(&self, server: &FaultyServer) -> Option<(Value, bool)> {
        let replies = (get(server.address, "/health"), get(server.address, "/metrics"));
        let (Reply::Response(200, health), Reply::Response(200, metrics)) = replies else {
            self.observer.violated(Rule::Health, "no health, or no metrics".to_owned());
            return None;
        };
        let failing = metrics.as_str()?.contains("\nlongpoll_store_failing 1\n");
        Some((health, failing))
    }

    /// Changes are answered also while the disk fails.
    fn check_answers(&self) {
        let waiting = self.observer.lock().waiting();
        let step = self.observer.change(Observed::next_step);
        self.wait_for("answers while the disk fails", ANSWER_GUARD, |observed| {
            let mut operations = waiting.iter().map(|place| &observed.operations[*place]);
            operations.all(|operation| !operation.waiting || operation.began > step)
        });
    }

    /// While publishes are refused, `/health` and the metric say that the store fails, and why.
    fn check_health_while_failing(&self, server: &FaultyServer) {
        let deadline = Instant::now() + HEALTH_GUARD;
        loop {
            let (refused, acknowledged) = {
                let observed = self.observer.lock();
                let refused = observed.operations.iter().filter_map(|op| op.refused).max();
                let acknowledged = observed.acknowledged_since(refused.unwrap_or(0)).count();
                (refused.is_some(), acknowledged)
            };
            let Some((health, failing)) = self.health(server) else { return };
            let says_so = health["store"] == "failing" && health["store_failure"].is_string();
            if !refused || acknowledged > 0 || says_so && failing {
                return;
            }
            if Instant::now() > deadline {
                let text = format!("publishes are refused, but health says {health}, {failing}");
                return self.observer.violated(Rule::Health, text);
            }
        }
    }

    /// The fault has ended: publishes are taken again, and `/health` and the metric say so.
    fn recover(&self, server: &FaultyServer) {
        let step = self.observer.change(Observed::next_step);
        self.wait_for_each_publisher("publishes after the fault", RECOVERY_GUARD, step);
        let deadline = Instant::now() + HEALTH_GUARD;
        while let Some((health, failing)) = self.health(server) {
            if health["store"] == "ok" && !failing {
                break;
            }
            if Instant::now() > deadline {
                let text = format!("the fault has ended, but health says {health}, {failing}");
                self.observer.violated(Rule::Health, text);
                break;
            }
        }
        let warm_up = self.plan.warm_up;
        self.wait_for("more publishes", HANG_GUARD, |observed| {
            observed.acknowledged_since(step).count() >= warm_up
        });
    }

    fn end(&self, server: FaultyServer) {
        if self.plan.continuation.kills() {
            server.kill();
            self.observer.change(|observed| observed.address = None);
        } else {
            self.end_in_order(server);
        }
    }

    fn end_in_order(&self, server: FaultyServer) {
        let wrong = match server.end() {
            Some(status) if status.success() => None,
            Some(status) => Some(format!("an end in order: {status}")),
            None => Some("SIGTERM does not end the server".to_owned()),
        };
        if let Some(wrong) = wrong {
            self.observer.violated(Rule::Answered, wrong);
        }
        self.observer.change(|observed| observed.address = None);
    }

    fn inspect(&self, when: &str, expected: &[&str]) {
        let inspection = inspect(&self.files.data());
        let expected = expected.iter().all(|part| inspection.text.contains(part));
        if !inspection.succeeded || !expected {
            self.observer.violated(
                Rule::Restart,
                format!("inspect {when}: {}", inspection.text.trim().replace('\n', "; ")),
            );
        }
    }

    /// A start that meets a fault succeeds, or fails with status 1; the next one succeeds.
    fn start_with_fault(&self, fault: &InjectedFault) {
        self.control.arm(fault);
        let flags = self.flags();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        match FaultyServer::start(self.files, &self.control, &flags) {
            Ok(server) => self.end_in_order(server),
            Err(StartFailure::Exited(Some(1))) => {}
            Err(StartFailure::Exited(code)) => {
                self.observer
                    .violated(Rule::Restart, format!("a start with a fault exits with {code:?}"));
            }
            Err(StartFailure::Hung) => {
                self.observer.violated(Rule::Restart, "a start with a fault hangs".to_owned());
            }
        }
        self.control.clear();
    }

    /// Reads all events of a server that nobody publishes to, after the poller has read them.
    fn read_all(&self, server: &FaultyServer) -> Result<Vec<SeenEvent>, Stuck> {
        let run = self.observer.lock().run;
        let (mut events, mut since) = (Vec::new(), "start".to_owned());
        loop {
            let target = format!("/topics/*?since={since}&wait=0&limit=1000");
            let Reply::Response(200, page) = get(server.address, &target) else {
                return self.stuck(Rule::Answered, "the events cannot be read".to_owned());
            };
            events.extend(events_of(&page, run));
            page["next"].as_str().unwrap().clone_into(&mut since);
            if page["more"] == false {
                break;
            }
        }
        let (epoch, seq) = parse_cursor(&since);
        let position = (self.observer.change(|observed| observed.epoch(&epoch)), seq);
        self.wait_for("the poller has read everything", HANG_GUARD, |observed| {
            observed.read >= Some(position)
        });
        Ok(events)
    }

    /// Another start has the same events, and only the files that it counts.
    fn check_last_start(&self) -> Result<(), Stuck> {
        let server = self.start()?;
        let mut again = self.read_all(&server)?;
        for event in &mut again {
            event.run -= 1;
        }
        // Further events may have aged.
        let aging = self.plan.trimming == Trimming::Age;
        again.retain(|event| !aging || self.findings.remains.contains(event));
        if again != self.findings.remains && !aging {
            self.observer.violated(Rule::Kept, "the next start has other events".to_owned());
        }
        let deadline = Instant::now() + HANG_GUARD;
        loop {
            let (segments, others) = self.files.in_data();
            let Reply::Response(200, metrics) = get(server.address, "/metrics") else {
                return self.stuck(Rule::Answered, "no metrics".to_owned());
            };
            let line = format!("\nlongpoll_store_segments {}\n", segments.len());
            if others == ["lock"] && metrics.as_str().unwrap().contains(&line) {
                break;
            }
            if Instant::now() > deadline {
                self.observer
                    .violated(Rule::Restart, format!("files are left: {others:?}, {segments:?}"));
                break;
            }
        }
        self.end_in_order(server);
        Ok(())
    }
}
