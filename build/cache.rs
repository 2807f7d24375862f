//! The cache folder: where it is, who may use or remove what is in it, and how large it may be.
//!
//! | | |
//! |---|---|
//! | `source/<pin>` | llama.cpp, unedited |
//! | `build/<key>` | a *tree*: an edited llama.cpp and its build |
//! | `cmake` | cmake and ninja from PyPI |
//! | `locks` | empty files, one for each name that can be locked; they stay |
//! | others | what scripts get: `models`, `texts`, `cuda` and so on |
//!
//! Each has two locks. Its *use lock* has its name ([`Cache::use_lock`] of a tree): those who read it share that lock, and
//! who removes or replaces it has it alone. Its *make lock* ([`Cache::make_lock`], [`Cache::build_lock`] of a tree) is had by
//! the one who makes it, and only while it is made: others wait for that, and never for those who use what is there.
//!
//! Locks are the system's, so they end with the process that has them. They are not in the folders that they guard: who
//! waits for a lock in a folder that is removed would get a lock on nothing.
//!
//! This module knows nothing of Cargo or build scripts: `turboquant cache` has it, too, and script/cache.sh follows it.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What trees may take if [`LIMIT`] is not set: about 30 of them.
pub const DEFAULT_LIMIT: Limit = Limit::Bytes(10_000_000_000);
/// Names the cache folder. Default: `llama-turboquant` in the user's cache folder.
pub const DIR: &str = "TQ_CACHE_DIR";
/// How much trees may take.
pub const LIMIT: &str = "TQ_CACHE_LIMIT";

/// In `cmake`: there once it is whole.
pub const READY: &str = "ready";
/// In a tree: there once the tree is whole.
const BUILT: &str = "built";
/// In a tree: its time is when a build last used the tree.
const USED: &str = "used";
/// How the name of what is being removed begins.
const REMOVED: &str = ".removed-";
/// Leftovers without a lock are those of a process that was killed once they are this old.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// Why something in the cache cannot be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    #[error("{}: {source}: set {DIR} to a folder that can be written, on a file system that has locks", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{LIMIT}={text:?} is not a size: it is a number with a unit, such as 10GB or 500MB, or none"
    )]
    Limit { text: String },
}

/// In the build script, errors are messages.
impl From<CacheError> for String {
    fn from(error: CacheError) -> Self {
        error.to_string()
    }
}

type Result<T> = std::result::Result<T, CacheError>;

/// How much trees may take, together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    None,
    Bytes(u64),
}

impl std::str::FromStr for Limit {
    type Err = CacheError;

    /// `10GB`, `1.5 GiB`, `500M`, `none`; B and no unit are bytes.
    fn from_str(text: &str) -> Result<Self> {
        let lower = text.trim().to_ascii_lowercase();
        if lower == "none" {
            return Ok(Self::None);
        }
        let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
        let unit = match lower[end..].trim_start() {
            "" | "b" => 1.0,
            "k" | "kb" => 1e3,
            "m" | "mb" => 1e6,
            "g" | "gb" => 1e9,
            "t" | "tb" => 1e12,
            "kib" => 1024.0,
            "mib" => 1024.0 * 1024.0,
            "gib" => 1024.0 * 1024.0 * 1024.0,
            "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
            _ => return Err(CacheError::Limit { text: text.into() }),
        };
        match lower[..end].parse::<f64>() {
            Ok(number) => Ok(Self::Bytes((number * unit) as u64)),
            Err(_) => Err(CacheError::Limit { text: text.into() }),
        }
    }
}

/// Something in the cache folder that is removed as a whole.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Path inside the cache folder.
    pub name: String,
    pub path: PathBuf,
    /// The size of its files.
    pub bytes: u64,
    /// When a build last used a tree; of others, when they were made.
    pub used: SystemTime,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A tree that is whole.
    Tree,
    /// A tree whose build has not ended, or was killed; the next build of the same goes on with it.
    Unfinished,
    /// A tree of a version that has its locks elsewhere and does not notice when it is gone.
    Foreign,
    /// All else: what was downloaded, and made from that.
    Other,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    Removed,
    /// Left where it is.
    InUse,
}

/// The cache folder, which need not be there yet.
#[derive(Debug, Clone)]
pub struct Cache {
    pub dir: PathBuf,
}

impl Cache {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The folder that the environment names, if it names any. A relative one is relative to `root`.
    pub fn dir_of(root: &Path, var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        let path = |name| var(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(dir) = path(DIR) {
            return Some(root.join(dir));
        }
        let user = if cfg!(windows) {
            path("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            path("HOME").map(|home| home.join("Library/Caches"))
        } else {
            path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")))
        };
        user.map(|dir| dir.join("llama-turboquant"))
    }

    pub fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    pub fn cmake(&self) -> PathBuf {
        self.dir.join("cmake")
    }

    pub fn tree(&self, key: &str) -> PathBuf {
        self.dir.join("build").join(key)
    }

    /// Held, shared, by all who use a tree.
    pub fn use_lock(key: &str) -> String {
        format!("use-{key}")
    }

    /// Held by the one who makes what is no tree.
    pub fn make_lock(name: &str) -> String {
        format!("make-{name}")
    }

    /// Held by the one who builds in a tree.
    pub fn build_lock(key: &str) -> String {
        format!("build-{key}")
    }

    fn open_lock(&self, name: &str) -> Result<(PathBuf, File)> {
        let dir = self.dir.join("locks");
        let path = dir.join(name);
        let open = || {
            fs::create_dir_all(&dir)?;
            File::options().create(true).truncate(false).read(true).write(true).open(&path)
        };
        match open() {
            Ok(file) => Ok((path, file)),
            Err(source) => Err(CacheError::Lock { path, source }),
        }
    }

    /// Waits until nobody else has the lock. It is let go when the file closes.
    pub fn lock(&self, name: &str) -> Result<File> {
        let (path, file) = self.open_lock(name)?;
        file.lock().map_err(|source| CacheError::Lock { path, source })?;
        Ok(file)
    }

    /// Waits until nobody has the lock alone.
    pub fn share(&self, name: &str) -> Result<File> {
        let (path, file) = self.open_lock(name)?;
        file.lock_shared().map_err(|source| CacheError::Lock { path, source })?;
        Ok(file)
    }

    /// None: somebody has it.
    pub fn try_lock(&self, name: &str) -> Result<Option<File>> {
        let (path, file) = self.open_lock(name)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(CacheError::Lock { path, source }),
        }
    }

    /// Sees to it that something is there, and shares its use lock, `name`, so that it stays while the lock is held.
    /// `make` makes it, or replaces one that does not work; only one process does at a time.
    pub fn obtain<E: From<CacheError>>(
        &self,
        name: &str,
        is_there: impl Fn() -> bool,
        make: impl Fn() -> std::result::Result<(), E>,
    ) -> std::result::Result<File, E> {
        loop {
            let shared = self.share(name)?;
            if is_there() {
                return Ok(shared);
            }
            drop(shared);
            let _making = self.lock(&Self::make_lock(name))?;
            if !is_there() {
                // Whoever has one that does not work will soon let go of it, and nobody else can make one that does.
                let _alone = self.lock(name)?;
                make()?;
            }
        }
    }

    /// Says that a build uses the tree now.
    pub fn touch(&self, key: &str) -> Result<()> {
        let path = self.tree(key).join(USED);
        fs::write(&path, "").map_err(|source| CacheError::Io { path, source })
    }

    /// The file that says that a tree is whole.
    pub fn built(&self, key: &str) -> PathBuf {
        self.tree(key).join(BUILT)
    }

    /// Marks a tree as whole. The mark is an old one: Cargo, which watches it, is to notice when it goes and not that
    /// it came.
    pub fn set_built(&self, key: &str) -> Result<()> {
        const YEAR_2000: Duration = Duration::from_secs(946_684_800);
        let path = self.built(key);
        let part = path.with_extension("part");
        let make = || {
            File::create(&part)?.set_modified(SystemTime::UNIX_EPOCH + YEAR_2000)?;
            fs::rename(&part, &path)
        };
        make().map_err(|source| CacheError::Io { path, source })
    }

    /// Everything that can be removed: trees, the one used last first, then the rest by name.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let mut trees = Vec::new();
        for path in list(&self.dir.join("build"))? {
            let key = name_of(&path);
            if !path.is_dir() || key.starts_with('.') {
                continue;
            }
            let time = |name| fs::metadata(path.join(name)).and_then(|m| m.modified()).ok();
            let kind = match (time(USED), path.join(BUILT).is_file()) {
                (None, _) => Kind::Foreign,
                (Some(_), true) => Kind::Tree,
                (Some(_), false) => Kind::Unfinished,
            };
            let used = time(USED).or(time(".")).unwrap_or(SystemTime::UNIX_EPOCH);
            let name = format!("build/{key}");
            trees.push(Entry { name, bytes: size(&path), path, used, kind });
        }
        trees.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.name.cmp(&b.name)));
        let mut others = list(&self.dir)?;
        others.retain(|path| {
            let name = name_of(path);
            path.is_dir() && !name.starts_with('.') && name != "build" && name != "locks"
        });
        others.sort();
        let made = |path: &Path| fs::metadata(path).and_then(|m| m.modified());
        trees.extend(others.into_iter().map(|path| Entry {
            name: name_of(&path),
            bytes: size(&path),
            used: made(&path).unwrap_or(SystemTime::UNIX_EPOCH),
            kind: Kind::Other,
            path,
        }));
        Ok(trees)
    }

    /// The locks that whoever uses an entry has, or None if somebody has one.
    fn hold(&self, entry: &Entry) -> Result<Option<Vec<File>>> {
        let key = name_of(&entry.path);
        let names = match entry.kind {
            Kind::Other => vec![Self::make_lock(&key), key],
            _ => vec![Self::use_lock(&key), Self::build_lock(&key)],
        };
        let mut held = Vec::new();
        for name in names {
            match self.try_lock(&name)? {
                Some(lock) => held.push(lock),
                None => return Ok(None),
            }
        }
        if entry.kind == Kind::Foreign
            && let Ok(lock) = File::open(entry.path.join("lock"))
        {
            match lock.try_lock() {
                Ok(()) => held.push(lock),
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(held))
    }

    /// Whether somebody uses an entry now.
    pub fn is_in_use(&self, entry: &Entry) -> Result<bool> {
        Ok(self.hold(entry)?.is_none())
    }

    /// Removes an entry, unless it is in use. It is gone at once, however long its files take.
    pub fn remove(&self, entry: &Entry) -> Result<Removal> {
        let Some(_held) = self.hold(entry)? else { return Ok(Removal::InUse) };
        let gone = entry.path.with_file_name(format!("{REMOVED}{}", name_of(&entry.path)));
        let remove = || {
            let _ = fs::remove_dir_all(&gone);
            match fs::rename(&entry.path, &gone) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                renamed => renamed?,
            }
            fs::remove_dir_all(&gone)
        };
        remove().map_err(|source| CacheError::Io { path: entry.path.clone(), source })?;
        Ok(Removal::Removed)
    }

    /// Removes the trees that were not used for longest until the rest are within the limit, and what killed processes
    /// left behind. Trees in use stay, and so do those of other versions, which would not be missed in time.
    /// Returns what was removed.
    pub fn trim(&self, limit: Limit) -> Result<Vec<Entry>> {
        self.sweep()?;
        self.beyond(limit, |entry| self.remove(entry))
    }

    /// Calls `take` with the trees that [`Self::trim`] removes, and returns those of which it says that they are removed.
    pub fn beyond(
        &self,
        limit: Limit,
        take: impl Fn(&Entry) -> Result<Removal>,
    ) -> Result<Vec<Entry>> {
        let Limit::Bytes(limit) = limit else { return Ok(Vec::new()) };
        let mut taken = Vec::new();
        let mut total = 0;
        for entry in self.entries()? {
            if !matches!(entry.kind, Kind::Tree | Kind::Unfinished) {
                continue;
            }
            total += entry.bytes;
            if total > limit && take(&entry)? == Removal::Removed {
                total -= entry.bytes;
                taken.push(entry);
            }
        }
        Ok(taken)
    }

    /// Removes what killed processes left behind that no lock guards.
    pub fn sweep(&self) -> Result<()> {
        let download = self.dir.join("download"); // of earlier versions
        let mut leftovers = Vec::new();
        for dir in [&self.dir, &self.dir.join("build"), &self.source(), &download] {
            for path in list(dir)? {
                let name = name_of(&path);
                let modified = fs::symlink_metadata(&path).and_then(|m| m.modified());
                let age = modified.ok().and_then(|time| time.elapsed().ok());
                let stale = age.is_some_and(|age| age > STALE)
                    && (*dir == download || name.starts_with("probe-") || name.contains(".tmp"));
                if stale || name.starts_with(REMOVED) {
                    leftovers.push(path);
                }
            }
        }
        for path in leftovers {
            // Another process may be at it.
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
        let _ = fs::remove_dir(download);
        Ok(())
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What is in a folder; nothing if there is no folder.
fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries,
    };
    entries
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(|source| CacheError::Io { path: dir.into(), source })
}

/// The size of the files at or below `path`. What goes away meanwhile counts as nothing.
fn size(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    if !meta.is_dir() {
        return meta.len();
    }
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.flatten().map(|entry| size(&entry.path())).sum()
}
