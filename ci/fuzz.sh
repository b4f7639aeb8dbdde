#!/usr/bin/env bash
# Each fuzz target for so many seconds, 60 unless told otherwise: ci/fuzz.sh [SECONDS [TARGET...]]
# The corpora are copied first, and findings are written elsewhere, so that the tree stays clean.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/install.bash
. ci/install.bash

seconds=${1:-60}
[ $# -eq 0 ] || shift

[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "fuzz: $seconds is not a number of seconds"; exit 2; }
cargo +nightly --version
install_cargo fuzz 0.13.1

cargo fmt --manifest-path fuzz/Cargo.toml --check
cargo +nightly fuzz build
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)

work=$(mktemp -d)
failed=() report=()
for target in "${targets[@]}"; do
    echo "-- $target, for $seconds s"
    mkdir -p "$work/corpus" "$work/found"
    cp -r "fuzz/corpus/$target" "$work/corpus/"
    status=0
    # An input takes far less than a millisecond; one that takes 10 s hangs.
    cargo +nightly fuzz run "$target" "$work/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 \
        -print_final_stats=1 -artifact_prefix="$work/found/$target-" \
        >"$work/$target.log" 2>&1 || status=$?
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target.log")
    if [ "$status" -ne 0 ] || [ -z "$executions" ]; then
        failed+=("$target")
        tail -n 60 "$work/$target.log"
    fi
    report+=("$(printf '%-12s %12s executions' "$target" "${executions:-no}")")
done

printf '%s\n' "${report[@]}"
if [ ${#failed[@]} -gt 0 ]; then
    echo "fuzz: ${failed[*]} FAILED; what was found is in $work/found"
    exit 1
fi
rm -r "$work"
echo "fuzz: ${#targets[@]} targets found nothing in $seconds s each"
