//! Variables that change what a cache is, or how fast.

use std::path::Path;

use llama_turboquant::llama::{CachePolicy, KvPreset};

use super::Check;

pub fn checks() -> Vec<Check> {
    let names = std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    });
    let mut variables: Vec<_> = names.collect();
    variables.sort();
    let mut checks: Vec<_> =
        variables.iter().filter_map(|(name, value)| check(name, value)).collect();
    if checks.is_empty() {
        checks.push(Check::ok("environment", "no variable changes caches or attention"));
    }
    checks
}

/// None: it does not matter.
fn check(name: &str, value: &str) -> Option<Check> {
    let set = format!("{name}={value}");
    let unset = format!("unset {name}");
    match name {
        "LLAMA_ATTN_ROT_DISABLE" if is_nonzero(value) => Some(Check::problem(
            name,
            format!(
                "{set} switches llama.cpp's rotation off, without which the turbo types are refused"
            ),
            unset,
        )),
        "LLAMA_GRAPH_REUSE_DISABLE" | "GGML_CPU_DISABLE_FUSION" if is_nonzero(value) => {
            Some(Check::warning(name, format!("{set} makes llama.cpp slower"), unset))
        }
        "GGML_BACKEND_PATH" => Some(Check::warning(
            name,
            format!("{set} loads another back end into llama.cpp"),
            unset,
        )),
        "LLAMA_KV_CACHE_DEBUG"
        | "LLAMA_BATCH_DEBUG"
        | "LLAMA_GRAPH_INPUT_DEBUG"
        | "LLAMA_GRAPH_RESULT_DEBUG"
        | "GGML_SCHED_DEBUG"
        | "GGML_META_DEBUG"
            if is_nonzero(value) =>
        {
            Some(Check::warning(name, format!("{set} is for debugging, and slow"), unset))
        }
        _ => argument(name.strip_prefix("LLAMA_ARG_")?, value, &set, &unset),
    }
}

/// Variables that stand for options of llama.cpp's tools, which `turboquant` does not read.
fn argument(option: &str, value: &str, set: &str, unset: &str) -> Option<Check> {
    let name = format!("LLAMA_ARG_{option}");
    let ok = |what: String| Some(Check::ok(&name, what));
    let warning = |what: String| Some(Check::warning(&name, what, unset));
    let problem = |what: String| Some(Check::problem(&name, what, unset));
    match option {
        "CACHE_TYPE_K" | "CACHE_TYPE_V" | "SPEC_DRAFT_CACHE_TYPE_K" | "SPEC_DRAFT_CACHE_TYPE_V" => {
            match value.parse::<CachePolicy>() {
                Ok(_) => {
                    ok(format!("{set}: llama.cpp's tools take this type unless told otherwise"))
                }
                Err(error) => problem(format!("{set}: {error}")),
            }
        }
        "KV_PRESET" => match value.parse::<KvPreset>() {
            Ok(_) => ok(format!("{set}: llama.cpp's tools take these types unless told otherwise")),
            Err(error) => problem(format!("{set}: {error}")),
        },
        "KV_ANCHORS" => match value {
            "on" | "1" | "auto" => ok(format!("{set}, of llama.cpp's tools")),
            "off" | "0" => {
                warning(format!("{set}: quantized keys are less precise without anchors"))
            }
            _ => problem(format!("{set} is none of on, off and auto")),
        },
        "KV_CALIB" if value == "auto" || Path::new(value).is_file() => {
            ok(format!("{set}: llama.cpp's tools scale keys"))
        }
        "KV_CALIB" => problem(format!("{set}: there is no such file")),
        "FLASH_ATTN" => match value {
            "off" | "0" | "false" | "disabled" => problem(format!(
                "{set}: llama.cpp's tools refuse quantized V without flash attention"
            )),
            _ => ok(format!("{set}, of llama.cpp's tools")),
        },
        "KV_OFFLOAD"
        | "NO_KV_OFFLOAD"
        | "SWA_FULL"
        | "KV_UNIFIED"
        | "NO_KV_UNIFIED"
        | "KV_UNIFIED_PER_SLOT"
        | "CONTEXT_SHIFT"
        | "NO_CONTEXT_SHIFT"
        | "CTX_SIZE"
        | "N_PARALLEL"
        | "CACHE_RAM"
        | "CACHE_REUSE"
        | "CACHE_PROMPT"
        | "NO_CACHE_PROMPT"
        | "CACHE_IDLE_SLOTS"
        | "NO_CACHE_IDLE_SLOTS" => ok(format!("{set} changes the cache of llama.cpp's tools")),
        // `THREADS` is checked with the processors.
        _ if ["CACHE", "KV_", "FLASH", "ANCHOR", "CALIB"]
            .iter()
            .any(|part| option.contains(part)) =>
        {
            warning(format!("{set}: no tool reads a variable of this name"))
        }
        _ => None,
    }
}

/// C's `atoi`, as llama.cpp reads such variables.
fn is_nonzero(value: &str) -> bool {
    let digits = value.trim_start().trim_start_matches(['+', '-']);
    digits.bytes().take_while(u8::is_ascii_digit).any(|b| b != b'0')
}
