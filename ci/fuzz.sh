#!/usr/bin/env bash
# The fuzz targets, all of them unless some are named.
#
#   ci/fuzz.sh [SECONDS [TARGET...]]             each for so long, 60 seconds unless told otherwise
#   ci/fuzz.sh --executions NUMBER [TARGET...]   each so often, without a sanitizer, which is much faster
#
# The corpora are copied first, and findings are written elsewhere, so that the tree stays clean.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/install.bash
. ci/install.bash

build=() limit=-max_total_time number=60
if [ "${1:-}" = --executions ]; then
    build=(--sanitizer none --no-trace-compares --target-dir target/fuzz) limit=-runs
    shift
    [ $# -gt 0 ] || { echo "fuzz: how many executions?"; exit 2; }
fi
if [ $# -gt 0 ]; then
    number=$1
    shift
fi
[[ $number =~ ^[1-9][0-9]*$ ]] || { echo "fuzz: $number is not a number"; exit 2; }
cargo +nightly --version
install_cargo fuzz 0.13.1

cargo fmt --manifest-path fuzz/Cargo.toml --check
cargo +nightly fuzz build "${build[@]}"
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)

work=$(mktemp -d)
failed=() report=()

# play TARGET NUMBER [OPTION...]
play() {
    local target=$1 number=$2 status=0 executions
    shift 2
    # An input takes far less than a millisecond; one that takes 10 s hangs.
    cargo +nightly fuzz run "${build[@]}" "$target" "$work/corpus/$target" -- \
        "$limit=$number" -timeout=10 -rss_limit_mb=4096 "$@" \
        -print_final_stats=1 -artifact_prefix="$work/found/$target-" \
        >"$work/$target.log" 2>&1 || status=$?
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target.log")
    if [ "$status" -ne 0 ] || [ -z "$executions" ]; then
        failed+=("$target")
        tail -n 60 "$work/$target.log"
    fi
    report+=("$(printf '%-12s %12s executions' "$target" "${executions:-no}")")
}

for target in "${targets[@]}"; do
    echo "-- $target: $limit=$number"
    mkdir -p "$work/corpus" "$work/found"
    cp -r "fuzz/corpus/$target" "$work/corpus/"
    if [ "$limit" = -runs ]; then
        # Most executions are spent on short inputs, of which there are most in a second.
        play "$target" $((number - number / 5)) -max_len=64
        [ $((number / 5)) -eq 0 ] || play "$target" $((number / 5)) -max_len=256
    else
        play "$target" "$number"
    fi
done

printf '%s\n' "${report[@]}"
if [ ${#failed[@]} -gt 0 ]; then
    echo "fuzz: ${failed[*]} FAILED; what was found is in $work/found"
    exit 1
fi
rm -r "$work"
echo "fuzz: ${#targets[@]} targets found nothing"
