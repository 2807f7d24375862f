//! A cache type with exceptions by KV layer.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::str::FromStr;

use super::cache_type::{CacheType, ParseCacheTypeError};
use super::error::CacheError;

/// The types of K or of V: one for all KV layers but for exceptions, of which later ones win.
///
/// Written as llama.cpp's `-ctk` takes it:
///
/// ```
/// use llama_turboquant::llama::{CachePolicy, CacheType};
///
/// let policy = CachePolicy::new(CacheType::Turbo2).first(2, CacheType::Q8_0).last(2, CacheType::Q8_0);
/// assert_eq!(policy.to_string(), "turbo2,first2=q8_0,last2=q8_0");
/// assert_eq!("turbo2,first2=q8_0,last2=q8_0".parse(), Ok(policy));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CachePolicy {
    base: CacheType,
    exceptions: Vec<(Selector, CacheType)>,
}

/// KV layers, counted without those that have no keys of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Selector {
    First(u32),
    Last(u32),
    /// From and to, both included.
    Range(u32, u32),
}

impl CachePolicy {
    /// One type for all layers.
    pub const fn new(base: CacheType) -> Self {
        Self { base, exceptions: Vec::new() }
    }

    /// Another type for the first `n` layers.
    pub fn first(self, n: u32, cache_type: CacheType) -> Self {
        self.with(Selector::First(n), cache_type)
    }

    /// Another type for the last `n` layers.
    pub fn last(self, n: u32, cache_type: CacheType) -> Self {
        self.with(Selector::Last(n), cache_type)
    }

    /// Another type for some layers: `7..=9`. A range without an end goes to layer `u32::MAX`, which no model has.
    pub fn layers(self, range: impl RangeBounds<u32>, cache_type: CacheType) -> Self {
        let from = match range.start_bound() {
            Bound::Included(&n) => n,
            Bound::Excluded(&n) => n.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&n) => n,
            Bound::Excluded(&0) => return self, // none
            Bound::Excluded(&n) => n - 1,
            Bound::Unbounded => u32::MAX,
        };
        self.with(Selector::Range(from, to), cache_type)
    }

    fn with(mut self, selector: Selector, cache_type: CacheType) -> Self {
        self.exceptions.push((selector, cache_type));
        self
    }

    /// The type of all layers without an exception.
    pub const fn base(&self) -> CacheType {
        self.base
    }

    /// Whether some layers have a type of their own.
    pub const fn has_exceptions(&self) -> bool {
        !self.exceptions.is_empty()
    }

    /// The type of each of a model's `n_layer` KV layers. Errors: [`CacheError::Layers`].
    pub fn types(&self, n_layer: usize) -> Result<Vec<CacheType>, CacheError> {
        let mut types = vec![self.base; n_layer];
        for &(selector, cache_type) in &self.exceptions {
            let layers = selector.range(n_layer).and_then(|range| types.get_mut(range));
            let error = || CacheError::Layers { selector: selector.to_string(), n_layer };
            layers.filter(|layers| !layers.is_empty()).ok_or_else(error)?.fill(cache_type);
        }
        Ok(types)
    }

    /// The exceptions alone, as llama.cpp takes them.
    pub(super) fn exceptions(&self) -> String {
        let items = self.exceptions.iter().map(|(selector, t)| format!("{selector}={t}"));
        items.collect::<Vec<_>>().join(",")
    }
}

impl Selector {
    fn range(self, n_layer: usize) -> Option<std::ops::Range<usize>> {
        let n_layer = u32::try_from(n_layer).ok()?;
        let (from, to) = match self {
            Self::First(n) => (0, n),
            Self::Last(n) => (n_layer.checked_sub(n)?, n_layer),
            Self::Range(from, to) => (from, to.checked_add(1)?),
        };
        (from <= to).then_some(from as usize..to as usize)
    }
}

impl From<CacheType> for CachePolicy {
    fn from(base: CacheType) -> Self {
        Self::new(base)
    }
}

impl fmt::Display for CachePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comma = if self.has_exceptions() { "," } else { "" };
        write!(f, "{}{comma}{}", self.base, self.exceptions())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First(n) => write!(f, "first{n}"),
            Self::Last(n) => write!(f, "last{n}"),
            Self::Range(from, to) if from == to => write!(f, "{from}"),
            Self::Range(from, to) => write!(f, "{from}-{to}"),
        }
    }
}

impl FromStr for CachePolicy {
    type Err = ParseCacheTypeError;

    /// `TYPE` or `TYPE,SELECTOR=TYPE,...`. Errors: [`ParseCacheTypeError`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut items = text.split(',');
        let mut policy = Self::new(items.next().unwrap_or_default().parse()?);
        for item in items {
            let error = || ParseCacheTypeError::Exception { text: item.into() };
            let (selector, cache_type) = item.split_once('=').ok_or_else(error)?;
            policy = policy.with(selector.parse()?, cache_type.parse()?);
        }
        Ok(policy)
    }
}

impl FromStr for Selector {
    type Err = ParseCacheTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| {
            let error = || ParseCacheTypeError::Selector { text: text.into() };
            let valid =
                (1..=6).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
            valid.then(|| digits.parse().ok()).flatten().ok_or_else(error)
        };
        if let Some(n) = text.strip_prefix("first") {
            return Ok(Self::First(number(n)?));
        }
        if let Some(n) = text.strip_prefix("last") {
            return Ok(Self::Last(number(n)?));
        }
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        Ok(Self::Range(number(from)?, number(to)?))
    }
}

#[cfg(test)]
mod tests {
    use super::CacheType::{F16, Q8_0, Turbo2, Turbo4};
    use super::*;

    #[test]
    fn later_exceptions_win() {
        let policy = CachePolicy::new(Turbo2).first(2, Q8_0).layers(1..3, F16).last(1, Turbo4);
        assert_eq!(policy.types(5), Ok(vec![Q8_0, F16, F16, Turbo2, Turbo4]));
        assert_eq!(policy.exceptions(), "first2=q8_0,1-2=f16,last1=turbo4");
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }

    #[test]
    fn layers_that_are_not_there_are_errors() {
        for policy in [
            CachePolicy::new(Turbo2).first(6, Q8_0),
            CachePolicy::new(Turbo2).last(6, Q8_0),
            CachePolicy::new(Turbo2).last(0, Q8_0),
            CachePolicy::new(Turbo2).layers(5..=5, Q8_0),
            CachePolicy::new(Turbo2).layers(3.., Q8_0),
        ] {
            let error = policy.types(5).expect_err("out of range");
            assert!(matches!(error, CacheError::Layers { n_layer: 5, .. }), "{policy}: {error}");
        }
        assert_eq!(CachePolicy::new(Turbo2).layers(0..0, Q8_0), CachePolicy::new(Turbo2));
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for text in [
            "",
            "q9",
            "turbo2,",
            "turbo2,first2",
            "turbo2,first=q8_0",
            "turbo2,1-=q8_0",
            "turbo2,-1=q8_0",
        ] {
            assert!(text.parse::<CachePolicy>().is_err(), "{text:?}");
        }
    }
}
