#!/usr/bin/env bash
# The documentation, private items included, with warnings as errors.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTDOCFLAGS="-D warnings"
cargo doc --locked --no-deps
CARGO_TARGET_DIR=target/private cargo doc --locked --no-deps --document-private-items
