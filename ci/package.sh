#!/usr/bin/env bash
# What would be published: nothing is missing, nothing is in it that is for the repository only, and the
# library builds from it alone, its documentation included.
set -euo pipefail
cd "$(dirname "$0")/.."

listed=$(cargo package --locked --allow-dirty --list)

# The crate's documentation includes these two, and the tests of a promise are its proof.
for file in Cargo.toml Cargo.lock README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT \
    docs/guide.md docs/coming-from.md docs/design.md src/lib.rs examples/echo/main.rs tests/it/main.rs; do
    grep -qx "$file" <<<"$listed" || { echo "package: $file is missing"; exit 1; }
done

strangers=$(grep -E '^(\.|ci/|bench/|fuzz/|servers/|target/|docs/img/|docs/public-api)|\.(log|orig|rej|swp)$' <<<"$listed" |
    grep -vx -e '.cargo_vcs_info.json' -e 'Cargo.toml.orig' || true)
[ -z "$strangers" ] || { echo "package: not for publishing:"; echo "$strangers"; exit 1; }

# Builds what was packed, in a folder of its own.
cargo package --locked --allow-dirty

version=$(cargo pkgid | sed 's/.*[#@]//')
cd "${CARGO_TARGET_DIR:-target}/package/amy-$version"
RUSTDOCFLAGS="-D warnings" CARGO_TARGET_DIR=../doc cargo doc --locked --no-deps
echo "package: $(wc -l <<<"$listed") files, complete, and they build"
