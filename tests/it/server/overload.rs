//! Guards fairness under overload: clients that take all connections or all body memory are evicted
//! or refused for others.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Client, Server, wait_until};

fn send_health_request(client: &mut Client) -> &mut Client {
    client.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

#[test]
fn clients_that_send_without_a_pause_do_not_starve_others() {
    let server = Server::start(&["--max-connections", "4"]);
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let mut client = server.connect();
                    // Until the server closes the connection.
                    while !(enough.load(Ordering::Relaxed)
                        || send_health_request(&mut client).closes_without_response())
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
        // On a busy machine a connection may wait longer than the queue allows.
        assert!(refused < 10, "{refused} of 20 were refused");
    });
}

/// Sends a body without its last byte.
fn send_incomplete_body(server: &Server, media: &str, length: usize) -> Client {
    let mut client = server.connect();
    client.send(format!(
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: {media}\r\nContent-Length: {length}\r\n\r\n{}",
        "1".repeat(length - 1)
    ));
    client
}

#[test]
fn incomplete_bodies_give_up_their_memory_for_others() {
    let server = Server::start(&[]);
    let refused = || server.metric("refusals_total{cause=\"body_memory\"}");
    // The large bodies leave some memory, which the small ones fill.
    let mut stopped: Vec<Client> =
        (0..40).map(|_| send_incomplete_body(&server, "application/x-ndjson", 1 << 20)).collect();
    wait_until("there is no memory for a large body", || refused() > 0.0);
    let before = refused();
    stopped.extend((0..60).map(|_| send_incomplete_body(&server, "text/plain", 60_000)));
    wait_until("there is no memory for a small body", || refused() > before);
    for _ in 0..5 {
        server.publish("news", &"x".repeat(60_000));
    }
}
