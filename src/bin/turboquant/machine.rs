//! What the machine, its container and its limits give this process.

use std::num::NonZero;

use llama_turboquant::llama::cpu;

/// Bytes of memory. None: not known on this system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    pub total: Option<u64>,
    /// What a process can have without swapping.
    pub available: Option<u64>,
    pub swap: Option<u64>,
    pub swap_free: Option<u64>,
    /// The container's limit, if it is below the machine's memory.
    pub container: Option<Container>,
    /// `RLIMIT_AS`, if there is one.
    pub address_space: Option<u64>,
    /// `RLIMIT_MEMLOCK`, if there is one.
    pub locked: Option<u64>,
}

/// A control group's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Container {
    pub limit: u64,
    /// Without file pages that can be dropped.
    pub used: u64,
}

impl Memory {
    pub fn now() -> Self {
        let mut memory = Self { total: cpu().map(|cpu| cpu.memory), ..Self::default() };
        #[cfg(target_os = "linux")]
        linux::fill(&mut memory);
        memory
    }

    /// The least of what there is for this process, and what says so.
    pub fn room(&self) -> Option<(u64, &'static str)> {
        let free = self.container.map(|c| (c.limit.saturating_sub(c.used), "the container"));
        let limit = self.address_space.map(|limit| (limit, "the limit of address space"));
        let machine = match self.available {
            Some(available) => Some((available, "the machine")),
            None => self.total.map(|total| (total, "the machine")),
        };
        [machine, free, limit].into_iter().flatten().min()
    }
}

/// Processors that this process may run on.
pub fn n_cpus() -> Option<usize> {
    std::thread::available_parallelism().ok().map(NonZero::get)
}

/// Cores, each of one or more processors. None: not known on this system.
pub fn n_cores() -> Option<usize> {
    #[cfg(target_os = "linux")]
    return linux::n_cores();
    #[cfg(not(target_os = "linux"))]
    None
}

/// Processors' worth of time that the container gives.
pub fn cpu_quota() -> Option<f64> {
    #[cfg(target_os = "linux")]
    return linux::cpu_quota();
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashSet;
    use std::fs::read_to_string;
    use std::path::PathBuf;

    use super::{Container, Memory};

    pub fn fill(memory: &mut Memory) {
        let text = read_to_string("/proc/meminfo").unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
        };
        memory.total = field("MemTotal").or(memory.total);
        memory.available = field("MemAvailable");
        memory.swap = field("SwapTotal");
        memory.swap_free = field("SwapFree");
        let total = memory.total.unwrap_or(u64::MAX);
        memory.container = container().filter(|container| container.limit < total);
        let limits = read_to_string("/proc/self/limits").unwrap_or_default();
        let limit = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        memory.address_space = limit("Max address space");
        memory.locked = limit("Max locked memory");
    }

    /// The tightest limit of the control groups that this process is in.
    fn container() -> Option<Container> {
        let v2 = groups("", "/sys/fs/cgroup").into_iter().filter_map(|folder| {
            let limit = number(folder.join("memory.max"))?;
            let used = number(folder.join("memory.current")).unwrap_or(0);
            let file = stat(folder.join("memory.stat"), "inactive_file");
            Some(Container { limit, used: used.saturating_sub(file) })
        });
        let v1 = groups("memory", "/sys/fs/cgroup/memory").into_iter().filter_map(|folder| {
            let limit = number(folder.join("memory.limit_in_bytes"))?;
            let used = number(folder.join("memory.usage_in_bytes")).unwrap_or(0);
            let file = stat(folder.join("memory.stat"), "total_inactive_file");
            Some(Container { limit, used: used.saturating_sub(file) })
        });
        v2.chain(v1).min_by_key(|container| container.limit.saturating_sub(container.used))
    }

    pub fn cpu_quota() -> Option<f64> {
        let quota = |quota: f64, period: f64| {
            (quota > 0.0 && period > 0.0).then_some(quota / period) // -1: none
        };
        let v2 = groups("", "/sys/fs/cgroup").into_iter().filter_map(|folder| {
            let text = read_to_string(folder.join("cpu.max")).ok()?;
            let (of, period) = text.trim().split_once(' ')?;
            quota(of.parse().ok()?, period.parse().ok()?)
        });
        let v1 = groups("cpu", "/sys/fs/cgroup/cpu").into_iter().filter_map(|folder| {
            let read = |name| read_to_string(folder.join(name)).ok()?.trim().parse().ok();
            quota(read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?)
        });
        v2.chain(v1).min_by(f64::total_cmp)
    }

    /// The folders of this process' group and those above, of a controller; "": of version 2.
    fn groups(controller: &str, root: &str) -> Vec<PathBuf> {
        let text = read_to_string("/proc/self/cgroup").unwrap_or_default();
        // `4:memory:/a/b`, `0::/a/b`
        let path = text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let names = parts.next()?;
            let of = if controller.is_empty() {
                names.is_empty()
            } else {
                names.split(',').any(|name| name == controller)
            };
            of.then(|| parts.next().unwrap_or_default().to_owned())
        });
        let Some(path) = path else { return Vec::new() };
        let root = PathBuf::from(root);
        let inner = root.join(path.trim_start_matches('/'));
        // Within a container the path may be that of the host; the root is then its own.
        inner
            .ancestors()
            .take_while(|folder| folder.starts_with(&root))
            .map(PathBuf::from)
            .collect()
    }

    fn number(path: PathBuf) -> Option<u64> {
        read_to_string(path).ok()?.trim().parse().ok()
    }

    fn stat(path: PathBuf, name: &str) -> u64 {
        let text = read_to_string(path).unwrap_or_default();
        let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        text.lines().find_map(value).unwrap_or(0)
    }

    pub fn n_cores() -> Option<usize> {
        let text = read_to_string("/proc/cpuinfo").ok()?;
        let mut cores = HashSet::new();
        let mut package = "";
        for line in text.lines() {
            match line.split_once(':').map(|(name, value)| (name.trim(), value.trim())) {
                Some(("physical id", id)) => package = id,
                Some(("core id", id)) => drop(cores.insert((package, id))),
                _ => {}
            }
        }
        (!cores.is_empty()).then_some(cores.len())
    }
}

pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// `24.6 MiB`, `3.20 GiB`.
pub fn size(bytes: u64) -> String {
    match mib(bytes) {
        mib if mib < 1024.0 => format!("{mib:.1} MiB"),
        mib => format!("{:.2} GiB", mib / 1024.0),
    }
}
