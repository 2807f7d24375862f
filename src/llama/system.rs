//! What was built, and what it runs on.

use std::ffi::{CStr, c_char};

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::{log, sys};

/// The commit of ggml-org/llama.cpp that is built, edits aside.
pub const LLAMA_CPP: &str = env!("TQ_LLAMA_CPP");
/// The version of ggml in it.
pub const GGML: &str = env!("TQ_GGML");

/// What computes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Of the back end that drives it: `CPU`, `CUDA`.
    pub backend: String,
    /// The device's own, unique: `CPU`, `CUDA0`.
    pub name: String,
    /// The product.
    pub description: String,
    /// Whether it is the processor of the host.
    pub is_cpu: bool,
    /// Bytes of its memory.
    pub memory: u64,
}

/// The devices of all back ends that are built in.
pub fn devices() -> Vec<Device> {
    log::init();
    // SAFETY: no arguments.
    let n = unsafe { sys::ggml_backend_dev_count() };
    (0..n).map(device).collect()
}

/// The processor; None: the back end for it is not built in.
pub fn cpu() -> Option<Device> {
    devices().into_iter().find(|device| device.is_cpu)
}

/// Bytes of the host's memory that are free or can be made so: with swap, or within the limit of a container.
/// None: the system does not say.
pub fn free_memory() -> Option<u64> {
    let refresh = MemoryRefreshKind::nothing().with_ram().with_swap();
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(refresh));
    let (total, available) = (system.total_memory(), system.available_memory());
    if total == 0 {
        return None;
    }
    let limits = system.cgroup_limits().filter(|of| of.total_memory < total);
    Some(match limits {
        // Of a container's memory all is free but what processes hold: files in it can be dropped. Of the host's swap it may
        // have none.
        Some(of) => available.min(of.total_memory.saturating_sub(of.rss)),
        None => available + system.free_swap(),
    })
}

fn device(index: usize) -> Device {
    let (mut free, mut total) = (0, 0);
    // SAFETY: the index is in range, devices live as long as the process, and so do their back ends.
    unsafe {
        let raw = sys::ggml_backend_dev_get(index);
        sys::ggml_backend_dev_memory(raw, &raw mut free, &raw mut total);
        Device {
            backend: text(sys::ggml_backend_reg_name(sys::ggml_backend_dev_backend_reg(raw))),
            name: text(sys::ggml_backend_dev_name(raw)),
            description: text(sys::ggml_backend_dev_description(raw)).trim().into(),
            is_cpu: sys::ggml_backend_dev_type(raw) == sys::GGML_BACKEND_DEVICE_TYPE_CPU,
            memory: total as u64,
        }
    }
}

/// The instruction sets and options that ggml's back ends use, as they call them: `AVX2`, `FMA`, `LLAMAFILE`.
pub fn features() -> Vec<String> {
    log::init();
    // SAFETY: a terminated string, copied before the next call.
    let info = unsafe { text(sys::llama_print_system_info()) };
    // `CPU : SSE3 = 1 | AVX = 1 | REPACK = 1 | `
    let items = info.split('|').map(|item| item.rsplit(" : ").next().unwrap_or(item));
    items
        .filter_map(|item| item.split_once('='))
        .filter(|(_, value)| value.trim() != "0")
        .map(|(name, value)| match value.trim() {
            "1" => name.trim().into(),
            value => format!("{}={value}", name.trim()),
        })
        .collect()
}

/// # Safety
/// `text` is null or terminated.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by the contract.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_processor_with_memory() {
        let cpu = cpu().expect("the CPU back end is always built");
        assert!(cpu.backend == "CPU" && cpu.memory > 1 << 26, "{cpu:?}");
        assert_eq!(devices().iter().filter(|d| d.is_cpu).count(), 1);
        assert!(free_memory().is_some_and(|free| free > 1 << 26), "{:?}", free_memory());
        assert!(features().iter().all(|f| !f.is_empty() && !f.contains([' ', ':', '|'])));
    }
}
