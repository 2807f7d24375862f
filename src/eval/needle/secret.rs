//! What is hidden, and where.

use super::NeedleMode;
use crate::codec::rng::SplitMix64;

/// Of whose codes there is talk.
const NAMES: [&str; 32] = [
    "Paris",
    "Oslo",
    "Lisbon",
    "Vienna",
    "Athens",
    "Dublin",
    "Prague",
    "Warsaw",
    "Helsinki",
    "Madrid",
    "Rome",
    "Berlin",
    "Budapest",
    "Brussels",
    "Copenhagen",
    "Stockholm",
    "London",
    "Geneva",
    "Hamburg",
    "Milan",
    "Cairo",
    "Nairobi",
    "Delhi",
    "Tokyo",
    "Seoul",
    "Sydney",
    "Toronto",
    "Boston",
    "Chicago",
    "Lima",
    "Havana",
    "Istanbul",
];

/// As many as there are names.
pub const N_KEYS_MAX: usize = NAMES.len();

/// A name and its code of seven digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub name: &'static str,
    pub code: String,
}

impl Secret {
    /// The needle.
    pub fn sentence(&self) -> String {
        format!("The secret code of the {} office is {}.", self.name, self.code)
    }

    /// What stands behind the haystack; the code follows.
    pub fn question(&self) -> String {
        let name = self.name;
        format!(
            "\n\nQuestion: What is the secret code of the {name} office?\n\
             Answer: The secret code of the {name} office is"
        )
    }

    /// What is to follow.
    pub fn answer(&self) -> String {
        format!(" {}", self.code)
    }
}

/// Numbers of one trial, the same at all depths.
pub fn rng(seed: u64, mode: NeedleMode, length: u32, trial: usize) -> SplitMix64 {
    let parts = [mode as u64, u64::from(length), trial as u64];
    parts.iter().fold(SplitMix64::new(seed), |mut rng, part| SplitMix64::new(rng.next_u64() ^ part))
}

/// Secrets with different names and codes, [`N_KEYS_MAX`] at most.
pub fn draw(rng: &mut SplitMix64, n: usize) -> Vec<Secret> {
    let mut names = NAMES.to_vec();
    let mut secrets: Vec<Secret> = Vec::new();
    while secrets.len() < n {
        let code = (1_000_000 + rng.next_u64() % 9_000_000).to_string();
        if secrets.iter().any(|secret| secret.code == code) {
            continue;
        }
        let name = names.swap_remove((rng.next_u64() % names.len() as u64) as usize);
        secrets.push(Secret { name, code });
    }
    secrets
}

/// These depths, 0 to 1, and more of them up to `n`, each in the middle of the widest gap.
pub fn spread(depths: &[f64], n: usize) -> Vec<f64> {
    let mut all = depths.to_vec();
    while all.len() < n {
        let mut marks = all.clone();
        marks.extend([0.0, 1.0]);
        marks.sort_by(f64::total_cmp);
        let gaps = marks.windows(2).map(|gap| (gap[1] - gap[0], gap[0].midpoint(gap[1])));
        let widest = gaps.fold((-1.0, 0.5), |a, b| if b.0 > a.0 { b } else { a });
        all.push(widest.1);
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn secrets_differ_in_name_and_code() {
        let secrets = draw(&mut rng(7, NeedleMode::Multi, 512, 0), N_KEYS_MAX);
        assert_eq!(secrets.iter().map(|s| s.name).collect::<HashSet<_>>().len(), N_KEYS_MAX);
        assert_eq!(secrets.iter().map(|s| &s.code).collect::<HashSet<_>>().len(), N_KEYS_MAX);
        assert!(
            secrets.iter().all(|s| s.code.len() == 7 && s.code.bytes().all(|b| b.is_ascii_digit()))
        );
    }

    #[test]
    fn a_trial_has_numbers_of_its_own() {
        let first = |seed, mode, length, trial| draw(&mut rng(seed, mode, length, trial), 2);
        let (single, multi) = (NeedleMode::Single, NeedleMode::Multi);
        let one = first(1, single, 512, 0);
        assert_eq!(one, first(1, single, 512, 0));
        for other in [
            first(2, single, 512, 0),
            first(1, multi, 512, 0),
            first(1, single, 513, 0),
            first(1, single, 512, 1),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn keys_are_added_in_the_widest_gaps() {
        assert_eq!(spread(&[0.0, 0.5, 1.0], 5), [0.0, 0.5, 1.0, 0.25, 0.75]);
        assert_eq!(spread(&[1.0], 3), [1.0, 0.5, 0.25]);
        assert_eq!(spread(&[0.2, 0.2], 2), [0.2, 0.2]);
    }
}
