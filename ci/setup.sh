#!/usr/bin/env bash
# What the other jobs need beside a Rust toolchain, for a machine that is new.
set -euo pipefail
# shellcheck source=ci/install.bash
. "$(dirname "$0")/install.bash"

for part in rustfmt clippy; do
    cargo "${part#rust}" --version >/dev/null || { echo "setup: the toolchain lacks $part"; exit 1; }
done

install strace:strace valgrind:valgrind
echo "setup: $(cargo --version), $(uname -sr)"
