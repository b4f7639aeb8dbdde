#!/usr/bin/env bash
# Everything together for a while: floods, slow readers, half-closers, resets, timers, channels, signals.
#
#   ci/soak.sh [MINUTES]      two unless told otherwise; an hour by hand
set -euo pipefail
cd "$(dirname "$0")/.."

AMY_SOAK_SECONDS=$((${1:-2} * 60)) cargo test --locked --release --test soak -- --nocapture
