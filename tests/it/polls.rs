//! Goal: a poll is held until there is news or its deadline, and then says where to go on.

use crate::support::Server;

#[test]
fn a_held_poll_gets_the_event_that_is_published_while_it_waits() {
    let server = Server::start(&[]);
    let mut poll = server.hold("/topics/news?since=now&wait=60");
    assert!(poll.has_nothing());
    let published = server.publish("news", "hello");
    assert_eq!(published.json()["released"], 1);
    let answer = poll.answer();
    assert_eq!(answer.data(), ["hello"]);
    assert_eq!(answer.header("Poll-Reason"), Some("data"));
    assert_eq!(answer.next(), published.json()["cursor"]);
}
