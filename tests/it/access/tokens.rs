//! Guards tokens: with `--tokens`, a client may do what its token allows and nothing else.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::support::tokens::{TokenFile, bearer, new_token};
use crate::support::{Client, Response, Server, program, wait_until};

fn send(server: &Server, request: &str, fields: &str) -> Response {
    let mut client = server.connect();
    client.send(format!("{request} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
    if request.starts_with("HEAD") { client.response_head() } else { client.response() }
}

fn send_poll(server: &Server, target: &str, secret: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", bearer(secret)));
    client
}

const EVERYTHING: &[&str] = &["*"];
const NEWS: &[&str] = &["*", "news", "news,sensors.*"];
const SENSORS: &[&str] = &["*", "sensors.*", "news,sensors.*"];
const BOTH: &[&str] = &["*", "news,sensors.*"];
const ANY: &[&str] = &["*", "news", "sensors.*", "news,sensors.*"];

/// A request, the right that it requires, and the topic patterns of the tokens that may send it.
type RequestRow = (&'static str, &'static str, &'static [&'static str]);
const REQUESTS: [RequestRow; 21] = [
    ("GET /topics/news?wait=0", "read", NEWS),
    ("HEAD /topics/news", "read", NEWS),
    ("GET /topics/sensors.attic?wait=0", "read", SENSORS),
    ("GET /topics/sensors.*?wait=0", "read", SENSORS),
    ("GET /topics/sensors.a*?wait=0", "read", SENSORS),
    ("GET /topics/sens*?wait=0", "read", EVERYTHING),
    ("GET /topics/news*?wait=0", "read", EVERYTHING),
    ("GET /topics/*?wait=0", "read", EVERYTHING),
    ("GET /topics/news,sensors.*?wait=0", "read", BOTH),
    ("GET /topics/news,other?wait=0", "read", EVERYTHING),
    ("POST /topics/news", "publish", NEWS),
    ("POST /topics/sensors.attic", "publish", SENSORS),
    ("POST /topics/other", "publish", EVERYTHING),
    ("DELETE /topics/news", "admin", NEWS),
    ("DELETE /topics/sensors.attic", "admin", SENSORS),
    ("GET /topics", "admin", EVERYTHING),
    ("GET /topics?prefix=sensors.", "admin", SENSORS),
    ("GET /topics?prefix=news", "admin", EVERYTHING),
    ("GET /metrics", "admin", ANY),
    ("GET /health", "", ANY),
    ("OPTIONS /topics/news", "", ANY),
];

#[test]
fn token_allows_exactly_its_rights_on_its_topics() {
    let tokens: Vec<_> = ["read", "publish", "admin", "read,publish", "read,publish,admin"]
        .iter()
        .flat_map(|rights| {
            ["*", "news", "sensors.*", "news,sensors.*"].map(|topics| (*rights, topics))
        })
        .enumerate()
        .map(|(number, (rights, topics))| {
            (rights, topics, new_token(&format!("t{number}"), rights, topics))
        })
        .collect();
    let text: String = tokens.iter().map(|(.., (line, _))| line.as_str()).collect();
    let file = TokenFile::new("matrix", &text);
    let server = Server::start(&["--tokens", file.path()]);
    let mut rows = 0;
    for (request, right, patterns) in REQUESTS {
        let body = if request.starts_with("POST") { "Content-Length: 0\r\n" } else { "" };
        for (rights, topics, (_, secret)) in &tokens {
            let fields = format!("{}{body}", bearer(secret));
            let response = send(&server, request, &fields);
            let allowed = right.is_empty()
                || rights.split(',').any(|r| r == right) && patterns.contains(topics);
            let ok = matches!(response.status, 200 | 201 | 204);
            assert_eq!(ok, allowed, "{request} by {rights} {topics}: {response:?}");
            assert!(ok || response.status == 403, "{request} by {rights} {topics}: {response:?}");
            assert!(!response.head.contains(secret) && !response.text().contains(secret));
            rows += 1;
        }
        for fields in [
            String::new(),
            bearer("unknown"),
            bearer(&tokens[0].2.1.to_ascii_lowercase()),
            format!("Authorization: Basic {}\r\n", tokens[0].2.1),
            "Authorization: Bearer\r\n".into(),
        ] {
            let response = send(&server, request, &format!("{fields}{body}"));
            let open = right.is_empty();
            assert_eq!(response.status == 401, !open, "{request} with {fields}: {response:?}");
            let challenge = response.header("WWW-Authenticate");
            assert_eq!(challenge.is_some_and(|c| c.starts_with("Bearer")), !open);
            rows += 1;
        }
    }
    println!("{rows} rows");
}

#[test]
fn idempotency_key_belongs_to_its_token() {
    let (a, b) = (new_token("a", "publish,read", "*"), new_token("b", "publish", "*"));
    let file = TokenFile::new("keys", &format!("{}{}", a.0, b.0));
    let server = Server::start(&["--tokens", file.path()]);
    let publish = |secret: &str, body: &str| {
        let fields = format!("{}Idempotency-Key: k\r\n", bearer(secret));
        server.connect().post("/topics/news", &fields, body).status
    };
    assert_eq!([publish(&a.1, "x"), publish(&b.1, "y"), publish(&a.1, "x")], [201, 201, 200]);
    assert_eq!(publish(&b.1, "x"), 422);
}

#[test]
fn revoked_token_ends_its_held_polls_and_others_continue() {
    let (a, b, c) =
        (new_token("a", "read", "*"), new_token("b", "read", "*"), new_token("c", "read", "*"));
    let admin = new_token("root", "admin,publish", "*");
    let file = TokenFile::new("revoke", &format!("{}{}{}{}", a.0, b.0, c.0, admin.0));
    let server = Server::start(&["--tokens", file.path()]);
    let target = "/topics/news?since=now&wait=60";
    let [mut first, mut second, mut third] =
        [&a.1, &b.1, &c.1].map(|s| send_poll(&server, target, s));
    let held = || {
        let page = send(&server, "GET /metrics", &bearer(&admin.1));
        page.text().contains("longpoll_polls_held 3\n")
    };
    wait_until("three polls are held", held);
    // The first token is removed, the second may read another topic, the third stays.
    let other = b.0.replace('*', "other");
    file.write(&format!("{other}{}{}", c.0, admin.0));
    assert_eq!(first.response().status, 401);
    assert_eq!(second.response().status, 403);
    assert_eq!(send(&server, "GET /topics/news?wait=0", &bearer(&a.1)).status, 401);
    let fields = bearer(&admin.1);
    assert_eq!(server.connect().post("/topics/news", &fields, "hello").status, 201);
    assert_eq!(third.response().data(), ["hello"]);
}

#[test]
fn invalid_change_of_the_token_file_is_logged_and_changes_nothing() {
    let (a, b) = (new_token("a", "read", "*"), new_token("b", "read", "*"));
    let file = TokenFile::new("reload", &a.0);
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--tokens", file.path()]).stderr(Stdio::piped());
    let mut server = Server::spawn(&mut command);
    let mut lines = BufReader::new(server.stderr()).lines().map(Result::unwrap);
    let status = |token: &(String, String)| {
        send(&server, "GET /topics/news?wait=0", &bearer(&token.1)).status
    };
    assert_eq!((status(&a), status(&b)), (200, 401));
    file.write(&format!("{}{}oops\n", a.0, b.0));
    let logged = lines.find(|line| line.contains("tokens: NOT")).unwrap();
    assert!(logged.contains("1 known before stay"), "{logged}");
    assert!(logged.contains("line 3: 1 fields"), "{logged}");
    assert_eq!((status(&a), status(&b)), (200, 401));
    file.write(&b.0);
    let logged = lines.find(|line| line.contains("tokens: ")).unwrap();
    assert!(logged.contains("1 are known now"), "{logged}");
    assert_eq!((status(&a), status(&b)), (401, 200));
    std::fs::remove_file(file.path()).unwrap();
    let logged = lines.find(|line| line.contains("tokens: NOT")).unwrap();
    assert!(logged.contains("No such file"), "{logged}");
    assert_eq!((status(&a), status(&b)), (401, 200));
}

#[test]
fn stderr_contains_no_secrets() {
    let (line, secret) = new_token("a", "read", "*");
    let file = TokenFile::new("quiet", &line);
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--log", "requests", "--tokens", file.path()]);
    let mut server = Server::spawn(command.stderr(Stdio::piped()));
    send(&server, "GET /topics/news?wait=0", &bearer(&secret));
    send(&server, "POST /topics/news", &format!("{}Content-Length: 0\r\n", bearer(&secret)));
    send(&server, &format!("GET /topics/news?access_token={secret}"), "");
    send(&server, "GET /metrics", &bearer("wrong-secret"));
    server.signal(15);
    let logged: Vec<String> = BufReader::new(server.stderr()).lines().map(Result::unwrap).collect();
    assert!(logged.iter().any(|line| line.contains("/topics/news")), "{logged:?}");
    assert!(logged.iter().any(|line| line.contains("unauthorized")), "{logged:?}");
    assert!(!logged.iter().any(|line| line.contains(&secret) || line.contains("wrong-secret")));
    assert!(server.wait().0.success());
}

#[test]
fn invalid_token_file_prevents_the_start_and_is_named_with_its_line() {
    let (line, _) = new_token("a", "read", "*");
    for (text, word) in [
        (format!("{line}{line}"), "line 2: name a"),
        ("a b read *".into(), "line 1"),
        (format!("#\n{}", line.replace("read", "write")), "line 2: rights"),
        ("x".repeat(600 << 10), "too large"),
    ] {
        let file = TokenFile::new("wrong", &text);
        let args = ["--listen", "127.0.0.1:0", "--tokens", file.path()];
        let output = program().args(args).output().unwrap();
        let logged = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{logged}");
        assert!(logged.contains(file.path()) && logged.contains(word), "{logged}");
    }
    let output = program().args(["--tokens", "/nowhere/tokens"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nowhere/tokens"));
}

#[test]
fn token_is_created_only_if_a_server_would_accept_it() {
    let (line, secret) = new_token("attic", "publish", "sensors.*");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!((words[0], words[2], words[3]), ("attic", "publish", "sensors.*"));
    let mut sum =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut sum.stdin.take().unwrap(), secret.as_bytes()).unwrap();
    let sum = String::from_utf8(sum.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(sum.split(' ').next().unwrap(), words[1]);
    assert_ne!(new_token("attic", "publish", "sensors.*").1, secret);
    for (args, word) in [
        (&["token"][..], "0 arguments"),
        (&["token", "a", "read"], "2 arguments"),
        (&["token", "a/b", "read", "*"], "name"),
        (&["token", "a", "write", "*"], "read, publish and admin"),
        (&["token", "a", "read", "a b"], "expected four"),
        (&["token", "a", "read", "*", "--what"], "--what"),
    ] {
        let output = program().args(args).output().unwrap();
        let logged = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{logged}");
        assert!(logged.contains(word), "{logged}");
    }
}

#[test]
fn token_revoked_during_a_body_does_not_publish_it() {
    let (a, b) = (new_token("a", "publish", "*"), new_token("b", "read", "*"));
    let file = TokenFile::new("late", &format!("{}{}", a.0, b.0));
    let server = Server::start(&["--tokens", file.path()]);
    let mut client = server.connect();
    client.send(format!(
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\n{}Content-Length: 5\r\n\r\nhel",
        bearer(&a.1)
    ));
    file.write(&b.0);
    let status =
        || send(&server, "POST /topics/x", &format!("{}Content-Length: 0\r\n", bearer(&a.1)));
    wait_until("the token is revoked", || status().status == 401);
    assert_eq!(client.send("lo").response().status, 401);
    assert_eq!(send(&server, "GET /topics/news?wait=0", &bearer(&b.1)).seqs(), [0; 0]);
}

#[test]
fn token_file_must_be_a_regular_file() {
    let (line, secret) = new_token("a", "read", "*");
    let file = TokenFile::new("pipe", &line);
    let server = Server::start(&["--tokens", file.path()]);
    std::fs::remove_file(file.path()).unwrap();
    assert!(Command::new("mkfifo").arg(file.path()).status().unwrap().success());
    // Opening a FIFO would block the housekeeping thread forever.
    let mut left = send_poll(&server, "/topics/news?since=now&wait=60", &secret);
    wait_until("the server serves", || send(&server, "GET /health", "").status == 200);
    let output = program().args(["--listen", "127.0.0.1:0", "--tokens", file.path()]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("expected a regular file"));
    server.signal(15);
    assert_eq!(left.response().json()["reason"], "drain");
    let mut server = server;
    assert!(server.wait().0.success(), "the housekeeping thread has ended");
}
