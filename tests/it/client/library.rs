//! Goal: what the commands do, other programs can do through the library.

use std::time::Duration;

use longpoll::client::{Data, Error, Follow, Message, Publisher, Subscription, Url};
use longpoll::shutdown::Shutdown;

use crate::support::Server;

fn subscription(server: &Server) -> Subscription {
    let url: Url = format!("http://{}", server.address).parse().unwrap();
    let mut subscription = Subscription::new(url, "news").unwrap();
    subscription.wait = Duration::ZERO;
    subscription
}

#[test]
fn events_come_in_order_with_the_cursor_to_keep() {
    let server = Server::start(&[]);
    let mut publisher = Publisher::new(&subscription(&server).url).unwrap();
    publisher.publish("news", &Message::text("one")).unwrap();
    publisher.publish("news", &Message::json("{\"n\":1.0}")).unwrap();
    let last = publisher.publish("news", &Message::text(b"\xff")).unwrap();
    let mut follow = Follow::start(subscription(&server)).unwrap();
    let mut data = Vec::new();
    let mut cursors = Vec::new();
    while let Some(event) = follow.next() {
        data.push(event.unwrap().data);
        cursors.push(follow.cursor().to_owned());
    }
    let expected =
        [Data::Text("one".into()), Data::Json("{\"n\":1.0}".into()), Data::Bytes(vec![0xff])];
    assert_eq!(data, expected);
    // Before the whole page is given out, to keep its end would lose the rest.
    assert_eq!(cursors, ["start", "start", &last.cursor]);
    let mut again = subscription(&server);
    again.since.clone_from(&cursors[2]);
    assert!(Follow::start(again).unwrap().next().is_none());
}

#[test]
fn a_gap_is_told_and_the_next_event_is_behind_it() {
    let server = Server::start(&["--retain-events", "2"]);
    let mut subscription = subscription(&server);
    subscription.since = server.publish("news", "0").next_cursor().to_owned();
    server.publish_many("news", 4);
    let mut follow = Follow::start(subscription).unwrap();
    let Some(Err(Error::Gap(gap))) = follow.next() else { panic!("no gap") };
    assert_eq!((&*gap.why, gap.lost["news"]), ("trimmed", Some(2)));
    let rest: Vec<_> = follow.map(|event| event.unwrap().data).collect();
    assert_eq!(rest, [Data::Text("2".into()), Data::Text("3".into())]);
}

#[test]
fn another_thread_can_end_it() {
    let server = Server::start(&[]);
    let mut subscription = subscription(&server);
    subscription.wait = Duration::from_secs(50);
    let stop = Shutdown::new().unwrap();
    subscription.stop = Some(stop.clone());
    let mut follow = Follow::start(subscription).unwrap();
    let reader = std::thread::spawn(move || follow.next().is_none());
    server.wait_until_held(1);
    stop.give();
    assert!(reader.join().unwrap());
}

#[test]
fn what_cannot_be_asked_is_refused_before_it_is() {
    let url: Url = "http://127.0.0.1:1".parse().unwrap();
    assert!(Subscription::new(url.clone(), "a b").is_err());
    let mut publisher = Publisher::new(&url).unwrap();
    let invalid = |result: Result<_, Error>| matches!(result, Err(Error::Invalid(_)));
    assert!(invalid(publisher.publish("a/b", &Message::text("x"))));
    for key in ["", " x", "a\r\nb: c", &"x".repeat(129)] {
        let mut message = Message::text("x");
        message.key = Some(key.into());
        assert!(invalid(publisher.publish("a", &message)), "{key:?}");
    }
    let mut subscription = Subscription::new(url, "a").unwrap();
    subscription.since = "start&wait=0".into();
    assert!(matches!(Follow::start(subscription), Err(Error::Invalid(_))));
}
