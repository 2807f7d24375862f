//! RoPE's pairs: channels that turn together, and so have one scale.

/// Which channels of a key RoPE turns together. Channels from `n_rot` on stand alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Keys are not turned.
    None,
    /// 2i and 2i + 1, for i < `n_rot` / 2.
    Adjacent {
        /// Channels that are turned; even.
        n_rot: usize,
    },
    /// i and i + `n_rot` / 2, for i < `n_rot` / 2.
    Halves {
        /// Channels that are turned; even.
        n_rot: usize,
    },
}

impl Pairs {
    /// Channels that are turned.
    pub fn n_rot(self) -> usize {
        match self {
            Self::None => 0,
            Self::Adjacent { n_rot } | Self::Halves { n_rot } => n_rot,
        }
    }

    /// The group of each of `head_dim` channels: pairs first, then what stands alone; no number is left out.
    pub(super) fn groups(self, head_dim: usize) -> Vec<usize> {
        let pairs = self.n_rot() / 2;
        let group = |channel: usize| match self {
            _ if channel >= 2 * pairs => channel - pairs,
            Self::None => channel,
            Self::Adjacent { .. } => channel / 2,
            Self::Halves { .. } => channel % pairs,
        };
        (0..head_dim).map(group).collect()
    }
}
