//! Fitting the connection cap to what the machine allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::diag::Diag;
use crate::limits::SPARE_DESCRIPTORS;

/// Raises the descriptor limit as far as it may be, and lowers the connection cap, with a
/// warning, to what descriptors, threads and memory maps allow.
pub fn to_machine(config: &mut Config, diag: &Diag) {
    let caps = [
        ("descriptors (ulimit -n)", descriptors()),
        ("threads (ulimit -u)", getrlimit(Resource::Nproc).current),
        ("threads (kernel.threads-max)", number_in("/proc/sys/kernel/threads-max")),
        ("memory maps (vm.max_map_count)", memory_maps()),
    ];
    let known = caps.into_iter().filter_map(|(what, cap)| Some((what, cap?)));
    let Some((what, cap)) = known.min_by_key(|(_, cap)| *cap) else { return };
    let cap = usize::try_from(cap).unwrap_or(usize::MAX).max(2);
    if cap < config.max_connections {
        diag.info(format_args!(
            "warning: --max-connections {} lowered to {cap}: {what} allow no more",
            config.max_connections
        ));
        config.max_connections = cap;
    }
}

fn descriptors() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Raising the soft limit to the hard one is always allowed; if it fails all the same, the
    // soft one counts.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let current = getrlimit(Resource::Nofile).current?;
    Some(current.saturating_sub(SPARE_DESCRIPTORS))
}

/// A thread maps its stack, its guard page, and its signal stack with another guard page; std
/// aborts the process when the latter cannot be had.
fn memory_maps() -> Option<u64> {
    Some(number_in("/proc/sys/vm/max_map_count")?.saturating_sub(1_000) / 4)
}

fn number_in(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
