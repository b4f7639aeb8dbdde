#!/bin/sh
# Measures amy beside its peers, and writes docs/performance.md with its charts.
#
#   bench/run.sh --quick         under ten minutes on two idle cores
#   bench/run.sh --full          about an hour: nine times the rounds
#   bench/run.sh --check         system calls, allocations and instructions against bench/recorded.tsv;
#                                fails if one has grown by more than 15 %
#   bench/run.sh --check-ratios  a quick run's ratios against the same file
#   bench/run.sh --record        a quick run, and writes that file anew
#
# Counting needs strace and valgrind; what cannot be counted is said and left out.
set -eu
cd "$(dirname "$0")"

case "${1-}" in
--quick | --full | --check | --record) mode=${1#--} ;;
--check-ratios) mode=ratios ;;
*)
    sed -n '2,/^$/s/^# \{0,1\}//p' run.sh
    exit 2
    ;;
esac

cargo build --release --locked
exec "${CARGO_TARGET_DIR:-target}/release/amy-bench" "$mode"
