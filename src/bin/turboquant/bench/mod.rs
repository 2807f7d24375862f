//! `turboquant bench`: how fast the codec is, and models with caches of its types.

mod codec;
mod lane;
mod model;
mod setting;
mod stats;

use anyhow::Result;

/// Measure speed: of the codec by instruction set, or of a model by cache types and depth.
///
/// What is compared takes turns, so that a machine's moods touch all alike; ratios are of neighbours in time.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Codec(codec::Args),
    Model(model::Args),
}

pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Codec(args) => codec::run(args),
        What::Model(args) => model::run(args),
    }
}
