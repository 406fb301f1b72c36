//! Guards the memory of pages: a page counts with the bytes that it has, so that readers who come
//! together all get whole pages, and all pages together stay within the limit.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::thread;

use crate::support::storm::during_storm;
use crate::support::{Client, Server, program, wait_until};

const READERS: usize = 128;
const ROUNDS: usize = 50;
const EVENTS: usize = 100;
/// Bytes of a large event.
const EVENT: usize = 60_000;
/// `RESPONSE_MEMORY_BYTES`.
const LIMIT: usize = 16 << 20;

/// Former bug: each reader reserved room for the largest page while it waited for the log. From the
/// 17th on, readers got pages of one event, although hardly a byte was in memory.
#[test]
fn readers_that_come_together_get_whole_pages() {
    let server = Server::start(&[]);
    server.publish_many("news", EVENTS);
    let epoch = server.get("/topics/news?since=now&wait=0").next_cursor().to_owned();
    let epoch = epoch.split_once('.').unwrap().0;
    let read = |client: &mut Client, after: usize| {
        let page = client.get(&format!("/topics/news?since={epoch}.{after}&wait=0"));
        assert_eq!(page.seqs().len(), EVENTS - after, "{}", page.head);
    };
    // Meanwhile the log changes, so that no page can be shared for long.
    during_storm(&server, "", || {
        thread::scope(|scope| {
            for reader in 0..READERS {
                let (server, read) = (&server, &read);
                scope.spawn(move || {
                    let mut client = server.connect();
                    (0..ROUNDS).for_each(|_| read(&mut client, reader % EVENTS));
                });
            }
        });
    });
}

/// Readers that come together and do not read: their pages, a megabyte each, would exceed the limit
/// several times.
#[test]
fn pages_that_are_rendered_at_the_same_time_stay_within_the_limit() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("page-memory.sock");
    let unix = format!("unix:{}", path.display());
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--listen", &unix, "--log", "error"]);
    let server = Server::spawn(&mut command);
    let text = "x".repeat(EVENT);
    (0..20).for_each(|_| drop(server.publish("news", &text)));
    let start = Barrier::new(READERS);
    let readers: Vec<_> = thread::scope(|scope| {
        let connect = || {
            // A unix socket's buffer holds a fraction of such a page.
            let mut reader = UnixStream::connect(&path).unwrap();
            start.wait();
            reader.write_all(b"GET /topics/news HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            // The first byte of the response: its page is rendered.
            reader.read_exact(&mut [0]).unwrap();
            reader
        };
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(connect)).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    let in_memory = server.metric("answers_in_flight_bytes");
    // Beyond the limit each page may still have one event, beside the head of its response.
    let most = LIMIT + READERS * (EVENT + 1_000);
    assert!(in_memory > (LIMIT / 2) as f64 && in_memory < most as f64, "{in_memory}");
    drop(readers);
    wait_until("the memory is free", || {
        server.metric("answers_in_flight_bytes") < (1 << 20).into()
    });
    assert_eq!(server.get("/topics/news").seqs().len(), 17);
}
