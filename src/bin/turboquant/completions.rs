//! `turboquant completions` and `turboquant man`.

use anyhow::Result;
use clap::CommandFactory;

use crate::Cli;

/// Print what makes a shell complete this command.
///
/// For bash: turboquant completions bash > ~/.local/share/bash-completion/completions/turboquant
#[derive(clap::Args)]
pub struct Args {
    /// Which shell.
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "turboquant", &mut script);
    crate::print(&String::from_utf8_lossy(&script))
}

/// Print the manual page, in roff: of the command, or of a verb.
#[derive(clap::Args)]
pub struct ManArgs {
    /// Which verb.
    #[arg(value_name = "VERB")]
    verb: Option<String>,
}

pub fn man(args: &ManArgs) -> Result<()> {
    let mut command = Cli::command();
    command.build();
    if let Some(verb) = &args.verb {
        let found = command.find_subcommand(verb).cloned();
        command = found.ok_or_else(|| crate::Exit::usage(format!("there is no verb {verb:?}")))?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    crate::print(&String::from_utf8_lossy(&page))
}
