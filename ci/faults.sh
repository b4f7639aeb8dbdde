#!/usr/bin/env bash
# Each scenario of tests/faults/ again and again, while strace has one system call fail.
#
# A call that fails this way is not made. For each call that can fail the scenario runs once for each
# error and each index, up to as many calls as one thread of it makes when nothing fails. A run passes if
# the scenario holds (see tests/faults/fault.rs), in time, and reports as many errors as it should.
#
#   ci/faults.sh [SCENARIO]      those whose name contains SCENARIO
set -euo pipefail
cd "$(dirname "$0")/.."

only=${1:-}
command -v strace >/dev/null || { echo "faults: needs strace"; exit 1; }

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# build DIRECTORY FLAGS: prints the path of the test binary.
build() {
    CARGO_TARGET_DIR=$1 RUSTFLAGS=$2 cargo test --locked --test faults --no-run --message-format short 2>&1 |
        tee -a /dev/stderr | sed -n 's/.*Executable.*(\(.*\))$/\1/p'
}

# scenario CALL NAME WHAT SCENARIO: one run under strace, its calls in $tmp/log, its words in $tmp/out.
# WHAT is what `inject=` takes. A wake is a write like any other, so writes are those to the eventfd.
scenario() {
    local paths=()
    [ "$1" != write ] || paths=(-P 'anon_inode:[eventfd]')
    AMY_FAULT=${2:+"$1 $2"} strace -f --seccomp-bpf -qq -o "$tmp/log" "${paths[@]}" -e signal=none \
        -e trace="$1" ${3:+-e inject="$1:$3"} \
        timeout -s KILL 60 "$binary" --exact "$4" --nocapture --test-threads 1 >"$tmp/out" 2>&1
}

runs=0 hits=0 failures=0

# try CALL ERRNO WHEN EXPECTED SCENARIO: a run and the verdict. EXPECTED says whether the faults are
# `reported` by the calls that they hit, `absorbed`, or either (`some`).
try() {
    local what=error=$2:when=$3 status=0 injected reported verdict=
    [ "$2" != delay ] || what=delay_enter=2s:when=$3
    scenario "$1" "$2" "$what" "$5" || status=$?
    injected=$(grep -cE 'INJECTED|DELAYED' "$tmp/log" || true)
    reported=$(sed -n 's/.*reported: \([0-9]*\)$/\1/p' "$tmp/out")
    if [ "$status" -ne 0 ]; then
        verdict="status $status"
    else
        case $4 in
            reported) [ "$reported" = "$injected" ] || verdict="$injected injected, $reported reported" ;;
            absorbed) [ "$reported" = 0 ] || verdict="$reported reported, none expected" ;;
            some) [ "$reported" -le "$injected" ] || verdict="$injected injected, $reported reported" ;;
        esac
    fi
    runs=$((runs + 1))
    [ "$injected" -eq 0 ] || hits=$((hits + 1))
    if [ -n "$verdict" ]; then
        failures=$((failures + 1))
        echo "FAILED: $5 with $1 $what: $verdict"
        sed 's/^/    /' "$tmp/out" | tail -20
        tail -5 "$tmp/log" | sed 's/^/    /'
    fi
}

# The most calls of this name that one thread of the scenario makes: strace counts them by thread.
calls() {
    scenario "$1" "" "" "$2" || { cat "$tmp/out" >&2; return 1; }
    awk -v call="$1(" 'index($2, call) == 1 { n[$1]++ } END { for (t in n) if (n[t] > most) most = n[t]; print most + 0 }' \
        "$tmp/log"
}

# sweep CALLS ERRNOS EXPECTED SCENARIO...: every index of every call.
sweep() {
    local name call errno n most before_runs=$runs before_hits=$hits before=$SECONDS
    for name in "${@:4}"; do
        for call in ${1//,/ }; do
            most=$(calls "$call" "$name")
            # What threads do in another order each time makes a few calls more or less.
            [ "$most" -le 40 ] || most=40
            for errno in ${2//,/ }; do
                for ((n = 1; n <= most; n++)); do
                    try "$call" "$errno" "$n" "$3" "$name"
                done
            done
        done
    done
    summary "$1" "$2" "every index"
}

# storm CALLS ERRNO WHEN SCENARIO...: many of them fail.
storm() {
    local name call before_runs=$runs before_hits=$hits before=$SECONDS
    for name in "${@:4}"; do
        for call in ${1//,/ }; do
            try "$call" "$2" "$3" absorbed "$name"
        done
    done
    summary "$1" "$2" "when=$3"
}

summary() {
    printf '%-38s %-42s %-12s %4d runs, %4d of them hit %3d s\n' "$1" "$2" "$3" \
        $((runs - before_runs)) $((hits - before_hits)) $((SECONDS - before))
}

binary=$(build "${CARGO_TARGET_DIR:-target}" "${RUSTFLAGS:-}")
mapfile -t all < <("$binary" --list --format terse | sed -n 's/: test$//p' | grep -F -- "$only")
except() { printf '%s\n' "${all[@]}" | grep -vE "$1" || true; }
among() { printf '%s\n' "${all[@]}" | grep -E "$1" || true; }
echo "faults: ${#all[@]} scenarios"

# shellcheck disable=SC2046 # names of tests have no spaces
{
    sweep epoll_create1,eventfd2,timerfd_create EMFILE,ENFILE,ENOMEM reported "${all[@]}"
    sweep timerfd_create ENODEV reported $(among lifetimes)
    sweep epoll_ctl ENOSPC,ENOMEM,EEXIST,ENOENT,EPERM,ELOOP reported "${all[@]}"
    sweep timerfd_settime EINVAL,ENOMEM,ECANCELED some "${all[@]}"
    sweep write EINTR,EAGAIN absorbed "${all[@]}"
    sweep write EIO some "${all[@]}"
    sweep epoll_pwait,ppoll EINTR absorbed "${all[@]}"
    sweep epoll_pwait,ppoll ENOMEM reported "${all[@]}"
    sweep recvfrom,sendto,writev EINTR absorbed $(among frames)

    storm epoll_pwait,ppoll EINTR 1+2 "${all[@]}"
    storm epoll_pwait,ppoll EINTR 2+2 "${all[@]}"
    storm epoll_pwait,ppoll EINTR 1..50 "${all[@]}"
    storm epoll_pwait,ppoll EINTR 1+ $(among waiting::a_wait)
    storm write EINTR 1+2 "${all[@]}"
    storm write EINTR 1..50 "${all[@]}"
    storm write EAGAIN 1+2 "${all[@]}"
    storm write EAGAIN 1..50 "${all[@]}"
    storm recvfrom,sendto,writev EINTR 1+2 $(among frames)
    storm write delay 1 "${all[@]}"
}

# Without an eventfd there are more calls in the making.
binary=$(build target/pipe "--cfg amy_pipe")
pollers=lifetimes::pollers_come_and_go_and_leave_no_descriptor
if [ -z "$only" ] || [[ $pollers == *"$only"* ]]; then
    sweep epoll_create1,pipe2,timerfd_create EMFILE,ENFILE reported $pollers
    sweep ioctl EINVAL reported $pollers
fi

echo "faults: $((runs - failures)) of $runs runs passed, in $hits of them the fault was met; $SECONDS s"
[ "$failures" -eq 0 ] && [ "$hits" -gt 0 ]
