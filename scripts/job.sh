# shellcheck shell=bash
# Source this file. It makes a scratch directory, $work, which is removed at the end. `bounded` runs a command with a time limit;
# a signal to the script also ends the command.
# shellcheck disable=SC2154 # the script that sources this sets $template

work=$(mktemp -d "$template")
job=
stop() {
    trap '' INT TERM
    if [ -n "$job" ]; then kill "$job" 2>/dev/null || true; fi
    wait
    exit 130
}
trap 'rm -rf "$work"' EXIT
trap stop INT TERM

# The command runs in the background, because bash handles no signal while it waits for a foreground command.
# timeout passes the signal on to all processes that the command started.
bounded() { # seconds, command
    timeout --kill-after=20 "$@" &
    job=$!
    wait "$job"
    job=
}
