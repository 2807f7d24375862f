//! The built llama.cpp that tests are linked with.

use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;

/// Its folder, which is not removed from the cache while the test runs; set by build.rs.
pub fn tree() -> &'static Path {
    static IN_USE: OnceLock<File> = OnceLock::new();
    let tree = Path::new(env!("TQ_LLAMA_TREE"));
    // As build/cache.rs has it.
    let (key, cache) = (tree.file_name(), tree.ancestors().nth(2));
    let (key, cache) = (key.expect("a key"), cache.expect("<cache>/build/<key>"));
    IN_USE.get_or_init(|| {
        let lock = cache.join("locks").join(format!("use-{}", key.display()));
        let lock = File::open(&lock).unwrap_or_else(|e| panic!("{}: {e}", lock.display()));
        lock.lock_shared().expect("a lock");
        assert!(tree.join("built").is_file(), "{} was removed: build again", tree.display());
        lock
    });
    tree
}
