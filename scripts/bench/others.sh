#!/usr/bin/env bash
# shellcheck disable=SC2034,SC2154 # The sourcing script reads `others_percent` and sets `scratch`.
# Measures how busy other programs keep the machine. To be sourced by a script that has set `scratch` to a
# directory for temporary files.
#
#   start_watching_others    starts the measurement
#   measure_others           sets `others_percent`: the share of the machine's CPU time since then that
#                            other programs took, in percent

# Whether the kernel accounts the time of interrupts separately. A kernel that does not charges it to the
# interrupted process. Most of it is caused by the load's own packets, so where it is accounted separately
# it is not counted: it would look like the work of other programs.
accounts_interrupts_separately() {
    { cat "/boot/config-$(uname -r)" || gzip -dc /proc/config.gz; } 2>/dev/null \
        | grep '^CONFIG_IRQ_TIME_ACCOUNTING=y' >/dev/null
}
interrupts=1
! accounts_interrupts_separately || interrupts=0

# Prints the jiffies in which the whole machine was busy, including those stolen by the hypervisor.
machine_busy() {
    awk -v interrupts=$interrupts '$1 == "cpu" { print $2 + $3 + $4 + $9 + interrupts * ($7 + $8) }' /proc/stat
}

# Prints the jiffies of this script and of the children that it has waited for. It must not run in a
# subshell: `times` there counts the subshell only.
own_busy() {
    times >"$scratch/times"
    tr 'ms' '  ' <"$scratch/times" \
        | awk -v hz="$(getconf CLK_TCK)" '{ sum += $1 * 60 + $2 + $3 * 60 + $4 } END { print sum * hz }'
}

start_watching_others() {
    busy_at_start=$(machine_busy)
    own_busy >"$scratch/own"
    own_at_start=$(cat "$scratch/own")
    uptime_at_start=$(cut -d ' ' -f 1 /proc/uptime)
}

others_percent=0
measure_others() {
    own_busy >"$scratch/own"
    others_percent=$(awk -v busy="$(machine_busy)" -v busy_at_start="$busy_at_start" \
        -v own="$(cat "$scratch/own")" -v own_at_start="$own_at_start" \
        -v uptime="$(cut -d ' ' -f 1 /proc/uptime)" -v uptime_at_start="$uptime_at_start" \
        -v cores="$(nproc)" -v hz="$(getconf CLK_TCK)" \
        'BEGIN {
            total = (uptime - uptime_at_start) * hz * cores
            others = (busy - busy_at_start) - (own - own_at_start)
            printf "%.1f\n", (total > 0 && others > 0) ? 100 * others / total : 0
        }')
}
