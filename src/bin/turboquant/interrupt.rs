//! Ctrl-C where there is nothing to stop in order: the program ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use signal_hook::{consts::SIGINT, flag};

/// Ctrl-C ends the program with the code that shells tell, but for the time of [`Interrupt::hold`].
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub fn new() -> Result<Self> {
        let ends = Arc::new(AtomicBool::new(true));
        flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&ends))?;
        Ok(Self(ends))
    }

    /// Does something of which no half is to be left.
    pub fn hold<T>(&self, act: impl FnOnce() -> T) -> T {
        self.0.store(false, Ordering::Relaxed);
        let result = act();
        self.0.store(true, Ordering::Relaxed);
        result
    }
}
