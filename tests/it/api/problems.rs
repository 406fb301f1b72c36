//! Goal: whoever is refused learns what is at fault and what would be right, and whether the
//! connection can go on.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Client, Response, Server};

/// Checks a refusal's status and shape, and that its detail says all of this.
fn refused(response: &Response, status: u16, says: &[&str]) {
    assert_eq!(response.status, status, "{response:?}");
    let detail = response.detail();
    assert!(!response.json()["title"].as_str().unwrap().is_empty());
    for word in says {
        assert!(detail.contains(word), "{word:?} is not in {detail:?}");
    }
}

fn goes_on(client: &mut Client, response: &Response) {
    assert_eq!(response.header("Connection"), None, "{response:?}");
    assert_eq!(client.get("/health").status, 200);
}

fn ends(client: &mut Client, response: &Response) {
    assert_eq!(response.header("Connection"), Some("close"), "{response:?}");
    assert!(client.is_closed());
}

#[test]
fn a_bad_parameter_is_named_with_its_value_and_what_is_allowed() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (query, says) in [
        ("wait=-1", ["wait", "-1", "number"]),
        ("wait=soon", ["wait", "soon", "number"]),
        ("wait=", ["wait", "wait=", "number"]),
        ("wait=1e3", ["wait", "1e3", "number"]),
        ("limit=0", ["limit", "0", "1000"]),
        ("limit=1001", ["limit", "1001", "1000"]),
        ("limit=ten", ["limit", "ten", "1000"]),
        ("limit=%2B5", ["limit", "+5", "1000"]),
        ("format=xml", ["format", "xml", "ndjson"]),
        ("format=JSON", ["format", "JSON", "json"]),
        ("gap=ignore", ["gap", "ignore", "skip"]),
        ("since=yesterday", ["since", "yesterday", "last:N"]),
        ("since=last:", ["since", "last:", "start"]),
        ("since=last:-1", ["since", "last:-1", "number"]),
        ("since=1042", ["since", "1042", "cursor"]),
        ("since=", ["since", "cursor", "now"]),
        ("type=a%20b", ["type", "a b", "A-Z"]),
        ("type=", ["type", "type", "A-Z"]),
    ] {
        let response = client.get(&format!("/topics/news?{query}"));
        refused(&response, 400, &says);
        goes_on(&mut client, &response);
    }
}

#[test]
fn a_cursor_that_was_never_given_out_is_refused() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let cursor = client.get("/topics/news?wait=0").next_cursor().to_owned();
    for changed in [
        cursor.to_ascii_uppercase().replace('.', "F."),
        format!("{cursor}."),
        format!("{cursor}.x"),
        format!("{cursor}.1.1"),
        format!("0{cursor}"),
        cursor.replace(".0", ".00"),
        cursor.replace(".0", ".-1"),
        cursor.replace(".0", ".99999999999999999999"),
        cursor.replace(".0", ""),
    ] {
        refused(&client.get(&format!("/topics/news?since={changed}")), 400, &["since"]);
    }
}

#[test]
fn an_unknown_parameter_is_refused_with_a_list_of_the_known() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let poll = ["since", "wait", "limit", "type", "format", "gap"];
    for query in ["sinse=now", "Since=now", "x", "since%20=now"] {
        let response = client.get(&format!("/topics/news?{query}"));
        refused(&response, 400, &poll);
        goes_on(&mut client, &response);
    }
    let response = client.post("/topics/news?since=now", "", "x");
    refused(&response, 400, &["since", "type"]);
    client = server.connect();
    refused(&client.get("/topics?since=now"), 400, &["since", "prefix", "limit", "after"]);
    refused(&client.get("/health?x=1"), 400, &["x"]);
    refused(&client.get("/metrics?x=1"), 400, &["x"]);
    refused(&client.send_request("DELETE", "/topics/news?x=1").response(), 400, &["x"]);
    assert_eq!(client.get("/topics/news?wait=0").seqs(), [0; 0]);
}

#[test]
fn a_repeated_parameter_is_refused() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for query in ["since=now&since=now", "wait=0&limit=5&wait=0", "wait=0&w%61it=1"] {
        let response = client.get(&format!("/topics/news?{query}"));
        refused(&response, 400, &["repeated"]);
        goes_on(&mut client, &response);
    }
    refused(&client.post("/topics/news?type=a&type=a", "", ""), 400, &["type", "repeated"]);
}

#[test]
fn a_path_that_is_not_there_is_named() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for path in ["/nope", "/topic/news", "/Topics", "/health/", "/metricsx", "//topics"] {
        let response = client.get(path);
        refused(&response, 404, &[path, "/topics"]);
        goes_on(&mut client, &response);
    }
    let head = client.send_request("HEAD", "/nope").response_head();
    assert_eq!(head.status, 404);
    assert_eq!(client.get("/health").status, 200);
}

#[test]
fn a_path_without_that_method_says_which_it_has() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (method, path, allowed) in [
        ("PUT", "/topics/news", &["GET", "HEAD", "POST", "DELETE"][..]),
        ("PATCH", "/topics/news", &["GET", "HEAD", "POST", "DELETE"]),
        ("BREW", "/topics/news", &["GET", "HEAD", "POST", "DELETE"]),
        ("POST", "/topics", &["GET", "HEAD"]),
        ("DELETE", "/topics", &["GET", "HEAD"]),
        ("POST", "/health", &["GET", "HEAD"]),
        ("PUT", "/metrics", &["GET", "HEAD"]),
    ] {
        let response = client.send_request(method, path).response();
        refused(&response, 405, &[method, path]);
        let allow = response.header("Allow").expect("an Allow header");
        let listed: Vec<_> = allow.split(',').map(str::trim).collect();
        assert!(allowed.iter().all(|method| listed.contains(method)), "{method} {path}: {allow}");
        assert!(!listed.contains(&method));
        goes_on(&mut client, &response);
    }
}

#[test]
fn a_request_line_or_head_that_is_too_large_is_refused() {
    let server = Server::start(&["--max-head", "2KiB"]);
    let filler = "x".repeat(3000);
    let mut client = server.connect();
    let response = client.send_request("GET", &format!("/topics/{filler}")).response();
    refused(&response, 414, &["2048"]);
    ends(&mut client, &response);
    let many = "A: b\r\n".repeat(200);
    for fields in [format!("X: {filler}\r\n"), format!("{filler}: x\r\n"), many] {
        let mut client = server.connect();
        client.send(format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
        let response = client.response();
        refused(&response, 431, &[]);
        ends(&mut client, &response);
    }
    let mut client = server.connect();
    // Before the end of either: the client learns it as early as the server.
    client.send(format!("GET /topics/{filler}"));
    refused(&client.response(), 414, &["2048"]);
    let mut client = server.connect();
    client.send(format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {filler}"));
    refused(&client.response(), 431, &["2048"]);
}

#[test]
fn garbage_is_answered_at_the_first_byte_that_shows_it() {
    let server = Server::start(&[]);
    let post = "POST /topics/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (begins, shows) in [
        ("", "\0"),
        ("", "{"),
        ("", " "),
        ("", "\n"),
        ("\r", "G"),
        ("\r\n", "\r"),
        ("GET", "\t"),
        ("GET ", " "),
        ("GET /", "\x07"),
        ("GET /", "\r"),
        ("GET / ", "F"),
        ("GET / HTTP/1.1", "1"),
        ("GET / HTTP/1.1\r", "H"),
        ("GET / HTTP/1.1\r\n", " "),
        ("GET / HTTP/1.1\r\nHost", " "),
        ("GET / HTTP/1.1\r\nHost: localhost", "\n"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n", "\t"),
        (post, "x"),
        (post, ";"),
        (&format!("{post}12345678"), "9"),
        (&format!("{post}1"), "\n"),
        (&format!("{post}1\r\nx"), "y"),
        (&format!("{post}0\r\n"), ":"),
        (&format!("{post}0\r\nA"), " "),
    ] {
        let mut client = server.connect();
        // Not a byte more is sent.
        let response = client.send(begins).send(shows).response();
        refused(&response, 400, &[]);
        ends(&mut client, &response);
    }
}

#[test]
fn a_refusal_of_a_request_that_was_read_whole_leaves_the_connection_usable() {
    let server = Server::start(&["--max-topics", "1"]);
    let mut client = server.connect();
    let json = "Content-Type: application/json\r\n";
    let ndjson = "Content-Type: application/x-ndjson\r\n";
    assert_eq!(client.post("/topics/news", "Idempotency-Key: k\r\n", "x").status, 201);
    for (target, headers, body, status) in [
        ("/topics/news", json, "{", 400),
        ("/topics/news", ndjson, "1\n{\n", 400),
        ("/topics/news", ndjson, "\n", 400),
        ("/topics/news", "Idempotency-Key: k\r\n", "y", 422),
        ("/topics/other", "", "x", 429),
        ("/topics/a,b", "", "", 400),
        ("/nope", "", "", 404),
        ("/topics", "", "", 405),
    ] {
        let response = client.post(target, headers, body);
        refused(&response, status, &[]);
        goes_on(&mut client, &response);
    }
    let too_many = client.post("/topics/news", ndjson, "1\n".repeat(1001));
    refused(&too_many, 413, &["1000"]);
    goes_on(&mut client, &too_many);
}

#[test]
fn a_path_that_cannot_be_decoded_leaves_the_connection_usable() {
    let server = Server::start(&[]);
    for bad in ["/topics/%zz", "/topics/a%2", "/topics/%ff", "/topics/news?type=%zz", "/topics/%00"]
    {
        let mut client = server.connect();
        let response = client.get(bad);
        refused(&response, 400, &[]);
        goes_on(&mut client, &response);
    }
}

#[test]
fn a_body_where_none_belongs_is_not_taken_for_the_next_request() {
    let server = Server::start(&[]);
    for method in ["GET", "HEAD", "DELETE"] {
        let mut client = server.connect();
        let smuggled = "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        let length = smuggled.len();
        client.send(format!(
            "{method} /topics/other?wait=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{smuggled}"
        ));
        let response = client.response_head();
        if response.status >= 400 {
            assert_eq!(response.header("Connection"), Some("close"), "{method}");
        }
        client.close_write().read_to_end();
    }
    let mut client = server.connect();
    let response =
        client.post("/nope", "", "POST /topics/news HTTP/1.1\r\nHost: localhost\r\n\r\n");
    refused(&response, 404, &["/nope"]);
    ends(&mut client, &response);
    assert_eq!(server.get("/topics/news?wait=0").seqs(), [0; 0]);
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending_its_body() {
    let server = Server::start(&[]);
    for size in [100 << 10, 700 << 10, 10 << 20] {
        let mut client = server.connect();
        let response = client.post("/topics/news", "", vec![b'x'; size]);
        refused(&response, 413, &["65536"]);
        ends(&mut client, &response);
        let mut client = server.connect();
        let response = client.post("/nope", "", vec![b'x'; size]);
        refused(&response, 404, &["/nope"]);
    }
    assert_eq!(server.get("/topics/news?wait=0").seqs(), [0; 0]);
}

#[test]
fn a_client_that_goes_on_sending_after_its_refusal_meets_no_reset() {
    let server = Server::start(&[]);
    let mut pace = server.connect();
    let mut stream = TcpStream::connect(server.address).unwrap();
    let fields = "Host: localhost\r\nContent-Length: 204800\r\n\r\n";
    stream.write_all(format!("POST /topics/news HTTP/1.1\r\n{fields}").as_bytes()).unwrap();
    for _ in 0..20 {
        assert_eq!(pace.get("/health").status, 200);
        stream.write_all(&vec![b'x'; 10 << 10]).expect("what is sent is taken in");
    }
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("an end, not a reset");
    assert!(response.starts_with("HTTP/1.1 413 ") && response.contains("65536"), "{response}");
}

#[test]
fn refusals_are_counted_by_cause() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.get("/nope");
    client.get("/nope");
    client.get("/topics/news?wait=x");
    client.send_request("PUT", "/topics/news").response();
    client.send("nonsense\r\n\r\n").response();
    for (cause, count) in [
        ("not_found", 2.0),
        ("bad_request", 1.0),
        ("method_not_allowed", 1.0),
        ("malformed_http", 1.0),
    ] {
        assert_eq!(
            server.metric(&format!("refusals_total{{cause=\"{cause}\"}}")),
            count,
            "{cause}"
        );
    }
}

#[cfg(not(feature = "console"))]
#[test]
fn a_build_without_the_console_says_so() {
    let server = Server::start(&[]);
    refused(&server.get("/"), 404, &["this build", "console"]);
    refused(&server.get("/longpoll.js"), 404, &["this build", "/longpoll.js"]);
}
