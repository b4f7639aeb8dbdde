#!/usr/bin/env bash
# Holds the library, its tests and its examples against clippy and the compiler for every target that
# amy names. Nothing is linked or run. A target that does not check fails the script, and so does a
# tool that cannot be had. With arguments, only those targets are checked.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/any-target.bash
. ci/any-target.bash

targets=("$@")
if [ $# = 0 ]; then
    targets=(
        x86_64-unknown-freebsd
        x86_64-unknown-netbsd
        x86_64-unknown-openbsd
        x86_64-unknown-dragonfly
        aarch64-apple-darwin
        aarch64-apple-ios
        aarch64-linux-android
        i686-unknown-linux-gnu
        aarch64-unknown-linux-gnu
        x86_64-unknown-linux-musl
        x86_64-unknown-illumos
    )
fi

take_turns
missing=()
for target in "${targets[@]}"; do
    installed "$target" || missing+=("$target")
done

# What a check needs of the standard library: no code, only what it declares.
declare_std() {
    local unmade=() target
    for target in "$@"; do
        [ -e "$tools/usr/lib/rustlib/$target/complete" ] || unmade+=("--target=$target")
    done
    [ ${#unmade[@]} = 0 ] && return
    echo "building the declarations of the standard library for ${unmade[*]#--target=}"
    RUSTFLAGS=-Zforce-unstable-if-unmarked __CARGO_DEFAULT_LIB_METADATA=amy \
        cargo check --quiet --release "${unmade[@]}" --features panic-unwind \
        --manifest-path "$tools/usr/lib/rustlib/src/rust/library/sysroot/Cargo.toml" \
        --target-dir "$cache/std"
    for target in "${unmade[@]#--target=}"; do
        mkdir -p "$tools/usr/lib/rustlib/$target/lib"
        cp "$cache/std/$target"/release/deps/*.rmeta "$tools/usr/lib/rustlib/$target/lib/"
        touch "$tools/usr/lib/rustlib/$target/complete"
    done
    rm -r "$cache/std"
}

if [ ${#missing[@]} != 0 ]; then
    unpack_tools
    (use_tools && declare_std "${missing[@]}")
fi

failed=()
for target in "${targets[@]}"; do
    echo "== $target"
    if installed "$target"; then
        cargo clippy --quiet --all-targets --target "$target" --target-dir "$cache/check" \
            -- -D warnings || failed+=("$target")
    else
        # Not through rustup's cargo-clippy, which would run rustup's clippy.
        (unset RUSTC_WORKSPACE_WRAPPER && use_tools && unset RUSTC_BOOTSTRAP &&
            "$tools/usr/bin/cargo-clippy" clippy --quiet --all-targets --target "$target" \
                --target-dir "$cache/check-unpacked" -- -D warnings) || failed+=("$target")
    fi
done
[ ${#failed[@]} = 0 ] || fail "did not check: ${failed[*]}"
echo "all of ${#targets[@]} targets check"
