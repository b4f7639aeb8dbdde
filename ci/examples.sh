#!/usr/bin/env bash
# Each example in the form that ends by itself, and their answers to what they cannot do.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --locked --release --examples
bin=${CARGO_TARGET_DIR:-target}/release/examples

# A minute is far more than any of them needs; one that hangs must not hold up the rest.
run() { echo "-- $*"; timeout 60 "$bin/$@"; }

run echo --seconds 1
run echo --seconds 1 --connections 500 --pipeline 16 --size 1000
run echo --seconds 1 --connections 3 --pipeline 4 --size 1048576
run echo --seconds 1 --connections 1 --size 0
run chat --self-test
run timers
run channels

# One line, and status 2.
refuses() {
    local status=0 said
    said=$(timeout 60 "$bin/$@" 2>&1 >/dev/null) || status=$?
    echo "-- $*: $said"
    [ "$status" -eq 2 ] && [ "$(wc -l <<<"$said")" -eq 1 ] && [ -n "$said" ] || {
        echo "examples: expected one line and status 2, got status $status"
        exit 1
    }
}
for bad in "--connections 0" "--connections many" "--size 1048577" "--seconds -1" "--pipeline" "--nonsense" "stray"; do
    # shellcheck disable=SC2086
    refuses echo $bad
done
refuses chat --limit none

# An address in use; and a server that ends on Ctrl-C and says what it served.
served=$(mktemp)
"$bin/echo" --listen 127.0.0.1:0 >"$served" &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -f "$served"' EXIT
until grep -q listening "$served"; do kill -0 "$server"; sleep 0.05; done
address=$(sed -n 's/^listening on \([0-9.:]*\);.*/\1/p' "$served")
refuses echo --listen "$address"

# An idle server does not run. Its processor time is in ticks (proc(5), utime and stime).
ticks() { cut -d' ' -f14,15 "/proc/$server/stat"; }
before=$(ticks)
sleep 2
[ "$before" = "$(ticks)" ] || { echo "examples: an idle server used the processor"; exit 1; }

kill -INT "$server"
wait "$server"
grep "^served 0 connections" "$served"
echo "examples: all ended as they should"
