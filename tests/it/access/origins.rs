//! Goal: a page of another site can neither publish nor read, unless it was let in by name.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use crate::support::Server;
use crate::support::http_reader::HttpReader;
use crate::support::{Client, Response, program};

const APP: &str = "https://app.example";

fn ask(client: &mut Client, request: &str, fields: &str) -> Response {
    client.send(format!("{request} HTTP/1.1\r\n{fields}\r\n"));
    if request.starts_with("HEAD") { client.response_head() } else { client.response() }
}

/// With the server's own name as Host.
fn own(server: &Server, request: &str, fields: &str) -> Response {
    ask(&mut server.connect(), request, &format!("Host: {}\r\n{fields}", server.address))
}

#[test]
fn a_page_of_another_site_can_neither_publish_nor_read_nor_trim() {
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
            let response = own(&server, request, &format!("Origin: {origin}\r\n"));
            assert_eq!(response.status, 403, "{request} {origin}");
            assert!(response.detail().contains("--allow-origin"), "{response:?}");
            assert_eq!(response.header("Access-Control-Allow-Origin"), None);
            assert!(!response.text().contains("secret"));
        }
        let field = format!("Origin: {origin}\r\n");
        assert_eq!(server.connect().post("/topics/news", &field, "mine").status, 403, "{origin}");
        assert_eq!(own(&server, "DELETE /topics/news", &field).status, 403, "{origin}");
    }
    assert_eq!(server.get("/topics/news").data(), ["secret"]);
    assert!(server.metric("refusals_total{cause=\"foreign_origin\"}") >= 56.0);
}

#[test]
fn the_servers_own_pages_may() {
    let server = Server::start(&[]);
    let port = server.address.port();
    for name in ["127.0.0.1", "localhost", "[::1]"] {
        let fields = format!("Host: {name}:{port}\r\nOrigin: http://{name}:{port}\r\n");
        let fields = format!("{fields}Sec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n");
        let response = ask(&mut server.connect(), "POST /topics/news", &fields);
        assert_eq!(response.status, 201, "{name}");
        assert_eq!(response.header("Access-Control-Allow-Origin"), None);
    }
    assert_eq!(own(&server, "GET /topics/news", "Sec-Fetch-Site: none\r\n").status, 200);
}

#[test]
fn a_site_that_is_named_may_and_reads_every_answer_and_its_headers() {
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
            let response = own(&server, &request, &cross);
            assert_eq!(response.status, status, "{request}");
            assert_eq!(response.header("Access-Control-Allow-Origin"), Some(APP), "{request}");
            assert_eq!(response.header("Vary"), Some("Origin"));
            let exposed = response.header("Access-Control-Expose-Headers").unwrap();
            for header in ["Next-Cursor", "Poll-Reason", "Poll-Gap", "Retry-After"] {
                assert!(exposed.contains(header), "{exposed}");
            }
        }
        // Nobody else gets an answer made for that site, or is told of it.
        let response = own(&server, &request, "");
        assert_eq!(response.header("Access-Control-Allow-Origin"), None, "{request}");
        let evil = own(&server, &request, "Origin: https://evil.example\r\n");
        assert_eq!(evil.status, 403);
    }
    // Also where the body is never read.
    let long = format!("Origin: {APP}\r\nContent-Length: 99999999\r\n");
    let response = own(&server, "POST /topics/news", &long);
    assert_eq!((response.status, response.header("Access-Control-Allow-Origin")), (413, Some(APP)));
    let other = own(&server, "GET /health", "Origin: HTTP://other.example:81\r\n");
    assert_eq!(other.header("Access-Control-Allow-Origin"), Some("http://other.example:81"));
}

#[test]
fn a_held_poll_of_a_named_site_is_answered_for_that_site_and_others_are_not() {
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
fn a_preflight_says_what_a_named_site_may_send_and_is_kept() {
    let server = Server::start(&["--allow-origin", APP]);
    let preflight = format!(
        "Origin: {APP}\r\nAccess-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: authorization,content-type,idempotency-key\r\n"
    );
    let response = own(&server, "OPTIONS /topics/news", &preflight);
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
    assert_eq!(own(&server, "OPTIONS /topics/news", &evil).status, 403);
}

#[test]
fn options_says_which_methods_there_are() {
    let server = Server::start(&[]);
    for (target, allowed) in [
        ("/topics/news", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("*", "GET, HEAD, POST, DELETE, OPTIONS"),
    ] {
        let response = own(&server, &format!("OPTIONS {target}"), "");
        assert_eq!((response.status, response.header("Allow")), (204, Some(allowed)), "{target}");
    }
}

#[test]
fn an_asterisk_lets_every_site_in() {
    let server = Server::start(&["--allow-origin", "*"]);
    for origin in ["https://any.example", "null"] {
        let response = own(&server, "GET /health", &format!("Origin: {origin}\r\n"));
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"), "{origin}");
    }
    let help = program().arg("--help").output().unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("Dangerous: --allow-origin '*'"));
}

#[test]
fn what_a_cross_site_page_asks_without_saying_whose_it_is_is_refused_but_a_visit() {
    let server = Server::start(&[]);
    let cross = "Sec-Fetch-Site: cross-site\r\n";
    for (request, fields) in [
        ("GET /topics/news", "Sec-Fetch-Mode: no-cors\r\n"),
        ("GET /topics/news", "Sec-Fetch-Mode: navigate\r\n"),
        ("POST /", "Sec-Fetch-Mode: navigate\r\n"),
        ("GET /", "Sec-Fetch-Mode: no-cors\r\n"),
        ("GET /health", ""),
    ] {
        let response = own(&server, request, &format!("{cross}{fields}"));
        assert_eq!(response.status, 403, "{request} {fields}");
        assert!(response.detail().contains("--allow-origin"));
    }
    let visit = own(&server, "GET /", &format!("{cross}Sec-Fetch-Mode: navigate\r\n"));
    assert_ne!(visit.status, 403);
    assert_eq!(own(&server, "GET /health", "Sec-Fetch-Site: same-site\r\n").status, 200);
}

#[test]
fn a_name_that_somebody_else_points_here_is_refused_and_the_error_says_how_to_allow_it() {
    let server = Server::start(&["--allow-host", "Events.Example", "--allow-host", "other"]);
    let status = |host: &str| {
        let response = ask(&mut server.connect(), "GET /health", &format!("Host: {host}\r\n"));
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
    // Pages of such a name are of the server's own origin: only the name gives them away.
    let rebound = "Host: evil.example:8080\r\nOrigin: http://evil.example:8080\r\n";
    let mut client = server.connect();
    assert_eq!(
        ask(&mut client, "POST /topics/news", &format!("{rebound}Content-Length: 0\r\n")).status,
        403
    );
    assert_eq!(server.metric("refusals_total{cause=\"foreign_host\"}"), 5.0);
}

#[test]
fn over_a_unix_socket_any_name_will_do() {
    let path = std::env::temp_dir().join(format!("longpoll-{}-sites", std::process::id()));
    let server = Server::start(&["--listen", &format!("unix:{}", path.display())]);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n")
        .unwrap();
    let response = HttpReader::new(stream).response().expect("a response");
    assert_eq!(response.status, 200, "{response:?}");
    drop(server);
    let _ = std::fs::remove_file(path);
}

#[test]
fn no_answer_lets_a_browser_guess_its_type() {
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
