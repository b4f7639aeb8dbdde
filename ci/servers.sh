#!/usr/bin/env bash
# The servers, driven by the clients that their users have, and abused. Each test says what it needs.
#
#   ci/servers.sh [SECONDS]      how long each soak takes (60)
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/install.bash
. ci/install.bash

export AMY_SOAK_SECONDS=${1:-60}

install redis-cli:redis-tools redis-benchmark:redis-tools wrk:wrk curl:curl openssl:openssl chromium:chromium

cargo clippy --locked --package amy-servers --all-targets -- -D warnings
ulimit -n "$(ulimit -Hn)"
# One at a time: each measures a process of its own, and they would be in each other's way.
cargo test --locked --release --package amy-servers -- --test-threads 1
