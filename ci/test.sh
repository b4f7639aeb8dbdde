#!/usr/bin/env bash
# The test command of the README: units, promises, documentation, README and guide; and the one feature.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --locked
cargo test --locked --features tracing --test tracing
