#!/usr/bin/env bash
# Lesson 5: look, then wait; and the wake-up that is lost in between.
#
# A poll looks at the log, finds nothing, and goes to wait for the bell. Whoever publishes appends,
# and rings. If that happens between the look and the wait, the bell rings for nobody, and the poll
# waits beside an event that is there. Everybody who writes a server like this makes the mistake
# once, and it passes every test that runs it once.
#
# lost-wake-up.rs has it both ways, without a server around it: the broken one waits for the next
# ring, the right one for a bell that has rung past its cursor. Only one thing differs: the right
# bell remembers, and is asked under the same lock under which it is rung.
#
# Run:     scripts/lessons/05-lost-wake-up.sh
# See:     how many rounds the broken one survives by chance, and that it survives none when the
#          publish is put in between by force; the right one loses nothing either way.
# Where:   src/bell.rs: Seat::wait, src/bell.rs: Room::ring, src/api/poll.rs: Api::poll,
#          tests/it/races.rs: a_ring_between_the_look_and_the_wait_is_remembered
# Without: now and then somebody hears of something only at the next time-out, or never.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

broken_until=100000 # rounds
right_at_least=20000

cp "$(dirname "${BASH_SOURCE[0]}")/lost-wake-up.rs" "$TMP"
cd "$TMP"

say "This is the broken one. Read it: where is the mistake?"
show sed -n '/^impl Server for Broken/,/^}/p' lost-wake-up.rs

say "It needs nothing but the compiler:"
show rustc --edition 2024 -O lost-wake-up.rs

say "In each round one thread polls, and another publishes once, at about the same time. It ends" \
    "at the first poll that goes on waiting beside its event; or after $broken_until rounds."
show ./lost-wake-up broken chance "$broken_until"
rounds=$(values rounds)
if [ "$(values lost)" = 0 ]; then
    say "None was lost: this machine's threads hardly ever meet, as on a single core. That is no" \
        "proof of anything, as you are about to see; it is how such a mistake gets into a release."
else
    check "a wake-up was lost in round $rounds; a single run has one round" "$(values lost)" = 1
fi

say "Chance is not needed. In each of these rounds a handshake lets the publisher publish exactly" \
    "when the poll has looked and does not wait yet. (It gives up after three losses.)"
show ./lost-wake-up broken forced 1000
check 'every wake-up was lost' "$(values lost)" = "$(values rounds)"
check 'there were some' "$(values lost)" -ge 1

say "And this is the right one. The look is the same. The bell has a number, which only rises, and" \
    "the wait asks for that number first, with the lock in hand that it gives back by waiting."
show sed -n '/^impl Server for Right/,/^}/p' lost-wake-up.rs

say "The very same moment, a thousand times:"
show ./lost-wake-up right forced 1000
check 'no wake-up was lost' "$(values lost)" = 0

[ "$rounds" -gt "$right_at_least" ] || rounds=$right_at_least
say "And by chance, at least as often as the broken one was tried:"
show ./lost-wake-up right chance "$rounds"
check "no wake-up was lost in $rounds rounds" "$(values lost)" = 0

say "Why not wait with the log's own lock in hand, as the textbook does? That loses nothing either." \
    "But then all who are woken queue for the lock that the next publisher needs, and all have to" \
    "be woken for whatever happens in any topic. So longpoll has many bells, one for each thing" \
    "that is waited for, and the log's lock is held for a look only."
