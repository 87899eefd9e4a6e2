# shellcheck shell=bash
# To be sourced: $work is a scratch directory, removed at the end; `bounded` runs a command that a signal ends too.
# shellcheck disable=SC2154 # $template is set by who sources this

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

# In the background, for bash handles no signal while it waits for a foreground command;
# timeout passes the signal on to all that the command started.
bounded() { # seconds, command
    timeout --kill-after=20 "$@" &
    job=$!
    wait "$job"
    job=
}
