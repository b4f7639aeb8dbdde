#!/usr/bin/env bash
# The benchmark builds, and what amy asks of the kernel, the allocator and the processor for one
# operation has not grown: what can be counted, and no time.
set -euo pipefail
cd "$(dirname "$0")/../bench"

for tool in strace valgrind; do
    command -v "$tool" >/dev/null || { echo "bench: $tool is missing, see ci/setup.sh"; exit 1; }
done
cargo fmt --check
cargo clippy --locked --all-targets -- -D warnings
./run.sh --check
echo "bench: nothing costs more than is recorded"
