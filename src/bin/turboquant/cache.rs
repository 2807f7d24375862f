//! `turboquant cache`: what builds keep in the user's cache folder, and its removal.

#[allow(dead_code)] // the build script uses the rest
#[path = "../../../build/cache.rs"]
mod folder;

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Result, anyhow, bail};
use serde_json::json;

use crate::Exit;
use crate::progress::message;
use crate::table::{Format, Table};
use crate::units::size;
use folder::{Cache, CacheError, DEFAULT_LIMIT, DIR, Entry, Kind, LIMIT, Limit, Removal};

/// List or remove what builds from source keep: llama.cpp's source, a built tree for each version, options and compiler, and
/// what scripts get, such as test models.
///
/// Nothing that is installed needs it. Builds keep trees within TQ_CACHE_LIMIT (10GB, a size, or none) by themselves. When
/// its tree is gone, the next cargo build makes it again, which takes minutes.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List what there is, the tree that was used last first.
    List {
        /// What to print: columns, JSON, CSV, or a Markdown table.
        #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
        format: Format,
    },
    /// Print the folder: TQ_CACHE_DIR, or llama-turboquant in the user's cache folder.
    Dir,
    Clean(CleanArgs),
}

/// Remove trees, all unless told otherwise. What a build or script uses at the moment stays.
///
/// `turboquant cache clean --keep 2GB` keeps the trees that were used last.
#[derive(clap::Args)]
struct CleanArgs {
    /// Remove these alone, by the names that `list` prints.
    #[arg(value_name = "NAME", conflicts_with_all = ["keep", "all"])]
    names: Vec<String>,
    /// Keep the trees that were used last, as many as this has room for.
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| text.parse::<Limit>().map_err(|e| e.to_string()))]
    keep: Option<Limit>,
    /// Remove also what would have to be fetched again: the source, cmake, models, tools.
    #[arg(long, conflicts_with = "keep")]
    all: bool,
    /// Say what would be removed, and remove nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let var = |name: &str| std::env::var_os(name);
    let dir = Cache::dir_of(&std::env::current_dir()?, var)
        .ok_or_else(|| anyhow!("there is no user cache folder: {DIR} names one"))?;
    let cache = Cache::new(dir);
    match &args.verb {
        None => list(&cache, Format::Table),
        Some(Verb::List { format }) => list(&cache, *format),
        Some(Verb::Dir) => crate::print(&format!("{}\n", cache.dir.display())),
        Some(Verb::Clean(args)) => clean(&cache, args),
    }
}

fn state(cache: &Cache, entry: &Entry) -> Result<&'static str> {
    Ok(match entry.kind {
        _ if cache.is_in_use(entry)? => "in use",
        Kind::Unfinished => "unfinished",
        Kind::Foreign => "of another version",
        Kind::Tree | Kind::Other => "",
    })
}

fn list(cache: &Cache, format: Format) -> Result<()> {
    let entries = cache.entries()?;
    let states = entries.iter().map(|entry| state(cache, entry)).collect::<Result<Vec<_>>>()?;
    if format == Format::Json {
        let entries = entries.iter().zip(&states).map(|(entry, state)| {
            let used = entry.used.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            json!({ "name": entry.name, "bytes": entry.bytes, "used": used.as_secs(), "state": state })
        });
        let entries: Vec<_> = entries.collect();
        return crate::print(&format!("{:#}\n", json!({ "dir": cache.dir, "entries": entries })));
    }
    let mut table = Table::new(["name", "size", "last used", "state"]);
    for (entry, state) in entries.iter().zip(states) {
        let cells = [entry.name.clone(), size(entry.bytes), ago(entry.used), state.into()];
        table.row(cells);
    }
    crate::print(&match format {
        Format::Csv => table.csv(),
        Format::Md => table.markdown(),
        _ if entries.is_empty() => format!("{} is empty\n", cache.dir.display()),
        _ => format!("{}\n\n{}\n{}", cache.dir.display(), table.text(), summary(&entries)?),
    })
}

fn summary(entries: &[Entry]) -> Result<String> {
    let sum = |entries: &mut dyn Iterator<Item = &Entry>| size(entries.map(|e| e.bytes).sum());
    let limit = match std::env::var(LIMIT) {
        Ok(text) if !text.is_empty() => text.parse()?,
        _ => DEFAULT_LIMIT,
    };
    let limit = match limit {
        Limit::Bytes(bytes) => size(bytes),
        Limit::None => "none".into(),
    };
    let trees = sum(&mut entries.iter().filter(|e| e.kind != Kind::Other));
    Ok(format!("{} in all, {trees} of trees; their limit is {limit}\n", sum(&mut entries.iter())))
}

/// `3 days ago`.
fn ago(time: SystemTime) -> String {
    let seconds = time.elapsed().unwrap_or_default().as_secs();
    let count = |n: u64, unit: &str| match n {
        1 => format!("1 {unit} ago"),
        n => format!("{n} {unit}s ago"),
    };
    match seconds {
        0..3600 => count(seconds / 60, "minute"),
        3600..86400 => count(seconds / 3600, "hour"),
        _ => count(seconds / 86400, "day"),
    }
}

fn clean(cache: &Cache, args: &CleanArgs) -> Result<()> {
    let take = |entry: &Entry| -> Result<Removal, CacheError> {
        let removal = match args.dry_run {
            true if cache.is_in_use(entry)? => Removal::InUse,
            true => Removal::Removed,
            false => cache.remove(entry)?,
        };
        if removal == Removal::InUse {
            message(&format!("{} is in use: it stays", entry.name));
        }
        Ok(removal)
    };
    let removed = if let Some(limit) = args.keep {
        cache.beyond(limit, take)?
    } else {
        let mut removed = Vec::new();
        for entry in chosen(cache.entries()?, args)? {
            if take(&entry)? == Removal::Removed {
                removed.push(entry);
            }
        }
        removed
    };
    if !args.dry_run && Path::new(&cache.dir).is_dir() {
        cache.sweep()?;
    }
    let mut text: String =
        removed.iter().map(|e| format!("{} ({})\n", e.name, size(e.bytes))).collect();
    let verb = if args.dry_run { "would be removed" } else { "removed" };
    text += &format!("{verb}: {}\n", size(removed.iter().map(|e| e.bytes).sum()));
    crate::print(&text)
}

/// The entries that are asked for: those named, all, or all trees.
fn chosen(entries: Vec<Entry>, args: &CleanArgs) -> Result<Vec<Entry>> {
    let is = |entry: &Entry, name: &str| entry.name == name.trim_end_matches('/');
    if let Some(name) = args.names.iter().find(|name| !entries.iter().any(|e| is(e, name))) {
        bail!(Exit::usage(format!(
            "there is no {name} in the cache: turboquant cache lists what there is"
        )));
    }
    let wanted = |entry: &Entry| match args.names.is_empty() {
        true => args.all || entry.kind != Kind::Other,
        false => args.names.iter().any(|name| is(entry, name)),
    };
    Ok(entries.into_iter().filter(wanted).collect())
}
