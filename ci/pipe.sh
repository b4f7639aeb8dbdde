#!/usr/bin/env bash
# The same tests with a pipe in the eventfd's place, as on systems that have no eventfd.
set -euo pipefail
cd "$(dirname "$0")/.."

RUSTFLAGS="--cfg amy_pipe" RUSTDOCFLAGS="--cfg amy_pipe" CARGO_TARGET_DIR=target/pipe \
    cargo test --locked
