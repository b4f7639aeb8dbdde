#!/usr/bin/env bash
# What this version changes is allowed by its number, compared with the last one that was published. Until
# 0.11.0 is, that is 0.10.0, after which everything was allowed to change.
#
# Installs cargo-semver-checks if it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/install.bash
. ci/install.bash

install_cargo semver-checks 0.51.0

cargo semver-checks check-release --package amy
