//! Guards the client library: other programs can do through it what the commands do.

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
fn events_arrive_in_order_with_the_cursor_to_save() {
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
    // While events of a page are still to come, the cursor must not be the end of the page.
    assert_eq!(cursors, ["start", "start", &last.cursor]);
    let mut again = subscription(&server);
    again.since.clone_from(&cursors[2]);
    assert!(Follow::start(again).unwrap().next().is_none());
}

#[test]
fn gap_is_an_error_and_the_next_event_follows_it() {
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
fn another_thread_can_stop_a_follower() {
    let server = Server::start(&[]);
    let mut subscription = subscription(&server);
    subscription.wait = Duration::from_secs(50);
    let stop = Shutdown::new().unwrap();
    subscription.shutdown = Some(stop.clone());
    let mut follow = Follow::start(subscription).unwrap();
    let reader = std::thread::spawn(move || follow.next().is_none());
    server.wait_until_held(1);
    stop.trigger();
    assert!(reader.join().unwrap());
}

#[test]
fn invalid_arguments_are_refused_without_a_request() {
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
