#!/usr/bin/env bash
# The public API is the one listed in docs/public-api.txt, so that no change to it goes unnoticed.
#
#   ci/api.sh             compares
#   ci/api.sh --write     writes the list anew, to be committed with the change and its reason
#
# Installs cargo-public-api if it is missing. Needs a nightly toolchain, whose rustdoc describes a crate in
# JSON.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/install.bash
. ci/install.bash

install_cargo public-api 0.52.0

# Of the traits that the compiler implements by itself, those that say which thread may have what are
# promised; the others come and go with the compiler.
now=$(CARGO_TARGET_DIR=target/api cargo +nightly public-api --features tracing --omit blanket-impls |
    grep -vE '(Freeze|Unpin|UnsafeUnpin|UnwindSafe) for ')

if [ "${1:-}" = --write ]; then
    printf '%s\n' "$now" >docs/public-api.txt
    echo "api: $(wc -l <docs/public-api.txt) lines written"
elif diff -u docs/public-api.txt - <<<"$now"; then
    echo "api: $(wc -l <docs/public-api.txt) lines, as listed"
else
    echo "api: the public API is not as listed: ci/api.sh --write, and say why in CHANGELOG.md"
    exit 1
fi
