//! Guards that requests are parsed as HTTP specifies, in any division into packets.

use crate::support::{Client, Server};

const CHUNKED: &str =
    "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";

fn send_byte_by_byte(client: &mut Client, bytes: impl AsRef<[u8]>) {
    for byte in bytes.as_ref() {
        client.send([*byte]);
    }
}

fn texts(server: &Server) -> Vec<serde_json::Value> {
    server.get("/topics/news?wait=0").data()
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut requests = String::new();
    for n in 0..50 {
        let body = format!("event {n}");
        let length = body.len();
        let one = format!(
            "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}\
             GET /topics/news?since=last:1&format=raw HTTP/1.1\r\nHost: localhost\r\n\r\n\
             GET /nope/{n} HTTP/1.1\r\nHost: localhost\r\n\r\n\
             HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n\
             POST /topics/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\nx\r\n0\r\n\r\n"
        );
        requests.push_str(&one);
    }
    client.send(requests);
    for n in 0..50 {
        assert_eq!(client.response().json()["seq"], 2 * n + 1);
        assert_eq!(client.response().text(), format!("event {n}"));
        assert!(client.response().detail().contains(&format!("/nope/{n}")));
        assert_eq!(client.response_head().status, 200);
        assert_eq!(client.response().json()["seq"], 2 * n + 2);
    }
    assert!(client.has_received_nothing());
}

#[test]
fn request_that_arrives_byte_by_byte_is_the_same_request() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for _ in 0..2 {
        send_byte_by_byte(
            &mut client,
            "POST /topics/news?type=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        );
        assert_eq!(client.response().status, 201);
        send_byte_by_byte(&mut client, CHUNKED);
        send_byte_by_byte(&mut client, "3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n");
        assert_eq!(client.response().status, 201);
    }
    assert_eq!(texts(&server), ["hello"; 4]);
}

#[test]
fn expectation_of_100_continue_is_met_before_the_body() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (framing, body) in
        [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")]
    {
        client.send(format!(
            "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nExpect: 100-Continue\r\n{framing}\r\n\r\n"
        ));
        let interim = client.response_head();
        assert_eq!((interim.status, interim.header("Content-Length")), (100, None));
        assert!(client.has_received_nothing());
        assert_eq!(client.send(body).response().status, 201);
    }
    assert_eq!(texts(&server), ["hello", "hello"]);
}

#[test]
fn refusal_replaces_100_continue() {
    let server = Server::start(&[]);
    for (target, length, status) in [
        ("/topics/news", 65_537, 413),
        ("/topics/a,b", 5, 400),
        ("/topics/news?x=1", 5, 400),
        ("/nope", 5, 404),
        ("/topics", 5, 405),
    ] {
        let mut client = server.connect();
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        ));
        let response = client.response();
        assert_eq!(response.status, status, "{response:?}");
        // The server cannot know whether the client sends the body anyway.
        assert!(client.is_closed());
    }
}

#[test]
fn chunked_body_is_decoded() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "1\r\nh\r\n1\r\ne\r\n3\r\nllo\r\n0\r\n\r\n",
        "0005;name=\"value\"\r\nhello\r\n0;last\r\nTrailer: x\r\nAnother: y\r\n\r\n",
    ] {
        assert_eq!(client.send(CHUNKED).send(body).response().status, 201, "{body}");
    }
    assert_eq!(texts(&server), ["hello"; 3]);
    assert_eq!(client.send(CHUNKED).send("0\r\n\r\n").response().status, 201);
    let long = "x".repeat(0xABC);
    client.send(CHUNKED).send(format!("AbC\r\n{long}\r\n0\r\n\r\n"));
    assert_eq!(client.response().status, 201);
    assert_eq!(texts(&server)[3..], ["", &long]);
}

#[test]
fn http_1_0_client_gets_one_response() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("GET /topics/news?wait=60 HTTP/1.0\r\n\r\n");
    server.wait_until_held(1);
    server.publish("news", "hello");
    let response = client.response();
    assert_eq!(
        (response.data(), response.header("Transfer-Encoding")),
        (vec!["hello".into()], None)
    );
    assert!(client.is_closed());

    let mut client = server.connect();
    let expecting = "Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx";
    client.send(format!("POST /topics/news HTTP/1.0\r\n{expecting}"));
    assert_eq!(client.response().status, 201, "HTTP/1.0 has no interim responses");
    assert!(client.is_closed());
}

#[test]
fn connection_close_is_honoured_and_later_bytes_are_ignored() {
    let server = Server::start(&[]);
    server.publish("news", "hello");
    for (target, status) in [("/health", 200), ("/topics/news", 200), ("/nope", 404)] {
        for value in ["close", "Close", "keep-alive, CLOSE"] {
            let mut client = server.connect();
            client.send(format!(
                "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: {value}\r\n\r\n"
            ));
            let after = "DELETE /topics/news HTTP/1.1\r\nHost: localhost\r\n\r\n";
            let response = client.send(after).response();
            assert_eq!((response.status, response.header("Connection")), (status, Some("close")));
            assert!(client.is_closed());
        }
    }
    assert_eq!(texts(&server), ["hello"]);
}

#[test]
fn half_closed_client_gets_an_immediate_response() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send("POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello");
    client.send_request("GET", "/topics/news").send_request("GET", "/health").close_write();
    assert_eq!(client.response().status, 201);
    assert_eq!(client.response().data(), ["hello"]);
    assert_eq!(client.response().json()["status"], "ok");
    assert!(client.is_closed());
}

#[test]
fn incomplete_request_leaves_nothing_behind() {
    let server = Server::start(&[]);
    for request in [
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhello",
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "DELETE /topics/news HTTP/1.1\r\nHost: localhost\r\n",
    ] {
        let mut client = server.connect();
        client.send(request).close_write().read_to_end();
    }
    assert_eq!(server.publish("news", "x").json()["seq"], 1);
}

#[test]
fn path_is_decoded_once() {
    let server = Server::start(&[]);
    server.publish("news", "hello");
    for target in ["/topics/news", "/%74opics%2Fnews", "/topics/%6e%65%77%73", "/topics/n%65ws"] {
        assert_eq!(server.get(&format!("{target}?wait=0")).data(), ["hello"], "{target}");
    }
    assert_eq!(server.get("/topics/news?%77ait=%30").status, 200);
    let options = server.connect().send_request("OPTIONS", "/%74opics/news").response();
    assert!(options.header("Allow").is_some_and(|allow| allow.contains("POST")), "{options:?}");
    assert_eq!(server.get("/topics/n%2565ws?wait=0").status, 400);
    assert_eq!(server.get("/topics/news?type=a+b").status, 400, "+ is not a space");
}

#[test]
fn absolute_form_is_accepted() {
    let server = Server::start(&[]);
    server.publish("news", "hello");
    let mut client = server.connect();
    for target in ["http://localhost/topics/news?wait=0", "HTTP://127.0.0.1:99/topics/news"] {
        assert_eq!(client.get(target).data(), ["hello"], "{target}");
    }
}

#[test]
fn field_names_are_case_insensitive_and_values_are_trimmed() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(
        "\r\nPOST /topics/news HTTP/1.1\r\nhOST:localhost\r\nCONTENT-length: \t5 \t\r\ncontent-TYPE:text/plain\r\n\
         EVENT-type:  alert  \r\n\r\nhello",
    );
    assert_eq!(client.response().status, 201);
    let event = &client.get("/topics/news?type=alert").json()["events"][0];
    assert_eq!(event["data"], "hello");
}

#[test]
fn every_response_has_its_length_and_its_date() {
    let server = Server::start(&[]);
    server.publish("news", "x".repeat(60_000).as_str());
    let mut client = server.connect();
    for target in ["/topics/news", "/topics/none?wait=0", "/topics", "/health", "/metrics", "/nope"]
    {
        let response = client.get(target);
        assert_eq!(response.header("Content-Length"), Some(&*response.body.len().to_string()));
        assert_eq!(response.header("Transfer-Encoding"), None);
        assert!(response.header("Date").is_some_and(|date| date.ends_with(" GMT")), "{response:?}");
        assert!(response.header("Content-Type").is_some());
    }
    let deleted = client.send_request("DELETE", "/topics/news").response();
    assert_eq!((deleted.status, deleted.header("Content-Length")), (204, None));
}
