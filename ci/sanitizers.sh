#!/usr/bin/env bash
# The tests under what watches memory and threads. Documentation's programs are left out.
#
#   ci/sanitizers.sh [address] [thread] [memcheck]      all of them unless told otherwise
#
# address    AddressSanitizer and LeakSanitizer, with the nightly toolchain.
# thread     ThreadSanitizer, with a standard library that is instrumented as well: without that it reports
#            what is no race. The library is built from Debian's sources by Debian's compiler, see
#            any-target.bash, and kept; the runtime is that of the nightly toolchain. System calls go through
#            libc, where ThreadSanitizer sees that a write to an eventfd comes before the wait that it ends.
# memcheck   valgrind on the fault scenarios and the units. (Its thread checkers do not know atomics.)
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/any-target.bash
. ci/any-target.bash

host=x86_64-unknown-linux-gnu
what=("$@")
[ $# -gt 0 ] || what=(address thread memcheck)

rustc +nightly --version >/dev/null 2>&1 || fail "needs the nightly toolchain: rustup toolchain install nightly"
nightly=$(rustc +nightly --print sysroot)/lib/rustlib/$host
symbolizer=$(compgen -c llvm-symbolizer | sort -u | tail -1)
[ -n "$symbolizer" ] || fail "needs llvm-symbolizer (the package llvm)"
symbolizer=$(command -v "$symbolizer")

address() {
    RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=1 ASAN_SYMBOLIZER_PATH=$symbolizer \
        cargo +nightly test --locked --no-fail-fast --lib --tests --target $host --target-dir target/address
}

thread() {
    [ -e "$tools/complete" ] || (take_turns && unpack_tools)
    local linker flags
    # Debian's compiler has no linker of its own, and the runtime needs one that keeps what it exports.
    linker=$(rustc --print sysroot)/lib/rustlib/$host/bin/gcc-ld
    flags=(
        -Zsanitizer=thread -Zexternal-clangrt --cfg=rustix_use_libc
        "-Clink-arg=-B$linker" -Clink-arg=-fuse-ld=lld -Clink-arg=-Wl,--export-dynamic
        "-Clink-arg=-Wl,--whole-archive,$nightly/lib/librustc-nightly_rt.tsan.a,--no-whole-archive"
        -Clink-arg=-lm -Clink-arg=-lpthread -Clink-arg=-lc
    )
    (
        use_tools
        RUSTFLAGS="${flags[*]}" TSAN_OPTIONS="external_symbolizer_path=$symbolizer" AMY_RACE_OPERATIONS=20000 \
            cargo test --locked --no-fail-fast --lib --tests -Zbuild-std=std,test,panic_unwind --target $host --target-dir target/thread
    )
}

memcheck() {
    command -v valgrind >/dev/null || fail "needs valgrind"
    local binary
    while read -r binary; do
        valgrind --quiet --error-exitcode=9 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
            "$binary" --test-threads 1
    done < <(cargo test --locked --lib --test faults --no-run --message-format short 2>&1 |
        sed -n 's/.*Executable.*(\(.*\))$/\1/p')
}

for each in "${what[@]}"; do
    echo "== $each"
    start=$SECONDS
    "$each"
    echo "sanitizers: $each found nothing, $((SECONDS - start)) s"
done
