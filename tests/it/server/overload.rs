//! Goal: whoever takes all there is, of places or of room, gives way to others.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Client, Server, wait_until};

fn ask(client: &mut Client) -> &mut Client {
    client.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

#[test]
fn connections_that_ask_without_a_pause_do_not_keep_others_out() {
    let server = Server::start(&["--max-connections", "4"]);
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let mut client = server.connect();
                    // Until it is thrown out.
                    while !(enough.load(Ordering::Relaxed)
                        || ask(&mut client).closes_without_response())
                    {
                        std::hint::spin_loop();
                    }
                }
            });
        }
        let refused = (0..20)
            .map(|_| server.connect().post("/topics/news", "", "hello").status)
            .filter(|status| *status != 201);
        let refused = refused.count();
        enough.store(true, Ordering::Relaxed);
        // A machine that is busy with something else may let one wait too long.
        assert!(refused < 10, "{refused} of 20 were refused");
    });
}

/// Sends all of a body but its last byte.
fn stop_half_way(server: &Server, media: &str, length: usize) -> Client {
    let mut client = server.connect();
    client.send(format!(
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: {media}\r\nContent-Length: {length}\r\n\r\n{}",
        "1".repeat(length - 1)
    ));
    client
}

#[test]
fn bodies_that_stop_half_way_give_their_room_to_others() {
    let server = Server::start(&[]);
    let refused = || server.metric("refusals_total{cause=\"body_memory\"}");
    // The large ones leave a rest, which the small ones fill.
    let mut stopped: Vec<Client> =
        (0..40).map(|_| stop_half_way(&server, "application/x-ndjson", 1 << 20)).collect();
    wait_until("there is no room for a large one", || refused() > 0.0);
    let before = refused();
    stopped.extend((0..60).map(|_| stop_half_way(&server, "text/plain", 60_000)));
    wait_until("there is no room for a small one", || refused() > before);
    for _ in 0..5 {
        server.publish("news", &"x".repeat(60_000));
    }
}
