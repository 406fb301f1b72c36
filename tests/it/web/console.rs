//! Guards the delivery of the console and the JavaScript module: complete, up to date, and with a
//! content policy that stops injected code. `tests/web` tests their behaviour in a browser.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac_sha256::Hash;
use longpoll::limits::{RETRY_AFTER_MAX, RETRY_FOR_MAX};

use crate::support::{Server, program};

/// The size limit of both files together.
const TOTAL_BYTES: usize = 42_000;

fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let rest = text.split_once(before).expect("the start").1;
    rest.split_once(after).expect("the end").0
}

#[test]
fn module_has_the_same_retry_limits_as_the_rust_clients() {
    let server = Server::start(&[]);
    let module = server.get("/longpoll.js");
    let constant = |name: &str| {
        let digits = between(module.text(), &format!("\nconst {name} = "), ";").replace('_', "");
        Duration::from_millis(digits.parse().unwrap())
    };
    assert_eq!(constant("RETRY_FOR"), RETRY_FOR_MAX);
    assert_eq!(constant("MAX_RETRY_AFTER"), RETRY_AFTER_MAX);
}

#[test]
fn console_and_module_are_served_and_small() {
    let server = Server::start(&[]);
    let page = server.get("/");
    assert_eq!((page.status, page.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.text().starts_with("<!doctype html>") && page.text().contains("<title>longpoll<"));
    let module = server.get("/longpoll.js");
    assert_eq!(module.status, 200);
    assert_eq!(module.header("Content-Type"), Some("text/javascript; charset=utf-8"));
    assert!(module.text().contains("export function follow("));
    assert!(page.body.len() + module.body.len() <= TOTAL_BYTES);
    let head = server.connect().send_request("HEAD", "/").response_head();
    assert_eq!(head.header("Content-Length"), Some(&*page.body.len().to_string()));
    let posted = server.connect().post("/", "", "");
    assert_eq!((posted.status, posted.header("Allow")), (405, Some("GET, HEAD, OPTIONS")));
    assert!(server.get("/?x=1").detail().contains("unknown parameter \"x\""));
}

#[test]
fn content_policy_allows_exactly_the_scripts_of_the_page() {
    let server = Server::start(&[]);
    let page = server.get("/");
    let policy = page.header("Content-Security-Policy").unwrap();
    let source = |text: &str| format!("'sha256-{}'", BASE64.encode(Hash::hash(text.as_bytes())));
    let script = source(between(page.text(), "<script type=\"module\">", "</script>"));
    let style = source(between(page.text(), "<style>", "</style>"));
    let directives: Vec<&str> = policy.split("; ").collect();
    for directive in [
        "default-src 'none'",
        &format!("script-src 'self' {script}"),
        &format!("style-src {style}"),
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(directives.contains(&directive), "{directive} is not in {policy}");
    }
    assert!(!policy.contains("unsafe"));
    // The only address is an XML namespace.
    let addresses = page.text().replace("http://www.w3.org/2000/svg", "");
    assert!(!addresses.contains("://"), "the page refers to another host");
    for path in ["/", "/longpoll.js"] {
        assert_eq!(server.get(path).header("X-Content-Type-Options"), Some("nosniff"));
    }
}

#[test]
fn unchanged_file_is_answered_with_304() {
    let server = Server::start(&[]);
    for path in ["/", "/longpoll.js"] {
        let mut client = server.connect();
        let first = client.get(path);
        assert_eq!(first.header("Cache-Control"), Some("no-cache"));
        let etag = first.header("ETag").unwrap();
        let mut request = |tags: &str| {
            let fields = format!("Host: localhost\r\nIf-None-Match: {tags}\r\n");
            client.send(format!("GET {path} HTTP/1.1\r\n{fields}\r\n")).response()
        };
        for tags in [etag, &format!("W/{etag}"), &format!("\"old\", {etag}"), "*"] {
            let again = request(tags);
            assert_eq!((again.status, again.body.len()), (304, 0), "{tags}");
            assert_eq!(again.header("ETag"), Some(etag));
            assert_eq!(again.header("Content-Length"), None);
        }
        let other = request("\"old\"");
        assert_eq!((other.status, &other.body), (200, &first.body));
    }
    let tag = |path| server.get(path).header("ETag").unwrap().to_owned();
    assert_ne!(tag("/"), tag("/longpoll.js"));
}

#[test]
fn no_console_removes_the_page_and_nothing_else() {
    let by_flag = Server::start(&["--no-console"]);
    let by_variable = Server::spawn(
        program()
            .args(["--listen", "127.0.0.1:0", "--log", "error"])
            .env("LONGPOLL_NO_CONSOLE", "on"),
    );
    for server in [by_flag, by_variable] {
        let page = server.get("/");
        assert_eq!(page.status, 404);
        assert!(page.detail().contains("--no-console"), "{}", page.detail());
        assert_eq!(server.get("/longpoll.js").status, 200);
    }
    let kept = Server::spawn(
        program()
            .args(["--listen", "127.0.0.1:0", "--log", "error"])
            .env("LONGPOLL_NO_CONSOLE", "off"),
    );
    assert_eq!(kept.get("/").status, 200);
}

#[test]
fn switch_takes_only_on_or_off_in_the_environment() {
    let refused = |command: &mut std::process::Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(program().arg("--no-console=yes")).contains("no-console"));
    let message = refused(program().env("LONGPOLL_NO_CONSOLE", "perhaps"));
    assert!(message.contains("LONGPOLL_NO_CONSOLE=perhaps: expected on or off"), "{message}");
}
