#!/usr/bin/env bash
# Lesson 13: several tabs, one held request.
#
# A browser opens at most six connections to a server (over HTTP/1.1). If each tab of a site holds a
# poll, the seventh request of any tab waits until one of them is answered: the site is frozen. So
# the tabs share one held request: one tab polls, and passes the events to the others. Each tab
# keeps a cursor of its own, so it does not matter which one polls, or when that one is closed.
#
# curl shows the freezing, because it can be limited to six connections. /longpoll.js shows the
# sharing, as the server serves it, in Node, with tabs.mjs in the role of the browser; without Node,
# one curl polls and six readers share its answer.
#
# Run:     scripts/lessons/13-several-tabs.sh        (NODE names another Node; empty: without)
# See:     a comment that is sent late, behind six held polls; then six readers and one held poll.
# Where:   src/web/longpoll.js: #requestLock (locks), src/web/longpoll.js: #lead (this.#ask),
#          src/web/longpoll.js: #accept (page)
# Without: six tabs freeze the site, and cost the server six times as much.
set -euo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

tabs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/tabs.mjs

# With Node: the module in six tabs. The tab that polls is closed in the middle.
tabs_in_node() {
    say "This is the client for browsers, and here are six tabs that use it:"
    show curl -o "$TMP/longpoll.mjs" "$URL/longpoll.js"
    begin browser "$node" "$tabs" "$URL" "$TMP/longpoll.mjs"
    until_held 1
    say "One poll is held for all six."
    show curl -d one "$URL/topics/news"
    check 'one poll was released' "$(values released)" = 1
    until_held 1
    show curl -d two "$URL/topics/news"

    say "Now the tab that polls is closed (this event stands for the click). Another one gets the lock:"
    until_held 1
    show curl -d close "$URL/topics/news"
    show curl -d three "$URL/topics/news"
    until_held 1
    check 'still one poll' "$(metric longpoll_polls_held)" = 1
    show curl -d end "$URL/topics/news"
    answer browser
    check 'five tabs have everything, each once, in order' \
        "$(printf '%s\n' "$OUT" | grep -c ': one two close three end$')" = 5
    check 'the one that was closed had everything until then' \
        "$(printf '%s\n' "$OUT" | grep -c ', which polled: one two close$')" = 1
}

# Without Node: one curl polls, and six readers read the file with its answer. This shows the principle
# but not the module: here the same client always polls.
tabs_in_bash() {
    say "There is no Node here. So one curl polls, and six readers share its answer:"
    begin asking curl -o "$TMP/page" "$URL/topics/news?since=now&wait=20"
    until_held 1
    say "One poll is held for all six."
    show curl -d one "$URL/topics/news"
    check 'one poll was released' "$(values released)" = 1
    answer asking
    for tab in 1 2 3 4 5 6; do
        show cat "$TMP/page"
        check "tab $tab has it" "$(values data)" = one
    done
}

start_server

say "Six tabs follow a topic, each with a poll of its own, and in one of them somebody comments. curl" \
    "does as a browser does: six connections, and further requests wait. (limit=[1-6] makes six polls.)"
begin browser curl --parallel --parallel-immediate --parallel-max 6 \
    "$URL/topics/wall?since=now&wait=20&limit=[1-6]" --next -d 'my comment' "$URL/topics/wall"
until_held 6

say "All six connections hold polls, and the comment is not even sent. Another person, in another" \
    "browser, is later and yet faster. Her comment is what releases the first one's tabs:"
show curl -d 'her comment' "$URL/topics/wall"
check 'she is the first' "$(values seq)" = 1
check 'six polls were held for one reader' "$(values released)" = 6
answer browser
check 'then the comment that had waited was published' "$(printf '%s\n' "$OUT" | grep -c '"topic":"wall","seq":2,"cursor"')" = 1

node=${NODE-node}
if command -v "$node" >/dev/null && [ "$(curl -o "$TMP/module" -w '%{http_code}' "$URL/longpoll.js")" = 200 ]; then
    tabs_in_node
else
    tabs_in_bash
fi
