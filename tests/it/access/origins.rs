//! Guards against cross-origin requests: a page of another site can neither publish nor read unless
//! its origin is allowed by name.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use crate::support::Server;
use crate::support::http_reader::HttpReader;
use crate::support::{Client, Response, program};

const APP: &str = "https://app.example";

fn send(client: &mut Client, request: &str, fields: &str) -> Response {
    client.send(format!("{request} HTTP/1.1\r\n{fields}\r\n"));
    if request.starts_with("HEAD") { client.response_head() } else { client.response() }
}

/// Sends a request with the server's own address as `Host`.
fn request_with_own_host(server: &Server, request: &str, fields: &str) -> Response {
    send(&mut server.connect(), request, &format!("Host: {}\r\n{fields}", server.address))
}

#[test]
fn page_of_another_site_can_neither_publish_nor_read_nor_trim() {
    let server = Server::start(&[]);
    server.publish("news", "secret");
    let port = server.address.port();
    for origin in [
        "https://evil.example",
        "null",
        "http://127.0.0.1",
        &format!("http://127.0.0.2:{port}"),
        &format!("http://127.0.0.1:{}", port.wrapping_add(1)),
        &format!("https://127.0.0.1.evil.example:{port}"),
        "file://",
        "",
    ] {
        for request in [
            "GET /topics/news",
            "GET /topics",
            "GET /metrics",
            "GET /health",
            "OPTIONS /topics/news",
        ] {
            let response =
                request_with_own_host(&server, request, &format!("Origin: {origin}\r\n"));
            assert_eq!(response.status, 403, "{request} {origin}");
            assert!(response.detail().contains("--allow-origin"), "{response:?}");
            assert_eq!(response.header("Access-Control-Allow-Origin"), None);
            assert!(!response.text().contains("secret"));
        }
        let field = format!("Origin: {origin}\r\n");
        assert_eq!(server.connect().post("/topics/news", &field, "mine").status, 403, "{origin}");
        assert_eq!(
            request_with_own_host(&server, "DELETE /topics/news", &field).status,
            403,
            "{origin}"
        );
    }
    assert_eq!(server.get("/topics/news").data(), ["secret"]);
    assert!(server.metric("refusals_total{cause=\"foreign_origin\"}") >= 56.0);
}

#[test]
fn own_pages_are_allowed() {
    let server = Server::start(&[]);
    let port = server.address.port();
    for name in ["127.0.0.1", "localhost", "[::1]"] {
        let fields = format!("Host: {name}:{port}\r\nOrigin: http://{name}:{port}\r\n");
        let fields = format!("{fields}Sec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n");
        let response = send(&mut server.connect(), "POST /topics/news", &fields);
        assert_eq!(response.status, 201, "{name}");
        assert_eq!(response.header("Access-Control-Allow-Origin"), None);
    }
    assert_eq!(
        request_with_own_host(&server, "GET /topics/news", "Sec-Fetch-Site: none\r\n").status,
        200
    );
}

#[test]
fn allowed_origin_can_read_every_response_and_its_headers() {
    let server =
        Server::start(&["--allow-origin", APP, "--allow-origin", "http://other.example:81"]);
    server.publish("news", "hello");
    let cursor = server.get("/topics/news").next_cursor().to_owned();
    let stale = "/topics/news?since=1111111111111111.5";
    for (request, status) in [
        ("GET /topics/news".to_owned(), 200),
        (format!("GET /topics/news?since={cursor}&wait=0"), 200),
        (format!("GET /topics/news?since={cursor}&wait=0.01"), 200),
        ("HEAD /topics/news".into(), 200),
        ("GET /topics/news?format=raw".into(), 200),
        (format!("GET {stale}"), 410),
        ("GET /topics/news?sinc=5".into(), 400),
        ("GET /nope".into(), 404),
        ("PUT /topics/news".into(), 405),
        ("GET /health".into(), 200),
        ("DELETE /topics/none".into(), 204),
    ] {
        for field in ["", "Connection: close\r\n"] {
            let cross = format!("Origin: {APP}\r\nSec-Fetch-Site: cross-site\r\n{field}");
            let response = request_with_own_host(&server, &request, &cross);
            assert_eq!(response.status, status, "{request}");
            assert_eq!(response.header("Access-Control-Allow-Origin"), Some(APP), "{request}");
            assert_eq!(response.header("Vary"), Some("Origin"));
            let exposed = response.header("Access-Control-Expose-Headers").unwrap();
            for header in ["Next-Cursor", "Poll-Reason", "Poll-Gap", "Retry-After"] {
                assert!(exposed.contains(header), "{exposed}");
            }
        }
        // Other origins get no CORS headers, and none that name the allowed origin.
        let response = request_with_own_host(&server, &request, "");
        assert_eq!(response.header("Access-Control-Allow-Origin"), None, "{request}");
        let evil = request_with_own_host(&server, &request, "Origin: https://evil.example\r\n");
        assert_eq!(evil.status, 403);
    }
    // The headers are also set where the body is never read.
    let long = format!("Origin: {APP}\r\nContent-Length: 99999999\r\n");
    let response = request_with_own_host(&server, "POST /topics/news", &long);
    assert_eq!((response.status, response.header("Access-Control-Allow-Origin")), (413, Some(APP)));
    let other =
        request_with_own_host(&server, "GET /health", "Origin: HTTP://other.example:81\r\n");
    assert_eq!(other.header("Access-Control-Allow-Origin"), Some("http://other.example:81"));
}

#[test]
fn held_poll_of_an_allowed_origin_gets_its_cors_headers_and_others_none() {
    let server = Server::start(&["--allow-origin", APP]);
    let mut plain: Vec<Client> =
        (0..5).map(|_| server.hold_poll("/topics/news?since=now&wait=60")).collect();
    let mut page = server.connect();
    let host = server.address;
    page.send(format!(
        "GET /topics/news?since=now&wait=60 HTTP/1.1\r\nHost: {host}\r\nOrigin: {APP}\r\n\r\n"
    ));
    server.wait_until_held(6);
    server.publish("news", "hello");
    let response = page.response();
    assert_eq!(response.data(), ["hello"]);
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some(APP));
    for client in &mut plain {
        let response = client.response();
        assert_eq!(response.data(), ["hello"]);
        assert_eq!(response.header("Access-Control-Allow-Origin"), None);
    }
}

#[test]
fn preflight_lists_what_an_allowed_origin_may_send_and_is_cached() {
    let server = Server::start(&["--allow-origin", APP]);
    let preflight = format!(
        "Origin: {APP}\r\nAccess-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: authorization,content-type,idempotency-key\r\n"
    );
    let response = request_with_own_host(&server, "OPTIONS /topics/news", &preflight);
    assert_eq!(response.status, 204);
    assert_eq!(response.header("Access-Control-Allow-Origin"), Some(APP));
    let methods = response.header("Access-Control-Allow-Methods").unwrap();
    assert!(["GET", "POST", "DELETE"].iter().all(|method| methods.contains(method)), "{methods}");
    let headers = response.header("Access-Control-Allow-Headers").unwrap();
    for header in ["Authorization", "Content-Type", "Idempotency-Key", "Event-Type", "Prefer"] {
        assert!(headers.contains(header), "{headers}");
    }
    assert!(response.header("Access-Control-Max-Age").is_some());
    let evil = preflight.replace(APP, "https://evil.example");
    assert_eq!(request_with_own_host(&server, "OPTIONS /topics/news", &evil).status, 403);
}

#[test]
fn options_lists_the_methods() {
    let server = Server::start(&[]);
    for (target, allowed) in [
        ("/topics/news", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("*", "GET, HEAD, POST, DELETE, OPTIONS"),
    ] {
        let response = request_with_own_host(&server, &format!("OPTIONS {target}"), "");
        assert_eq!((response.status, response.header("Allow")), (204, Some(allowed)), "{target}");
    }
}

#[test]
fn asterisk_allows_every_origin() {
    let server = Server::start(&["--allow-origin", "*"]);
    for origin in ["https://any.example", "null"] {
        let response =
            request_with_own_host(&server, "GET /health", &format!("Origin: {origin}\r\n"));
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"), "{origin}");
    }
    let help = program().arg("--help").output().unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("Dangerous: --allow-origin '*'"));
}

#[test]
fn cross_site_request_without_origin_is_refused_unless_it_is_a_navigation() {
    let server = Server::start(&[]);
    let cross = "Sec-Fetch-Site: cross-site\r\n";
    for (request, fields) in [
        ("GET /topics/news", "Sec-Fetch-Mode: no-cors\r\n"),
        ("GET /topics/news", "Sec-Fetch-Mode: navigate\r\n"),
        ("POST /", "Sec-Fetch-Mode: navigate\r\n"),
        ("GET /", "Sec-Fetch-Mode: no-cors\r\n"),
        ("GET /health", ""),
    ] {
        let response = request_with_own_host(&server, request, &format!("{cross}{fields}"));
        assert_eq!(response.status, 403, "{request} {fields}");
        assert!(response.detail().contains("--allow-origin"));
    }
    let visit =
        request_with_own_host(&server, "GET /", &format!("{cross}Sec-Fetch-Mode: navigate\r\n"));
    assert_ne!(visit.status, 403);
    assert_eq!(
        request_with_own_host(&server, "GET /health", "Sec-Fetch-Site: same-site\r\n").status,
        200
    );
}

#[test]
fn foreign_host_name_is_refused_and_the_error_says_how_to_allow_it() {
    let server = Server::start(&["--allow-host", "Events.Example", "--allow-host", "other"]);
    let status = |host: &str| {
        let response = send(&mut server.connect(), "GET /health", &format!("Host: {host}\r\n"));
        if response.status == 403 {
            let bare = host.split(':').next().unwrap();
            assert!(response.detail().contains(&format!("--allow-host {bare}")), "{response:?}");
        }
        response.status
    };
    for host in
        ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "192.168.1.2", "[::1]", "[fe80::1]:80"]
    {
        assert_eq!(status(host), 200, "{host}");
    }
    assert_eq!(
        (status("events.example"), status("EVENTS.example:443"), status("other")),
        (200, 200, 200)
    );
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "events.example.org"]
    {
        assert_eq!(status(host), 403, "{host}");
    }
    let machine = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    assert_eq!((status(&machine), status(&format!("{machine}.local:8080"))), (200, 200));
    // DNS rebinding: to a browser, pages of such a name are same-origin, so that only the name
    // shows them to be foreign.
    let rebound = "Host: evil.example:8080\r\nOrigin: http://evil.example:8080\r\n";
    let mut client = server.connect();
    assert_eq!(
        send(&mut client, "POST /topics/news", &format!("{rebound}Content-Length: 0\r\n")).status,
        403
    );
    assert_eq!(server.metric("refusals_total{cause=\"foreign_host\"}"), 5.0);
}

#[test]
fn unix_socket_accepts_any_host_name() {
    let path = std::env::temp_dir().join(format!("longpoll-{}-sites", std::process::id()));
    let server = Server::start(&["--listen", &format!("unix:{}", path.display())]);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n")
        .unwrap();
    let response = HttpReader::new(stream).response().expect("a response");
    assert_eq!(response.status, 200, "{response:?}");
    drop(server);
    let _ = std::fs::remove_file(path);
}

#[test]
fn every_response_forbids_content_sniffing() {
    let server = Server::start(&[]);
    server.publish("news", "<script>");
    for target in
        ["/topics/news", "/topics/news?format=raw", "/topics", "/metrics", "/nope", "/health"]
    {
        let response = server.get(target);
        assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"), "{target}");
    }
    let refused = server.connect().send("nonsense\r\n\r\n").response();
    assert_eq!(refused.header("X-Content-Type-Options"), Some("nosniff"));
}
