# A compiler and a standard library for targets that rustup has not installed. To be sourced.
#
# Debian packages a compiler that knows every target (rustc-web), and the sources of its standard
# library. Both are unpacked into a folder of ours, nothing is installed. Everything that is built is
# kept there as well, so that it is built once: ${XDG_CACHE_HOME:-~/.cache}/amy-targets. Remove that
# folder to have it made anew from what Debian has today.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/amy-targets
tools=$cache/tools
mkdir -p "$cache"

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# Runs a command as root, to install what is missing.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Whether the toolchain in use can build for a target as it is.
installed() {
    rustup target list --installed 2>/dev/null | grep -qx "$1"
}

# One at a time: two would spoil each other's folder.
take_turns() {
    exec 9>"$cache/lock"
    flock --nonblock 9 && return
    echo "waiting for another run that uses $cache"
    flock 9
}

# Has compiler and sources unpacked in $tools.
unpack_tools() {
    [ -e "$tools/complete" ] && return
    echo "unpacking Debian's compiler for all targets into $tools"
    command -v apt-get >/dev/null || fail "there is no apt-get here: install the targets with rustup"
    rm -rf "$tools"
    mkdir -p "$tools/packages"
    as_root apt-get -q update >"$tools/apt.log" 2>&1 || fail "apt-get update: see $tools/apt.log"
    local packages
    packages=$(apt-cache depends --recurse --important rustc-web rust-web-src rust-web-clippy |
        grep -xE 'rustc-web|rust-web-(src|clippy)|libstd-rust-web-.*|libllvm.*' | sort -u)
    # Word by word.
    # shellcheck disable=SC2086
    (cd "$tools/packages" && apt-get -q download $packages >>"$tools/apt.log" 2>&1) ||
        fail "apt-get download: see $tools/apt.log"
    local package
    for package in "$tools"/packages/*.deb; do
        dpkg-deb --extract "$package" "$tools"
    done
    rm -r "$tools/packages"
    [ -x "$tools/usr/bin/rustc" ] && [ -e "$tools/usr/lib/rustlib/src/rust/library/Cargo.toml" ] ||
        fail "Debian's packages are not laid out as expected: see $tools"
    touch "$tools/complete"
}

# Has cargo use them from here on.
use_tools() {
    export RUSTC=$tools/usr/bin/rustc RUSTDOC=$tools/usr/bin/rustdoc
    # The standard library is made of unstable features.
    export RUSTC_BOOTSTRAP=1
    LD_LIBRARY_PATH=$(echo "$tools"/usr/lib/*-linux-gnu)
    export LD_LIBRARY_PATH
}
