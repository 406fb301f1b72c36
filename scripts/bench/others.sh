#!/usr/bin/env bash
# shellcheck disable=SC2034,SC2154 # `foreign` is for whoever sources this, and `scratch` is theirs.
# How busy others keep the machine. It is sourced, not run, by scripts that have a directory `scratch`.
#
#   mark           from here on
#   tell_others    sets `foreign`: the share of the machine's time since then that others had, in percent

# Kernels differ in whether the time of network interrupts is charged to the process that they interrupt, and
# the loads' own packets make most of it. Where it is not, it must not look like somebody else's work.
interrupts_apart() {
    { cat "/boot/config-$(uname -r)" || gzip -dc /proc/config.gz; } 2>/dev/null \
        | grep '^CONFIG_IRQ_TIME_ACCOUNTING=y' >/dev/null
}
interrupts=1
! interrupts_apart || interrupts=0

# Jiffies that the whole machine was busy; time that the host took away counts too.
machine_busy() {
    awk -v interrupts=$interrupts '$1 == "cpu" { print $2 + $3 + $4 + $9 + interrupts * ($7 + $8) }' /proc/stat
}

# Jiffies of this script and all that it has waited for. `times` must run in this shell, not in a subshell.
own_busy() {
    times >"$scratch/times"
    tr 'ms' '  ' <"$scratch/times" \
        | awk -v hz="$(getconf CLK_TCK)" '{ sum += $1 * 60 + $2 + $3 * 60 + $4 } END { print sum * hz }'
}

mark() {
    marked_busy=$(machine_busy)
    own_busy >"$scratch/own"
    marked_own=$(cat "$scratch/own")
    marked_at=$(cut -d ' ' -f 1 /proc/uptime)
}

foreign=0
tell_others() {
    own_busy >"$scratch/own"
    foreign=$(awk -v busy="$(machine_busy)" -v busy_then="$marked_busy" -v own="$(cat "$scratch/own")" -v own_then="$marked_own" \
        -v now="$(cut -d ' ' -f 1 /proc/uptime)" -v then="$marked_at" -v cores="$(nproc)" -v hz="$(getconf CLK_TCK)" \
        'BEGIN {
            whole = (now - then) * hz * cores
            foreign = (busy - busy_then) - (own - own_then)
            printf "%.1f\n", (whole > 0 && foreign > 0) ? 100 * foreign / whole : 0
        }')
}
