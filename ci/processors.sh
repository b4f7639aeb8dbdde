#!/usr/bin/env bash
# Runs the tests on other processors and C libraries: 32 bits (i686), the other byte order (s390x),
# other memory ordering and page sizes (aarch64), and musl. i686 and musl run as they are, the others
# under qemu-user. With arguments, only those of: i686 musl aarch64 s390x.
#
# qemu-user before 8.1 has no epoll_pwait2, and neither has it others that a kernel of today has: what
# passes here runs on old kernels as well.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/any-target.bash
. ci/any-target.bash

# Has Debian's packages installed.
install() {
    local package absent=()
    for package in "$@"; do
        dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null |
            grep -qx installed || absent+=("$package")
    done
    [ ${#absent[@]} = 0 ] && return
    echo "installing ${absent[*]}"
    { as_root apt-get -q update && as_root apt-get -q install -y --no-install-recommends \
        "${absent[@]}"; } >"$cache/apt.log" 2>&1 || fail "cannot install: see $cache/apt.log"
}

# Runs the tests for a target with a linker and what else is in the environment.
run() {
    local target=$1 linker=$2 build_std=()
    local variable=CARGO_TARGET_${target^^}
    export "${variable//-/_}_LINKER=$linker"
    if ! installed "$target"; then
        unpack_tools
        use_tools
        build_std=(-Zbuild-std=std,test,panic_unwind)
    fi
    echo "== $target"
    cargo test --quiet --lib --tests "${build_std[@]}" --target "$target" \
        --target-dir "$cache/processors"
}

i686() {
    install gcc libc6-dev-i386 "lib32gcc-$(gcc -dumpversion)-dev"
    export CARGO_TARGET_I686_UNKNOWN_LINUX_GNU_RUSTFLAGS=-Clink-arg=-m32
    run i686-unknown-linux-gnu gcc
}

# The C library and the unwinder come with Zig, which comes as a Python package.
musl() {
    local zig=$cache/zig
    if [ ! -e "$zig/complete" ]; then
        install python3 python3-pip
        echo "fetching ziglang"
        rm -rf "$zig"
        python3 -m pip install --quiet --disable-pip-version-check --target "$zig" ziglang ||
            fail "cannot fetch the Python package ziglang"
        printf '#!/bin/sh\nexec "%s" cc -target x86_64-linux-musl "$@"\n' "$zig/ziglang/zig" \
            >"$zig/cc"
        chmod +x "$zig/cc"
        touch "$zig/complete"
    fi
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS=-Clink-self-contained=no
    run x86_64-unknown-linux-musl "$zig/cc"
}

aarch64() { emulate aarch64 arm64; }

s390x() { emulate s390x s390x; }

emulate() {
    local processor=$1 debian=$2
    install qemu-user "gcc-$processor-linux-gnu" "libc6-dev-$debian-cross"
    # The library path is for the compiler's sake, and would mislead the emulator.
    export "CARGO_TARGET_${processor^^}_UNKNOWN_LINUX_GNU_RUNNER=env -u LD_LIBRARY_PATH \
qemu-$processor -L /usr/$processor-linux-gnu"
    # For tests that run themselves again.
    export AMY_TEST_RUNNER="env -u LD_LIBRARY_PATH qemu-$processor -L /usr/$processor-linux-gnu"
    run "$processor-unknown-linux-gnu" "$processor-linux-gnu-gcc"
}

processors=("$@")
[ $# != 0 ] || processors=(i686 musl aarch64 s390x)
take_turns
failed=()
for processor in "${processors[@]}"; do
    case $processor in
    i686 | musl | aarch64 | s390x) ("$processor") || failed+=("$processor") ;;
    *) fail "$processor is none of: i686 musl aarch64 s390x" ;;
    esac
done
[ ${#failed[@]} = 0 ] || fail "failed on: ${failed[*]}"
echo "the tests pass on: ${processors[*]}"
