#!/usr/bin/env bash
# Format, lints with warnings as errors, and no unsafe code anywhere in the Linux build.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --check
cargo clippy --locked --all-targets --all-features -- -D warnings

# Forbidden for the whole crate, so that no `allow` further in can take it back.
CARGO_TARGET_DIR=target/forbid RUSTFLAGS="-D warnings" \
    cargo rustc --locked --lib --profile check -- -F unsafe-code
echo "check: formatted, no lint speaks, no unsafe code in the Linux build"
