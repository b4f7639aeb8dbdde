# Sourced by the jobs that need programs from Debian's packages, or with cargo.

# install PROGRAM:PACKAGE...    installs the packages of which a program is missing
install() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

# install_cargo TOOL VERSION    installs `cargo TOOL`, unless it is there in just this version
install_cargo() {
    [ "$(cargo "$1" --version 2>/dev/null)" = "cargo-$1 $2" ] || cargo install --locked "cargo-$1@$2"
}
