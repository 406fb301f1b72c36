//! Guards the error responses: a refusal names what is wrong and what is expected, and it says
//! whether the connection stays usable.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Client, Response, Server};

/// Checks the status and the shape of a refusal, and that its detail contains all `parts`.
fn assert_refusal(response: &Response, status: u16, parts: &[&str]) {
    assert_eq!(response.status, status, "{response:?}");
    let detail = response.detail();
    assert!(!response.json()["title"].as_str().unwrap().is_empty());
    for word in parts {
        assert!(detail.contains(word), "{word:?} is not in {detail:?}");
    }
}

fn assert_usable(client: &mut Client, response: &Response) {
    assert_eq!(response.header("Connection"), None, "{response:?}");
    assert_eq!(client.get("/health").status, 200);
}

fn assert_closes(client: &mut Client, response: &Response) {
    assert_eq!(response.header("Connection"), Some("close"), "{response:?}");
    assert!(client.is_closed());
}

#[test]
fn refusal_names_the_parameter_its_value_and_the_allowed_ones() {
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
        assert_refusal(&response, 400, &says);
        assert_usable(&mut client, &response);
    }
}

#[test]
fn cursor_that_was_never_issued_is_refused() {
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
        assert_refusal(&client.get(&format!("/topics/news?since={changed}")), 400, &["since"]);
    }
}

#[test]
fn unknown_parameter_is_refused_with_a_list_of_the_known_ones() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let poll = ["since", "wait", "limit", "type", "format", "gap"];
    for query in ["sinse=now", "Since=now", "x", "since%20=now"] {
        let response = client.get(&format!("/topics/news?{query}"));
        assert_refusal(&response, 400, &poll);
        assert_usable(&mut client, &response);
    }
    let response = client.post("/topics/news?since=now", "", "x");
    assert_refusal(&response, 400, &["since", "type"]);
    client = server.connect();
    assert_refusal(&client.get("/topics?since=now"), 400, &["since", "prefix", "limit", "after"]);
    assert_refusal(&client.get("/health?x=1"), 400, &["x"]);
    assert_refusal(&client.get("/metrics?x=1"), 400, &["x"]);
    assert_refusal(&client.send_request("DELETE", "/topics/news?x=1").response(), 400, &["x"]);
    assert_eq!(client.get("/topics/news?wait=0").seqs(), [0; 0]);
}

#[test]
fn repeated_parameter_is_refused() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for query in ["since=now&since=now", "wait=0&limit=5&wait=0", "wait=0&w%61it=1"] {
        let response = client.get(&format!("/topics/news?{query}"));
        assert_refusal(&response, 400, &["repeated"]);
        assert_usable(&mut client, &response);
    }
    assert_refusal(&client.post("/topics/news?type=a&type=a", "", ""), 400, &["type", "repeated"]);
}

#[test]
fn unknown_path_is_named() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for path in ["/nope", "/topic/news", "/Topics", "/health/", "/metricsx", "//topics"] {
        let response = client.get(path);
        assert_refusal(&response, 404, &[path, "/topics"]);
        assert_usable(&mut client, &response);
    }
    let head = client.send_request("HEAD", "/nope").response_head();
    assert_eq!(head.status, 404);
    assert_eq!(client.get("/health").status, 200);
}

#[test]
fn unsupported_method_gets_the_allowed_ones() {
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
        assert_refusal(&response, 405, &[method, path]);
        let allow = response.header("Allow").expect("an Allow header");
        let listed: Vec<_> = allow.split(',').map(str::trim).collect();
        assert!(allowed.iter().all(|method| listed.contains(method)), "{method} {path}: {allow}");
        assert!(!listed.contains(&method));
        assert_usable(&mut client, &response);
    }
}

#[test]
fn too_large_request_line_or_head_is_refused() {
    let server = Server::start(&["--max-head", "2KiB"]);
    let filler = "x".repeat(3000);
    let mut client = server.connect();
    let response = client.send_request("GET", &format!("/topics/{filler}")).response();
    assert_refusal(&response, 414, &["2048"]);
    assert_closes(&mut client, &response);
    let many = "A: b\r\n".repeat(200);
    for fields in [format!("X: {filler}\r\n"), format!("{filler}: x\r\n"), many] {
        let mut client = server.connect();
        client.send(format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
        let response = client.response();
        assert_refusal(&response, 431, &[]);
        assert_closes(&mut client, &response);
    }
    let mut client = server.connect();
    // The refusal arrives before the head ends, as soon as the limit is exceeded.
    client.send(format!("GET /topics/{filler}"));
    assert_refusal(&client.response(), 414, &["2048"]);
    let mut client = server.connect();
    client.send(format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {filler}"));
    assert_refusal(&client.response(), 431, &["2048"]);
}

#[test]
fn garbage_is_refused_at_its_first_invalid_byte() {
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
        // The client sends nothing more.
        let response = client.send(begins).send(shows).response();
        assert_refusal(&response, 400, &[]);
        assert_closes(&mut client, &response);
    }
}

#[test]
fn refusal_after_the_whole_request_leaves_the_connection_usable() {
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
        assert_refusal(&response, status, &[]);
        assert_usable(&mut client, &response);
    }
    let too_many = client.post("/topics/news", ndjson, "1\n".repeat(1001));
    assert_refusal(&too_many, 413, &["1000"]);
    assert_usable(&mut client, &too_many);
}

#[test]
fn undecodable_path_leaves_the_connection_usable() {
    let server = Server::start(&[]);
    for bad in ["/topics/%zz", "/topics/a%2", "/topics/%ff", "/topics/news?type=%zz", "/topics/%00"]
    {
        let mut client = server.connect();
        let response = client.get(bad);
        assert_refusal(&response, 400, &[]);
        assert_usable(&mut client, &response);
    }
}

#[test]
fn unexpected_body_is_not_parsed_as_the_next_request() {
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
    assert_refusal(&response, 404, &["/nope"]);
    assert_closes(&mut client, &response);
    assert_eq!(server.get("/topics/news?wait=0").seqs(), [0; 0]);
}

#[test]
fn refusal_reaches_a_client_that_still_sends_its_body() {
    let server = Server::start(&[]);
    for size in [100 << 10, 700 << 10, 10 << 20] {
        let mut client = server.connect();
        let response = client.post("/topics/news", "", vec![b'x'; size]);
        assert_refusal(&response, 413, &["65536"]);
        assert_closes(&mut client, &response);
        let mut client = server.connect();
        let response = client.post("/nope", "", vec![b'x'; size]);
        assert_refusal(&response, 404, &["/nope"]);
    }
    assert_eq!(server.get("/topics/news?wait=0").seqs(), [0; 0]);
}

#[test]
fn client_that_sends_after_its_refusal_gets_no_reset() {
    let server = Server::start(&[]);
    let mut pace = server.connect();
    let mut stream = TcpStream::connect(server.address).unwrap();
    let fields = "Host: localhost\r\nContent-Length: 204800\r\n\r\n";
    stream.write_all(format!("POST /topics/news HTTP/1.1\r\n{fields}").as_bytes()).unwrap();
    for _ in 0..20 {
        assert_eq!(pace.get("/health").status, 200);
        stream.write_all(&vec![b'x'; 10 << 10]).expect("the server reads the body");
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
fn build_without_the_console_says_so() {
    let server = Server::start(&[]);
    assert_refusal(&server.get("/"), 404, &["this build", "console"]);
    assert_refusal(&server.get("/longpoll.js"), 404, &["this build", "/longpoll.js"]);
}
