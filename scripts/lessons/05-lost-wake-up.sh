#!/usr/bin/env bash
# Lesson 5: look, then wait; and the wake-up that is lost in between.
#
# A poll looks at the log, finds nothing, and begins to wait. A publish appends an event and then
# notifies the waiters. If that happens after the look and before the wait, it notifies nobody, and
# the poll waits although its event is there. Everybody who writes such a server makes this
# mistake once, and it passes every test that runs it once.
#
# lost-wake-up.rs has both versions, without a server around them. The broken one waits for the next
# notification; the right one waits until its wait queue has been notified past its cursor. They
# differ in one thing: the right one's wait queue remembers the seq, and is examined under the lock
# under which it is notified.
#
# Run:     scripts/lessons/05-lost-wake-up.sh
# See:     how many rounds the broken one survives by chance, and that it survives none when the
#          publish is forced in between; the right one loses nothing either way.
# Where:   src/waiters.rs: Waiter::wait (Woken::Notified), src/waiters.rs: Waiters::notify
#          (ReleasedWaiters), src/api/poll.rs: Poller::hold (register), tests/it/waiters/races.rs:
#          notify_between_the_check_and_the_wait_is_not_lost (ROUNDS)
# Without: now and then a client learns of an event only at its next time-out, or never.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

broken_until=100000 # rounds
right_at_least=20000

cp "$(dirname "${BASH_SOURCE[0]}")/lost-wake-up.rs" "$TMP"
cd "$TMP"

say "This is the broken one. Read it: where is the mistake?"
show sed -n '/^impl Server for Broken/,/^}/p' lost-wake-up.rs

say "The compiler is all it needs:"
show rustc --edition 2024 -O lost-wake-up.rs

say "In each round one thread polls, and another publishes once, at about the same time. It stops" \
    "at the first poll that keeps waiting beside its event, or after $broken_until rounds."
show ./lost-wake-up broken chance "$broken_until"
rounds=$(values rounds)
if [ "$(values lost)" = 0 ]; then
    say "None was lost: on this machine the two threads hardly ever meet, as on a single core. That" \
        "proves nothing, as you are about to see; it is how such a mistake gets into a release."
else
    check "a wake-up was lost in round $rounds; a single run has one round" "$(values lost)" = 1
fi

say "Chance is not needed. In each of these rounds a handshake makes the publish happen exactly when" \
    "the poll has looked and does not wait yet. (It stops after three losses.)"
show ./lost-wake-up broken forced 1000
check 'every wake-up was lost' "$(values lost)" = "$(values rounds)"
check 'there were some' "$(values lost)" -ge 1

say "And this is the right one. The look is the same. The wait queue has a number, which only rises," \
    "and the wait examines that number first, under the lock that it releases by waiting."
show sed -n '/^impl Server for Right/,/^}/p' lost-wake-up.rs

say "The very same moment, a thousand times:"
show ./lost-wake-up right forced 1000
check 'no wake-up was lost' "$(values lost)" = 0

[ "$rounds" -gt "$right_at_least" ] || rounds=$right_at_least
say "And by chance, at least as often as the broken one was tried:"
show ./lost-wake-up right chance "$rounds"
check "no wake-up was lost in $rounds rounds" "$(values lost)" = 0

say "Why not wait under the log's own lock, as the textbook and lesson 0 do? That loses nothing either." \
    "But then all woken threads queue for the lock that the next publisher needs, and all of them have" \
    "to be woken for every event of every topic. So longpoll has many wait queues, one for each topic" \
    "or prefix, and holds the log's lock only for a look."
