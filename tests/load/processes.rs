//! What a server's processes use, read from `/proc`, and starting and stopping a server.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::LoadResult;

/// Raises the soft limit to the hard limit: every held poll is a descriptor, here and in a server
/// started from here.
pub fn raise_descriptor_limit() -> LoadResult<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

pub struct MemoryUsage {
    pub processes: usize,
    /// The sum of `VmRSS`, which counts shared pages once per process.
    pub resident_kib: u64,
    /// The sum of `Pss`, which counts shared pages once.
    pub proportional_kib: u64,
}

/// The memory of the process `root` and of all its descendants.
pub fn memory_usage(root: u32) -> LoadResult<MemoryUsage> {
    let mut tree = vec![root];
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(parent) = proc_field(pid, "status", "PPid:") {
            parents.push((pid, parent as u32));
        }
    }
    let mut next = 0;
    while next < tree.len() {
        let parent = tree[next];
        tree.extend(
            parents.iter().filter(|(_, its_parent)| *its_parent == parent).map(|(pid, _)| *pid),
        );
        next += 1;
    }
    let mut usage = MemoryUsage { processes: tree.len(), resident_kib: 0, proportional_kib: 0 };
    for pid in tree {
        usage.resident_kib += proc_field(pid, "status", "VmRSS:")
            .ok_or(format!("no memory figure for process {pid}"))?;
        usage.proportional_kib += proc_field(pid, "smaps_rollup", "Pss:").unwrap_or(0);
    }
    Ok(usage)
}

/// The resources of a process at one moment.
pub struct Footprint {
    pub resident_kib: u64,
    pub threads: u64,
    pub descriptors: usize,
}

pub fn footprint(pid: u32) -> LoadResult<Footprint> {
    let number = |label| {
        proc_field(pid, "status", label).ok_or(format!("process {pid} no longer has {label}"))
    };
    Ok(Footprint {
        resident_kib: number("VmRSS:")?,
        threads: number("Threads:")?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
    })
}

impl Footprint {
    /// Whether threads and descriptors are at most those of `other`.
    pub fn is_within(&self, other: &Footprint) -> bool {
        self.threads <= other.threads && self.descriptors <= other.descriptors
    }

    /// The maximum of each figure.
    pub fn max(&self, other: &Footprint) -> Footprint {
        Footprint {
            resident_kib: self.resident_kib.max(other.resident_kib),
            threads: self.threads.max(other.threads),
            descriptors: self.descriptors.max(other.descriptors),
        }
    }
}

/// The processor use of a process since its start.
pub struct CpuUsage {
    pub cpu: Duration,
    /// How often a thread blocked voluntarily; each such switch is followed by a wake-up.
    pub wakeups: u64,
}

pub fn cpu_usage(pid: u32) -> LoadResult<CpuUsage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // User and system time are fields 14 and 15. The command, field 2, may contain spaces, so the
    // fields are counted from the parenthesis that ends it.
    let numbers = stat.rsplit_once(')').ok_or("malformed stat file")?.1.split_whitespace();
    let ticks: u64 = numbers.skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    let wakeups = fs::read_dir(format!("/proc/{pid}/task"))?
        .flatten()
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .filter_map(|task: u32| proc_field(task, "status", "voluntary_ctxt_switches:"))
        .sum();
    let tick = 1_000 / rustix::param::clock_ticks_per_second();
    Ok(CpuUsage { cpu: Duration::from_millis(ticks * tick), wakeups })
}

/// The processor time of the live threads of a process, in nanosecond resolution. Threads that have
/// ended are not counted.
pub fn live_thread_cpu(pid: u32) -> LoadResult<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let schedstat = fs::read_to_string(task.path().join("schedstat"))?;
        let nanos = schedstat.split_whitespace().next().ok_or("malformed schedstat file")?;
        sum += nanos.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

fn proc_field(pid: u32, file: &str, label: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A child process, stopped on drop so that no failure leaves it running.
pub struct ChildProcess(std::process::Child);

impl ChildProcess {
    pub fn spawn(command: &[String]) -> LoadResult<ChildProcess> {
        let (program, args) = command.split_first().ok_or("empty command")?;
        let child =
            Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        Ok(ChildProcess(child))
    }

    pub fn has_ended(&mut self) -> LoadResult<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Sends SIGTERM, so that a master process also ends its workers, and waits for the exit.
    pub fn stop(&mut self) -> LoadResult<()> {
        if let Some(pid) = Pid::from_raw(self.0.id() as i32) {
            kill_process(pid, Signal::TERM)?;
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.has_ended()? {
            if Instant::now() > deadline {
                return Err("the process did not exit within 5 s of SIGTERM".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if matches!(self.has_ended(), Ok(false)) && self.stop().is_err() {
            // The last resort: a failure here leaves nothing else to try.
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}
