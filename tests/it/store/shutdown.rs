//! Goal: a store is ended in order in both ways out: when a drain is done, and when it takes too long.

use std::net::TcpStream;

use crate::support::{Server, fresh_path, wait_until};

/// Starts a server whose epoch survives only an end in order.
fn start(place: &std::path::Path) -> Server {
    Server::start(&["--max-event", "1MiB", "--data", place.to_str().unwrap(), "--sync", "never"])
}

#[test]
fn what_was_acknowledged_is_on_the_disk_when_a_drain_ends_and_when_it_is_cut_short() {
    for blocked in [false, true] {
        let place = fresh_path(&format!("store-ends-{blocked}"));
        let mut server = start(&place);
        server.publish_large_event();
        // An answer that nobody reads keeps the drain waiting, longer than it waits.
        let reader = blocked.then(|| server.occupy_connection());
        let last = server.publish("news", "acknowledged").next_cursor().to_owned();
        server.signal(15);
        wait_until("it takes nothing new", || TcpStream::connect(server.address).is_err());
        assert!(server.wait().0.success());
        let server = start(&place);
        let after = server.get(&format!("/topics/news?since={last}&wait=0"));
        assert_eq!(after.status, 200, "blocked: {blocked}: another epoch: {}", after.text());
        assert_eq!(server.get("/topics/news?wait=0").data(), ["acknowledged"]);
        drop(reader);
    }
}
