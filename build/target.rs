//! The platform that is built for, and the one that builds.

use std::ffi::OsString;

/// As Cargo describes them to a build script.
#[derive(Debug, Clone)]
pub struct Target {
    /// Such as aarch64-unknown-linux-gnu.
    pub triple: String,
    /// The triple of the machine that builds.
    pub host: String,
    /// Such as linux, macos or windows.
    pub os: String,
    pub arch: String,
    /// Such as gnu, musl or msvc.
    pub env: String,
    pub unix: bool,
}

impl Target {
    /// Reads what Cargo sets for build scripts. Outside of one, the target is this machine, without a triple.
    pub fn read(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| var(name).map(|v| v.to_string_lossy().into_owned());
        let triple = text("TARGET").unwrap_or_default();
        let family = text("CARGO_CFG_TARGET_FAMILY").unwrap_or(std::env::consts::FAMILY.into());
        Self {
            host: text("HOST").unwrap_or_else(|| triple.clone()),
            triple,
            os: text("CARGO_CFG_TARGET_OS").unwrap_or(std::env::consts::OS.into()),
            arch: text("CARGO_CFG_TARGET_ARCH").unwrap_or(std::env::consts::ARCH.into()),
            env: text("CARGO_CFG_TARGET_ENV").unwrap_or_default(),
            unix: family.split(',').any(|f| f == "unix"),
        }
    }

    /// The variables of Cargo that [`read`](Self::read) reads, and that the crates `cc` and `cmake` read.
    pub fn variables(&self) -> [(&'static str, &str); 6] {
        [
            ("TARGET", &self.triple),
            ("HOST", &self.host),
            ("CARGO_CFG_TARGET_OS", &self.os),
            ("CARGO_CFG_TARGET_ARCH", &self.arch),
            ("CARGO_CFG_TARGET_ENV", &self.env),
            ("CARGO_CFG_TARGET_FAMILY", if self.unix { "unix" } else { "" }),
        ]
    }

    pub fn is_cross(&self) -> bool {
        self.triple != self.host
    }

    pub fn is_macos(&self) -> bool {
        self.os == "macos"
    }

    /// Whether Rust links position-independent executables out of archives, and knows `-rpath`.
    pub fn is_elf(&self) -> bool {
        self.unix && !["macos", "ios", "tvos", "watchos", "visionos"].contains(&self.os.as_str())
    }

    /// The names under which `cc` and `cmake` look for a variable, the most specific one first: `CC` is
    /// `CC_aarch64-unknown-linux-gnu`, `CC_aarch64_unknown_linux_gnu`, `TARGET_CC` (`HOST_CC` where nothing is
    /// cross-compiled) and `CC`.
    pub fn names(&self, variable: &str) -> [String; 4] {
        let kind = if self.is_cross() { "TARGET" } else { "HOST" };
        [
            format!("{variable}_{}", self.triple),
            format!("{variable}_{}", self.triple.replace(['-', '.'], "_")),
            format!("{kind}_{variable}"),
            variable.to_string(),
        ]
    }
}
