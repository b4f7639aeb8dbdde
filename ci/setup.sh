#!/usr/bin/env bash
# What the other jobs need beside a Rust toolchain, for a machine that is new.
set -euo pipefail

for part in rustfmt clippy; do
    cargo "${part#rust}" --version >/dev/null || { echo "setup: the toolchain lacks $part"; exit 1; }
done

missing=()
for pair in strace:strace valgrind:valgrind; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"
fi
echo "setup: $(cargo --version), $(uname -sr)"
