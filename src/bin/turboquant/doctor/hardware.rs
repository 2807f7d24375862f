//! Memory and processors, and how much of them this process may have.

use super::Check;
use crate::machine::{self, Memory};
use crate::units::size;

pub fn checks(threads: Option<u32>) -> Vec<Check> {
    let mut checks = memory(&Memory::now());
    checks.push(processors(threads));
    checks
}

fn memory(memory: &Memory) -> Vec<Check> {
    let mut found = format!("{}, available {}", size(memory.total), size(memory.available));
    found += &match memory.swap {
        0 => ", no swap".to_owned(),
        swap => format!(", swap {}, free {}", size(swap), size(memory.swap_free)),
    };
    if let Some(locked) = memory.locked {
        found += &format!(", at most {} can be locked (--mlock)", size(locked));
    }
    let mut checks = Vec::new();
    checks.push(match memory.available < memory.total / 10 {
        true => Check::warning(
            "memory",
            found,
            "end other programs: a cache that is swapped out is slow",
        ),
        false => Check::ok("memory", found),
    });
    if let Some(container) = memory.container {
        checks.push(Check::warning(
            "container",
            format!(
                "has {} of memory, less than the machine, and uses {}",
                size(container.limit),
                size(container.used)
            ),
            "give it more, or plan with it: turboquant plan MODEL --memory SIZE",
        ));
    }
    if let Some(limit) = memory.address_space {
        checks.push(Check::warning(
            "address space",
            format!("is limited to {}: weights, which are mapped, count too", size(limit)),
            "ulimit -v unlimited",
        ));
    }
    checks
}

fn processors(threads: Option<u32>) -> Check {
    let Some(n) = machine::n_cpus() else {
        return Check::ok("processors", "how many there are is not known on this system");
    };
    let mut found = format!("{n} for this process");
    if let Some(cores) = machine::n_cores().filter(|&cores| cores < n) {
        found += &format!(", of {cores} cores: -t {cores} may be as fast");
    }
    let variable = std::env::var("LLAMA_ARG_THREADS").ok().and_then(|value| value.parse().ok());
    let asked = [("-t", threads), ("LLAMA_ARG_THREADS", variable)];
    for (name, asked) in asked {
        if let Some(asked) = asked.filter(|&asked| asked as usize > n) {
            return Check::warning(
                "processors",
                format!(
                    "{found}; {name} asks for {asked} threads, which wait for each other and are slow"
                ),
                format!("at most {n}"),
            );
        }
    }
    Check::ok("processors", found)
}
