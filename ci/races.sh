#!/usr/bin/env bash
# Many threads at once, as many operations as are asked for: ten million unless told otherwise.
#
#   ci/races.sh [OPERATIONS]      1000000000 takes hours
set -euo pipefail
cd "$(dirname "$0")/.."

AMY_RACE_OPERATIONS=${1:-10000000} cargo test --locked --release --test races -- --nocapture
