//! Guards streams in a storm of events that they do not want: each still sends its cursor in time,
//! and ends when its client leaves, when its token is revoked, or when the server stops.

use crate::support::sse::SseReader;
use crate::support::storm::during_storm;
use crate::support::tokens::{TokenFile, bearer, new_token};
use crate::support::{Server, wait_until};

const STREAMS: usize = 100;

/// Opens streams that no event of the storm is sent to, with these header lines.
fn open_streams(server: &Server, fields: &str) -> Vec<SseReader> {
    let topics = ["busy", "b*", "busy,quiet"].iter().cycle().take(STREAMS);
    let target = |topics| format!("/topics/{topics}?since=now&type=wanted");
    topics.map(|topics| SseReader::open(server, &target(topics), fields)).collect()
}

#[test]
fn silent_stream_sends_its_cursor() {
    let server = Server::start(&["--max-wait", "1s"]);
    let mut streams = open_streams(&server, "");
    during_storm(&server, "", || {
        // The first cursor comes at once, the others when they are due.
        for _ in 0..3 {
            for stream in &mut streams {
                let block = stream.next();
                assert!(block.id.is_some() && block.data.is_none(), "{block:?}");
            }
        }
    });
}

#[test]
fn stream_ends_when_its_client_leaves_or_its_token_is_revoked() {
    let (a, b) = (new_token("a", "read", "*"), new_token("b", "read", "*"));
    let root = new_token("root", "admin,publish", "*");
    let file = TokenFile::new("stream-storm", &format!("{}{}{}", a.0, b.0, root.0));
    let server = Server::start(&["--tokens", file.path()]);
    let admin = bearer(&root.1);
    let ended = |reason: &str| {
        let mut client = server.connect();
        client.send(format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{admin}\r\n"));
        let total = format!("longpoll_streams_total{{reason=\"{reason}\"}} {STREAMS}\n");
        client.response().text().contains(&total)
    };
    let revoked = open_streams(&server, &bearer(&a.1));
    let abandoned = open_streams(&server, &bearer(&b.1));
    during_storm(&server, &admin, || {
        drop(abandoned);
        wait_until("the streams without a client end", || ended("hung_up"));
        file.write(&format!("{}{}", b.0, root.0));
        for stream in revoked {
            assert!(stream.read_to_end().1, "the stream ends in order");
        }
        wait_until("the revoked streams end", || ended("revoked"));
    });
}
