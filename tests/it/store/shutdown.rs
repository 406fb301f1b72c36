//! Guards the shutdown of the store: it is closed in order when a drain completes and also when the
//! drain takes too long.

use std::net::TcpStream;

use crate::support::{Server, fresh_path, wait_until};

/// Starts a server whose epoch survives only an orderly shutdown.
fn start(dir: &std::path::Path) -> Server {
    Server::start(&["--max-event", "1MiB", "--data", dir.to_str().unwrap(), "--sync", "never"])
}

#[test]
fn acknowledged_events_are_on_disk_after_a_complete_and_after_an_interrupted_drain() {
    for blocked in [false, true] {
        let dir = fresh_path(&format!("store-ends-{blocked}"));
        let mut server = start(&dir);
        server.publish_large_event();
        // A response that the client does not read blocks the drain for longer than its time-out.
        let reader = blocked.then(|| server.occupy_connection());
        let last = server.publish("news", "acknowledged").next_cursor().to_owned();
        server.signal(15);
        wait_until("the server accepts nothing new", || {
            TcpStream::connect(server.address).is_err()
        });
        assert!(server.wait().0.success());
        let server = start(&dir);
        let after = server.get(&format!("/topics/news?since={last}&wait=0"));
        assert_eq!(after.status, 200, "blocked: {blocked}: another epoch: {}", after.text());
        assert_eq!(server.get("/topics/news?wait=0").data(), ["acknowledged"]);
        drop(reader);
    }
}
