//! Lowers `--max-connections` to what the operating system allows.
//!
//! A cap that cannot be kept is worse than a lower one: without descriptors no connection can be
//! accepted or even refused, and std aborts the process when a new thread finds no memory map for
//! its signal stack. So the limits of the kernel, the user and the control groups are read before
//! the first connection, and a lowered cap is logged.

use std::fs::{read_dir, read_to_string};
use std::os::unix::fs::MetadataExt as _;

use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};

use crate::config::Config;
use crate::limits::{RESERVED_DESCRIPTORS, RESERVED_THREADS};
use crate::logger::Logger;

/// Raises the soft limit of descriptors to the hard one, and lowers the connection cap, with a
/// warning, to what descriptors, threads and memory maps allow.
pub fn clamp_to_rlimits(config: &mut Config, logger: &Logger) {
    let caps = [
        ("descriptors (ulimit -n)", descriptors()),
        ("threads (ulimit -u)", threads_of_user()),
        ("threads (pids.max of a control group)", threads_of_groups("")),
        ("threads (kernel.threads-max)", number_in("/proc/sys/kernel/threads-max")),
        ("memory maps (vm.max_map_count)", memory_maps()),
    ];
    let known = caps.into_iter().filter_map(|(what, cap)| Some((what, cap?)));
    let Some((what, cap)) = known.min_by_key(|(_, cap)| *cap) else { return };
    let cap = usize::try_from(cap).unwrap_or(usize::MAX).max(2);
    if cap < config.max_connections {
        logger.warning(format_args!(
            "--max-connections {} lowered to {cap}: {what} allow no more",
            config.max_connections
        ));
        config.max_connections = cap;
    }
}

fn descriptors() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Raising the soft limit to the hard one is always allowed; if it still fails, the soft limit
    // holds.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let current = getrlimit(Resource::Nofile).current?;
    Some(current.saturating_sub(RESERVED_DESCRIPTORS))
}

/// Threads that the limit of this user leaves: all processes of the user count. The limit does not
/// bind root.
fn threads_of_user() -> Option<u64> {
    let user = getuid();
    let limit = getrlimit(Resource::Nproc).current.filter(|_| !user.is_root())?;
    let processes = read_dir("/proc").ok()?.flatten();
    // Without links such as /proc/self.
    let processes = processes.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let tasks = processes.filter_map(|process| process.path().join("task").metadata().ok());
    let of_user = tasks.filter(|tasks| tasks.uid() == user.as_raw());
    // A directory has two links, and one more for each directory in it.
    let running: u64 = of_user.map(|tasks| tasks.nlink().saturating_sub(2)).sum();
    Some(limit.saturating_sub(running + RESERVED_THREADS))
}

/// Threads that the control groups of this process leave: containers and systemd set such limits.
fn threads_of_groups(root: &str) -> Option<u64> {
    let groups = read_to_string(format!("{root}/proc/self/cgroup")).ok()?;
    // Lines are NUMBER:CONTROLLERS:/PATH; version 2 of control groups names no controllers.
    let left = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let mount = match controllers {
            "" => "sys/fs/cgroup",
            "pids" => "sys/fs/cgroup/pids",
            _ => return None,
        };
        // From the named group up to the root.
        let groups = std::iter::successors(Some(path.trim_end_matches('/')), |group| {
            group.rfind('/').map(|end| &group[..end])
        });
        groups.filter_map(|group| threads_of_group(&format!("{root}/{mount}{group}"))).min()
    });
    left.min()
}

fn threads_of_group(group: &str) -> Option<u64> {
    // Without a limit the file says `max`.
    let limit = number_in(&format!("{group}/pids.max"))?;
    let running = number_in(&format!("{group}/pids.current"))?;
    Some(limit.saturating_sub(running + RESERVED_THREADS))
}

/// Threads that `vm.max_map_count` allows: each maps its stack, a guard page, and its signal stack
/// with another guard page. std aborts the process if the signal stack cannot be mapped.
fn memory_maps() -> Option<u64> {
    Some(number_in("/proc/sys/vm/max_map_count")?.saturating_sub(1_000) / 4)
}

fn number_in(path: &str) -> Option<u64> {
    read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with the files in which a machine describes its control groups.
    struct Machine(String);

    impl Machine {
        fn new(name: &str, groups: &str) -> Machine {
            let name = format!("longpoll-rlimits-{}-{name}", std::process::id());
            let machine = Machine(std::env::temp_dir().join(name).display().to_string());
            machine.file("proc/self/cgroup", groups);
            machine
        }

        fn file(&self, path: &str, text: &str) {
            let path = format!("{}/{path}", self.0);
            std::fs::create_dir_all(path.rsplit_once('/').unwrap().0).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn tightest_control_group_up_to_the_root_decides() {
        let machine = Machine::new("v2", "0::/system.slice/longpoll.service\n");
        assert_eq!(threads_of_groups(&machine.0), None);
        machine.file("sys/fs/cgroup/system.slice/longpoll.service/pids.max", "max\n");
        machine.file("sys/fs/cgroup/system.slice/longpoll.service/pids.current", "9\n");
        assert_eq!(threads_of_groups(&machine.0), None);
        machine.file("sys/fs/cgroup/system.slice/pids.max", "300\n");
        machine.file("sys/fs/cgroup/system.slice/pids.current", "100\n");
        assert_eq!(threads_of_groups(&machine.0), Some(200 - RESERVED_THREADS));
        machine.file("sys/fs/cgroup/pids.max", "150\n");
        machine.file("sys/fs/cgroup/pids.current", "120\n");
        assert_eq!(threads_of_groups(&machine.0), Some(30 - RESERVED_THREADS));
    }

    #[test]
    fn version_1_control_groups_count_too() {
        let machine = Machine::new("v1", "9:cpu,cpuacct:/a\n8:pids:/docker/x:y\n0::/\n");
        // In a container the named path does not exist.
        machine.file("sys/fs/cgroup/pids/pids.max", "100\n");
        machine.file("sys/fs/cgroup/pids/pids.current", "99\n");
        assert_eq!(threads_of_groups(&machine.0), Some(0));
    }
}
