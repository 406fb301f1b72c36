//! Publishers at full speed, while a test observes polls and streams that want other events.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::Server;

const PUBLISHERS: usize = 4;

/// Ends the publishers when dropped, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `observe` while several publishers, with these header lines, send events of type `other` to
/// the topic `busy` as fast as the server accepts them.
pub fn during_storm(server: &Server, headers: &str, observe: impl FnOnce()) {
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stopped);
        for _ in 0..PUBLISHERS {
            scope.spawn(|| {
                let mut client = server.connect();
                while !stopped.load(Ordering::Relaxed) {
                    let response = client.post("/topics/busy?type=other", headers, "x");
                    assert_eq!(response.status, 201, "{response:?}");
                }
            });
        }
        observe();
    });
}
