//! What the machine, its container and its limits give this process.

use std::num::NonZero;

use llama_turboquant::llama::free_memory;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Bytes of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    /// What a process can have without swapping.
    pub available: u64,
    pub swap: u64,
    pub swap_free: u64,
    /// The container's limit, if it is below the machine's memory.
    pub container: Option<Container>,
    /// `RLIMIT_AS`, if there is one. Known on Linux.
    pub address_space: Option<u64>,
    /// `RLIMIT_MEMLOCK`, if there is one. Known on Linux.
    pub locked: Option<u64>,
}

/// A control group's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Container {
    pub limit: u64,
    /// Without pages of files, which can be dropped.
    pub used: u64,
}

impl Memory {
    pub fn now() -> Self {
        let refresh = MemoryRefreshKind::nothing().with_ram().with_swap();
        let system = System::new_with_specifics(RefreshKind::nothing().with_memory(refresh));
        let total = system.total_memory();
        // Without a total sysinfo panics there.
        let limits = if total > 0 { system.cgroup_limits() } else { None };
        let limits = limits.filter(|of| of.total_memory < total);
        Self {
            total,
            available: system.available_memory(),
            swap: system.total_swap(),
            swap_free: system.free_swap(),
            container: limits.map(|of| Container { limit: of.total_memory, used: of.rss }),
            address_space: limit("Max address space"),
            locked: limit("Max locked memory"),
        }
    }

    /// What this process could have if nothing else ran. None: not known.
    pub fn all(&self) -> Option<u64> {
        let container = self.container.map(|of| of.limit);
        let total = (self.total > 0).then_some(self.total);
        [total, container, self.address_space].into_iter().flatten().min()
    }

    /// The least of what there is for this process, and what says so.
    pub fn room(&self) -> Option<(u64, &'static str)> {
        let free = free_memory().map(|free| match self.container {
            Some(of) if of.limit.saturating_sub(of.used) < self.available => {
                (free, "the container")
            }
            _ => (free, "the machine"),
        });
        let limit = self.address_space.map(|limit| (limit, "the limit of address space"));
        [free, limit].into_iter().flatten().min()
    }
}

/// A limit of the process in bytes, if it has one.
fn limit(name: &str) -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Processors that this process may run on, within the time that its container gives.
pub fn n_cpus() -> Option<usize> {
    std::thread::available_parallelism().ok().map(NonZero::get)
}

/// Cores, each of one or more processors. None: not known on this system.
pub fn n_cores() -> Option<usize> {
    System::physical_core_count()
}
