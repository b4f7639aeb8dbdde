#!/usr/bin/env bash
# The models of src/models/, under every interleaving, and each of them with the bugs that must break
# it. Without arguments a subset that takes minutes: at most 5,000 interleavings for each model and
# number of preemptions. `--full`: 100,000, or what LOOM_MAX_PERMUTATIONS says (0 for no limit).
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
    --full) most=${LOOM_MAX_PERMUTATIONS:-100000} least=1000000 ;;
    '') most=${LOOM_MAX_PERMUTATIONS:-5000} least=100000 ;;
    *) echo "usage: ci/loom.sh [--full]" >&2; exit 2 ;;
esac
unset LOOM_MAX_PERMUTATIONS
[ "$most" = 0 ] || export LOOM_MAX_PERMUTATIONS=$most

said=$(mktemp)
trap 'rm -f "$said"' EXIT
# What only another kernel uses is not dead.
RUSTFLAGS="--cfg amy_loom -A dead_code" CARGO_TARGET_DIR=target/loom \
    cargo test --locked --release --lib -- models:: | tee "$said"

# A name may be in the middle of the harness's own line.
awk -v least="$least" '
    match($0, /model models::[^ ]*: [0-9]+ interleavings/) {
        models++; split(substr($0, RSTART, RLENGTH), words, " "); sum += words[3]
    }
    /model models::[^ ]*: fails with/ { bugs++ }
    END {
        printf "models: %d, completed interleavings: %d, seeded bugs noticed: %d\n", models, sum, bugs
        if (models < 25 || bugs < models || sum < least) {
            print "too few: at least 25 models, a bug for each, and " least " interleavings"
            exit 1
        }
    }' "$said"
