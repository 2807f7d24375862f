# The cache folder, for scripts of Bash, which source this: it sets $cache, and has functions for its locks. They are those
# of build/cache.rs, which says what lies where and who has which lock.
#
# A lock is held by a descriptor, and by the programs that have it from the script, until all of them have closed it.

cache=${TQ_CACHE_DIR:-}
if [ -z "$cache" ]; then
    case "$(uname -s)" in
    Darwin) cache=$HOME/Library/Caches/llama-turboquant ;;
    *) cache=${XDG_CACHE_HOME:-$HOME/.cache}/llama-turboquant ;;
    esac
fi
# As for build.rs, a relative one is relative to the package.
case $cache in /*) ;; *) cache=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/$cache ;; esac

# cache_lock DESCRIPTOR NAME: waits until nobody else has the lock. cache_share: until nobody has it alone.
cache_lock() { _cache_open "$1" "$cache/locks/$2" && cache_flock LOCK_EX "$1"; }
cache_share() { _cache_open "$1" "$cache/locks/$2" && cache_flock LOCK_SH "$1"; }
# cache_make DESCRIPTOR NAME: for the one who makes what has this name. Those who use one share NAME itself, and nobody who
# finds that it is there now needs to wait for them.
cache_make() { cache_lock "$1" "make-$2"; }
_cache_open() {
    mkdir -p "${2%/*}"
    eval "exec $1>>\"\$2\""
}
# cache_flock LOCK_EX|LOCK_SH DESCRIPTOR. Not every system has flock(1); the scripts need Python anyway.
cache_flock() {
    if command -v flock >/dev/null; then
        case $1 in LOCK_SH) flock --shared "$2" ;; *) flock "$2" ;; esac
    else
        python3 -c 'import fcntl, sys; fcntl.flock(int(sys.argv[2]), getattr(fcntl, sys.argv[1]))' "$1" "$2"
    fi
}

# cache_sweep FOLDER PATTERN: removes what processes left there that were killed a day ago or earlier.
cache_sweep() { find "$1" -maxdepth 1 -name "$2" -mmin +1440 -exec rm -rf {} +; }

# cache_tree COMMAND...: builds with cargo, sets $tree to the llama.cpp that the crate was built with, and keeps it from
# being removed until this script ends (descriptor 8).
cache_tree() {
    local messages try
    for try in 1 2 3; do
        messages=$("$@" --message-format=json-render-diagnostics) || return
        # build.rs sets it for the crate.
        tree=$(sed -n 's/.*\["TQ_LLAMA_TREE","\([^"]*\)"\].*/\1/p' <<<"$messages" | tail -n 1)
        if [ -z "$tree" ]; then
            echo "error: cargo did not say where llama.cpp was built" >&2
            return 1
        fi
        # Cargo makes it again if it was removed in between.
        if cache_use_tree "$tree"; then return; fi
    done
    echo "error: $tree was removed $try times while it was to be used" >&2
    return 1
}

# cache_use_tree TREE: the same for a tree that is there. Fails if it is not.
cache_use_tree() {
    _cache_open 8 "${1%/build/*}/locks/use-${1##*/}" && cache_flock LOCK_SH 8
    [ -f "$1/built" ] && touch "$1/used"
}

# cache_cmake: sets $cmake as build.rs finds it, from PyPI if need be, and keeps that from being replaced (descriptor 7; 6
# is for the lock of its making).
cache_cmake() {
    cmake=${TQ_CMAKE:-$(command -v cmake || true)}
    [ -z "$cmake" ] || return 0
    local venv=$cache/cmake
    cmake=$venv/bin/cmake
    while cache_share 7 cmake && ! { [ -f "$venv/ready" ] && "$cmake" --version >/dev/null 2>&1; }; do
        exec 7>&-
        cache_make 6 cmake
        if [ -f "$venv/ready" ] && "$cmake" --version >/dev/null 2>&1; then continue; fi
        cache_lock 7 cmake # from those who have one that does not work
        echo "cmake is not on PATH: installing it into $venv" >&2
        rm -rf "$venv"
        { python3 -m venv "$venv" && "$venv/bin/python" -m pip install --quiet cmake ninja && "$cmake" --version >/dev/null &&
            touch "$venv/ready"; } >&2 || {
            rm -rf "$venv"
            echo "error: pip could not install cmake (no network?): install cmake 3.14 or newer, or set TQ_CMAKE" >&2
            return 1
        }
    done
    exec 6>&-
}
