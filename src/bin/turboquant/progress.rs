//! Progress on stderr, where that is a terminal, and messages beside it.

use std::io::Write;
use std::sync::LazyLock;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use llama_turboquant::eval::Progress;
use llama_turboquant::llama::on_fit_progress;

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A bar with the time that is left.
pub fn bar(what: &'static str, total: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {percent:>3}% {elapsed} (left: {eta})");
    let bar = ProgressBar::new(total).with_style(style.expect("a template that is valid"));
    let bar = BARS.add(bar.with_message(what));
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

/// A bar while key scales are fitted to a model for the first time.
pub fn show_fits() {
    let mut bar: Option<ProgressBar> = None;
    on_fit_progress(move |done| {
        let shown = bar.get_or_insert_with(|| self::bar("fitting key scales, once", 1000));
        shown.set_position((1000.0 * f64::from(done)) as u64);
        if done >= 1.0
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
        true
    });
}

/// What a measurement tells its steps to: a bar, from the first of them until this is dropped. Never stops it.
pub fn steps(what: &'static str) -> impl FnMut(Progress) -> bool {
    let mut shown: Option<Shown> = None;
    move |at| {
        let Shown(bar) = shown.get_or_insert_with(|| Shown(bar(what, at.total as u64)));
        bar.set_position(at.done as u64);
        true
    }
}

struct Shown(ProgressBar);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A line on stderr, above the bars.
pub fn message(line: &str) {
    // Nobody may be reading; eprintln! would panic, and messages come from below C++, too.
    BARS.suspend(|| {
        let _ = writeln!(std::io::stderr(), "{line}");
    });
}
