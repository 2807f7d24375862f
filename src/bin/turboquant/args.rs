//! Options that several verbs have.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use llama_turboquant::eval::CacheSettings;
use llama_turboquant::llama::{
    CachePolicy, CacheType, FlashAttention, KvAnchors, KvCalibration, KvPreset, Model,
    ParseCacheTypeError,
};

use crate::log::{self, Errors};
use crate::progress;

/// The model, and what runs it.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// The model, a GGUF file.
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
    /// Threads [default: as many as there are cores].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub threads: Option<u32>,
    /// Layers to keep on GPUs [default: all that fit] [also: -ngl].
    #[arg(long, value_name = "N")]
    pub n_gpu_layers: Option<u32>,
    /// Show llama.cpp's log.
    #[arg(short, long)]
    pub verbose: bool,
}

impl ModelArgs {
    /// Loads the model, with a bar if it takes long.
    pub fn load(&self) -> Result<Arc<Model>> {
        log::init(self.verbose, Errors::InMessage);
        check_model(&self.model)?;
        let (begin, mut bar) = (Instant::now(), None);
        let mut builder = Model::builder(&self.model).progress(|done| {
            if begin.elapsed() > Duration::from_millis(500) {
                let bar = bar.get_or_insert_with(|| progress::bar("loading", 1000));
                bar.set_position((1000.0 * f64::from(done)) as u64);
            }
            true
        });
        if let Some(n) = self.n_gpu_layers {
            builder = builder.n_gpu_layers(n);
        }
        let model = builder.load();
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        progress::show_fits();
        Ok(model?)
    }
}

/// Finds what llama.cpp would have a less helpful message for.
pub fn check_model(path: &Path) -> Result<()> {
    let cannot = || format!("cannot load the model {}", path.display());
    let error = |reason: &'static str| anyhow!(reason).context(cannot());
    if path.is_dir() {
        return Err(error("it is a folder"));
    }
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    match read {
        Ok(()) if &magic == b"GGUF" => Ok(()),
        Err(e) if e.kind() != ErrorKind::UnexpectedEof => Err(e).with_context(cannot),
        _ => Err(error("it is not a GGUF file")),
    }
}

/// A text, which has to be UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", path.display()))
}

/// How keys are treated before they are quantized, and attention.
#[derive(clap::Args)]
pub struct KeyArgs {
    /// Key scales: a file of `turboquant calibrate`; auto for those in the user's cache, made in seconds at first use of a
    /// model; or off [default: auto where K is of a turbo type, else off].
    #[arg(long, value_name = "FILE|auto|off")]
    kv_calib: Option<String>,
    /// Key anchors: keys relative to means of the keys around. Auto: for turbo types.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::Auto)]
    kv_anchors: Mode,
    /// Flash attention [also: -fa].
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::Auto)]
    flash_attn: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    On,
    Off,
    Auto,
}

impl KeyArgs {
    /// As on the command line.
    pub fn calibration_name(&self) -> Option<&str> {
        self.kv_calib.as_deref()
    }

    /// As on the command line.
    pub fn anchors_name(&self) -> String {
        format!("{:?}", self.kv_anchors).to_lowercase()
    }

    /// As on the command line.
    pub fn flash_attention_name(&self) -> String {
        format!("{:?}", self.flash_attn).to_lowercase()
    }

    /// For contexts of several pairs.
    pub fn settings(&self, threads: Option<u32>) -> CacheSettings {
        let mut settings = CacheSettings::default();
        settings.n_threads = threads;
        settings.anchors = self.anchors();
        settings.calibration = self.calibration();
        settings.flash_attention = self.flash_attention();
        settings
    }

    /// None: the default.
    pub fn calibration(&self) -> Option<KvCalibration> {
        self.kv_calib.as_deref().map(|value| match value {
            "auto" => KvCalibration::Auto,
            "off" => KvCalibration::Off,
            "try" => KvCalibration::IfPossible,
            file => KvCalibration::File(file.into()),
        })
    }

    pub fn anchors(&self) -> KvAnchors {
        match self.kv_anchors {
            Mode::On => KvAnchors::On,
            Mode::Off => KvAnchors::Off,
            Mode::Auto => KvAnchors::Auto,
        }
    }

    pub fn flash_attention(&self) -> FlashAttention {
        match self.flash_attn {
            Mode::On => FlashAttention::On,
            Mode::Off => FlashAttention::Off,
            Mode::Auto => FlashAttention::Auto,
        }
    }
}

/// The types of K and V.
#[derive(clap::Args)]
pub struct TypeArgs {
    /// Type of K, or TYPE,SELECTOR=TYPE,... with exceptions by KV layer: firstN, lastN, N, N-M [default: f16]
    /// [also: -ctk].
    #[arg(long, value_name = "TYPE")]
    cache_type_k: Option<CachePolicy>,
    /// Type of V, likewise [default: f16] [also: -ctv].
    #[arg(long, value_name = "TYPE")]
    cache_type_v: Option<CachePolicy>,
    /// Types of K and V together: k3v2, k4v2, k4v3, k4v4 or quality.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["cache_type_k", "cache_type_v"])]
    kv_preset: Option<KvPreset>,
}

impl TypeArgs {
    /// What goes with a preset; None: the default.
    pub fn calibration(&self) -> Option<KvCalibration> {
        self.kv_preset.and_then(KvPreset::calibration)
    }

    /// Of K and V.
    pub fn types(&self) -> (CachePolicy, CachePolicy) {
        if let Some(preset) = self.kv_preset {
            let (k, v) = preset.types();
            return (k.into(), v.into());
        }
        let policy = |policy: &Option<CachePolicy>| policy.clone().unwrap_or(CacheType::F16.into());
        (policy(&self.cache_type_k), policy(&self.cache_type_v))
    }
}

/// Types of K and V, to compare with others.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    pub k: CachePolicy,
    pub v: CachePolicy,
}

impl Pair {
    /// As the library takes them.
    pub fn types(pairs: &[Self]) -> Vec<(CachePolicy, CachePolicy)> {
        pairs.iter().map(|pair| (pair.k.clone(), pair.v.clone())).collect()
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} / {}", self.k, self.v)
    }
}

impl std::str::FromStr for Pair {
    type Err = ParseCacheTypeError;

    /// `K/V`, or one type for both.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (k, v) = text.split_once('/').unwrap_or((text, text));
        Ok(Self { k: k.trim().parse()?, v: v.trim().parse()? })
    }
}

/// Several pairs.
#[derive(clap::Args)]
pub struct PairArgs {
    /// Types of K and V: K/V or one for both, as many as you like; with exceptions as -ctk takes them.
    #[arg(long, value_name = "K/V", num_args = 1.., default_values = [
        "q8_0/q8_0", "q8_0/turbo4", "turbo4/turbo4", "turbo4/turbo3", "turbo3/turbo3", "turbo2/turbo2", "q4_0/q4_0",
    ])]
    pub pairs: Vec<Pair>,
}
