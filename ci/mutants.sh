#!/usr/bin/env bash
# Small changes to the library's sources, one at a time: do the tests notice? By hand, for it takes two hours.
#
#   ci/mutants.sh [--shard K/N]     all of them, or a part
#
# The first pass leaves out the tests that are long, the second does not, and the third has the models: what only
# an unlucky moment shows, they show each time. What is left is listed in docs/testing.md, each with the reason.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/install.bash
. ci/install.bash

install_cargo mutants 27.1.0

# Many tests wait, for another thread or the clock: more of them than there are processors go side by side.
export CARGO_PROFILE_DEV_DEBUG=0 RUST_TEST_THREADS=8
out=target/mutants
tests=(-C--lib -C--test=it)
# What reads the sources would notice a change without running it.
not_these=(--skip tidy::)
long=(
    --skip a_hundred_thousand_ --skip a_notification_that_meets_ --skip a_receiver_dropped_among_
    --skip a_timer_that_is_alone_ --skip any_sink_gets_ --skip any_split_budget_ --skip are_told_to_any_of_several_
    --skip drops_on_ --skip every_order_of_drops_ --skip every_split_of_
)
mutants() { cargo mutants --no-shuffle --cap-lints=true --jobs 2 --output "$out" "${tests[@]}" "$@"; }

# What was noticed in one pass is not tried again in the next.
again() {
    cat "$out/mutants.out/timeout.txt" >>"$out/mutants.out/caught.txt"
    mutants --iterate "$@"
}
# 2 and 3 say that some were missed, or took too long.
or_missed() { [ $? -le 3 ]; }

rm -rf "$out"
mutants --timeout 20 "$@" -- -- "${not_these[@]}" "${long[@]}" || or_missed
viable=$(($(cargo mutants --list "$@" | wc -l) - $(wc -l <"$out/mutants.out/unviable.txt")))
tests+=(-C--test=alloc_codec -C--test=allocations)
again --timeout 120 "$@" -- -- "${not_these[@]}" || or_missed
tests=(-C--lib)
export CARGO_PROFILE_DEV_OPT_LEVEL=1
# What the kernel and the bytes decide, the models do not have.
grep -E "^src/(codec|sys)/" "$out/mutants.out/missed.txt" >"$out/missed.txt" || true
RUSTFLAGS="--cfg amy_loom -A dead_code" LOOM_MAX_PERMUTATIONS=1000 again --timeout 60 -f 'src/*.rs' -f 'src/sync/*.rs' \
    "$@" -- -- models:: || or_missed

cat "$out/mutants.out/missed.txt" >>"$out/missed.txt"
echo "mutants: not noticed: $(wc -l <"$out/missed.txt") of $viable that compile"
cat "$out/missed.txt"
