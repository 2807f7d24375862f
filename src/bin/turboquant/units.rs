//! Sizes, as people read them.

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
