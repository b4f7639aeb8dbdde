#!/usr/bin/env bash
# The test command of the README: units, promises, documentation, README and guide.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --locked
