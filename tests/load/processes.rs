//! The server's processes: their memory, and starting and stopping one of our own.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::wire::Outcome;

/// Every held poll is a descriptor, here and in a server that is started from here.
pub fn raise_descriptor_limit() -> Outcome<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

pub struct Memory {
    pub processes: usize,
    /// The sum of `VmRSS`: pages that two processes share count twice.
    pub resident_kib: u64,
    /// The sum of `Pss`: pages that two processes share count once.
    pub proportional_kib: u64,
}

/// Of the process `root` and all that descend from it.
pub fn memory(root: u32) -> Outcome<Memory> {
    let mut family = vec![root];
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(parent) = field(pid, "status", "PPid:") {
            parents.push((pid, parent as u32));
        }
    }
    let mut next = 0;
    while next < family.len() {
        let parent = family[next];
        family.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    let mut memory = Memory { processes: family.len(), resident_kib: 0, proportional_kib: 0 };
    for pid in family {
        memory.resident_kib +=
            field(pid, "status", "VmRSS:").ok_or(format!("no memory figure for process {pid}"))?;
        memory.proportional_kib += field(pid, "smaps_rollup", "Pss:").unwrap_or(0);
    }
    Ok(memory)
}

/// What a process needs at a moment.
pub struct Footprint {
    pub resident_kib: u64,
    pub threads: u64,
    pub descriptors: usize,
}

pub fn footprint(pid: u32) -> Outcome<Footprint> {
    let number =
        |label| field(pid, "status", label).ok_or(format!("process {pid} has no {label} any more"));
    Ok(Footprint {
        resident_kib: number("VmRSS:")?,
        threads: number("Threads:")?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
    })
}

impl Footprint {
    /// Whether it has no more threads and descriptors.
    pub fn is_within(&self, other: &Footprint) -> bool {
        self.threads <= other.threads && self.descriptors <= other.descriptors
    }

    /// The higher one of each figure.
    pub fn highest(&self, other: &Footprint) -> Footprint {
        Footprint {
            resident_kib: self.resident_kib.max(other.resident_kib),
            threads: self.threads.max(other.threads),
            descriptors: self.descriptors.max(other.descriptors),
        }
    }
}

/// What a process has used so far.
pub struct Use {
    pub cpu: Duration,
    /// How often any of its threads went to sleep of its own will, and so was woken.
    pub sleeps: u64,
}

pub fn used(pid: u32) -> Outcome<Use> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the command in parentheses: user and system time are fields 14 and 15 of the whole.
    let numbers = stat.rsplit_once(')').ok_or("an odd stat file")?.1.split_whitespace();
    let ticks: u64 = numbers.skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    let sleeps = fs::read_dir(format!("/proc/{pid}/task"))?
        .flatten()
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .filter_map(|task: u32| field(task, "status", "voluntary_ctxt_switches:"))
        .sum();
    let tick = 1_000 / rustix::param::clock_ticks_per_second();
    Ok(Use { cpu: Duration::from_millis(ticks * tick), sleeps })
}

/// The processor time of all threads that a process has now, to the nanosecond. What threads that
/// have ended used is not in it.
pub fn cpu(pid: u32) -> Outcome<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let figures = fs::read_to_string(task.path().join("schedstat"))?;
        let used = figures.split_whitespace().next().ok_or("an odd schedstat file")?;
        sum += used.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

fn field(pid: u32, file: &str, label: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A server that is ended when this is dropped, whatever happened meanwhile.
pub struct Child(std::process::Child);

impl Child {
    pub fn spawn(command: &[String]) -> Outcome<Child> {
        let (program, args) = command.split_first().ok_or("no command")?;
        let child =
            Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        Ok(Child(child))
    }

    pub fn has_ended(&mut self) -> Outcome<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Asks politely, so that a master process takes its workers along.
    pub fn stop(&mut self) -> Outcome<()> {
        if let Some(pid) = Pid::from_raw(self.0.id() as i32) {
            kill_process(pid, Signal::TERM)?;
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.has_ended()? {
            if Instant::now() > deadline {
                return Err("the server does not stop when asked".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.has_ended(), Ok(false)) && self.stop().is_err() {
            // Nothing is left to try after this, so its own failure can't change anything.
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}
