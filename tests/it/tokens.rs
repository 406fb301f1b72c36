//! Goal: with `--tokens` each client may do what its token says, and nothing else.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::{Answer, Client, Server, program, until};

/// A file of tokens; removed when dropped.
pub struct File(PathBuf);

impl File {
    pub fn new(name: &str, text: &str) -> File {
        let path = std::env::temp_dir().join(format!("longpoll-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        File(path)
    }

    pub fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What `longpoll token` says: the line and the secret.
pub fn new_token(name: &str, rights: &str, topics: &str) -> (String, String) {
    let made = program().args(["token", name, rights, topics]).output().unwrap();
    assert!(made.status.success());
    let (line, told) = (String::from_utf8(made.stdout), String::from_utf8(made.stderr).unwrap());
    (line.unwrap(), told.trim().rsplit(' ').next().unwrap().to_owned())
}

pub fn bearer(secret: &str) -> String {
    format!("Authorization: Bearer {secret}\r\n")
}

fn ask(server: &Server, request: &str, fields: &str) -> Answer {
    let mut client = server.connect();
    client.send(format!("{request} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
    if request.starts_with("HEAD") { client.head() } else { client.answer() }
}

fn hold(server: &Server, target: &str, secret: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", bearer(secret)));
    client
}

const EVERYTHING: &[&str] = &["*"];
const NEWS: &[&str] = &["*", "news", "news,sensors.*"];
const SENSORS: &[&str] = &["*", "sensors.*", "news,sensors.*"];
const BOTH: &[&str] = &["*", "news,sensors.*"];
const ANY: &[&str] = &["*", "news", "sensors.*", "news,sensors.*"];

/// A request, the right that it needs, and the patterns of which one has to be the token's.
type Verb = (&'static str, &'static str, &'static [&'static str]);
const VERBS: [Verb; 21] = [
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
fn right_by_pattern_by_verb_a_token_may_what_its_line_says() {
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
    let file = File::new("matrix", &text);
    let server = Server::start(&["--tokens", file.path()]);
    let mut rows = 0;
    for (request, right, patterns) in VERBS {
        let body = if request.starts_with("POST") { "Content-Length: 0\r\n" } else { "" };
        for (rights, topics, (_, secret)) in &tokens {
            let fields = format!("{}{body}", bearer(secret));
            let answer = ask(&server, request, &fields);
            let allowed = right.is_empty()
                || rights.split(',').any(|r| r == right) && patterns.contains(topics);
            let ok = matches!(answer.status, 200 | 201 | 204);
            assert_eq!(ok, allowed, "{request} by {rights} {topics}: {answer:?}");
            assert!(ok || answer.status == 403, "{request} by {rights} {topics}: {answer:?}");
            assert!(!answer.head.contains(secret) && !answer.text().contains(secret));
            rows += 1;
        }
        for fields in [
            String::new(),
            bearer("nobody's"),
            bearer(&tokens[0].2.1.to_ascii_lowercase()),
            format!("Authorization: Basic {}\r\n", tokens[0].2.1),
            "Authorization: Bearer\r\n".into(),
        ] {
            let answer = ask(&server, request, &format!("{fields}{body}"));
            let open = right.is_empty();
            assert_eq!(answer.status == 401, !open, "{request} with {fields}: {answer:?}");
            let challenge = answer.header("WWW-Authenticate");
            assert_eq!(challenge.is_some_and(|c| c.starts_with("Bearer")), !open);
            rows += 1;
        }
    }
    println!("{rows} rows");
}

#[test]
fn a_key_belongs_to_its_token() {
    let (a, b) = (new_token("a", "publish,read", "*"), new_token("b", "publish", "*"));
    let file = File::new("keys", &format!("{}{}", a.0, b.0));
    let server = Server::start(&["--tokens", file.path()]);
    let publish = |secret: &str, body: &str| {
        let fields = format!("{}Idempotency-Key: k\r\n", bearer(secret));
        server.connect().post("/topics/news", &fields, body).status
    };
    assert_eq!([publish(&a.1, "x"), publish(&b.1, "y"), publish(&a.1, "x")], [201, 201, 200]);
    assert_eq!(publish(&b.1, "x"), 422);
}

#[test]
fn a_held_poll_ends_when_its_token_is_taken_back_and_others_go_on() {
    let (a, b, c) =
        (new_token("a", "read", "*"), new_token("b", "read", "*"), new_token("c", "read", "*"));
    let admin = new_token("root", "admin,publish", "*");
    let file = File::new("revoke", &format!("{}{}{}{}", a.0, b.0, c.0, admin.0));
    let server = Server::start(&["--tokens", file.path()]);
    let target = "/topics/news?since=now&wait=60";
    let [mut first, mut second, mut third] = [&a.1, &b.1, &c.1].map(|s| hold(&server, target, s));
    let held = || {
        let page = ask(&server, "GET /metrics", &bearer(&admin.1));
        page.text().contains("longpoll_polls_held 3\n")
    };
    until("three polls are held", held);
    // The first is gone, the second may read something else, the third stays.
    let other = b.0.replace('*', "other");
    file.write(&format!("{other}{}{}", c.0, admin.0));
    assert_eq!(first.answer().status, 401);
    assert_eq!(second.answer().status, 403);
    assert_eq!(ask(&server, "GET /topics/news?wait=0", &bearer(&a.1)).status, 401);
    let fields = bearer(&admin.1);
    assert_eq!(server.connect().post("/topics/news", &fields, "hello").status, 201);
    assert_eq!(third.answer().data(), ["hello"]);
}

#[test]
fn a_wrong_change_of_the_file_is_told_and_changes_nothing() {
    let (a, b) = (new_token("a", "read", "*"), new_token("b", "read", "*"));
    let file = File::new("reload", &a.0);
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--tokens", file.path()]).stderr(Stdio::piped());
    let mut server = Server::spawn(&mut command);
    let mut lines = BufReader::new(server.stderr()).lines().map(Result::unwrap);
    let status = |token: &(String, String)| {
        ask(&server, "GET /topics/news?wait=0", &bearer(&token.1)).status
    };
    assert_eq!((status(&a), status(&b)), (200, 401));
    file.write(&format!("{}{}oops\n", a.0, b.0));
    let told = lines.find(|line| line.contains("tokens: NOT")).unwrap();
    assert!(told.contains("1 known before stay"), "{told}");
    assert!(told.contains("line 3: 1 fields"), "{told}");
    assert_eq!((status(&a), status(&b)), (200, 401));
    file.write(&b.0);
    let told = lines.find(|line| line.contains("tokens: ")).unwrap();
    assert!(told.contains("1 are known now"), "{told}");
    assert_eq!((status(&a), status(&b)), (401, 200));
    std::fs::remove_file(file.path()).unwrap();
    let told = lines.find(|line| line.contains("tokens: NOT")).unwrap();
    assert!(told.contains("No such file"), "{told}");
    assert_eq!((status(&a), status(&b)), (401, 200));
}

#[test]
fn secrets_are_in_no_line_on_stderr() {
    let (line, secret) = new_token("a", "read", "*");
    let file = File::new("quiet", &line);
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--log", "requests", "--tokens", file.path()]);
    let mut server = Server::spawn(command.stderr(Stdio::piped()));
    ask(&server, "GET /topics/news?wait=0", &bearer(&secret));
    ask(&server, "POST /topics/news", &format!("{}Content-Length: 0\r\n", bearer(&secret)));
    ask(&server, &format!("GET /topics/news?access_token={secret}"), "");
    ask(&server, "GET /metrics", &bearer("wrong-secret"));
    server.signal(15);
    let told: Vec<String> = BufReader::new(server.stderr()).lines().map(Result::unwrap).collect();
    assert!(told.iter().any(|line| line.contains("/topics/news")), "{told:?}");
    assert!(told.iter().any(|line| line.contains("unauthorized")), "{told:?}");
    assert!(!told.iter().any(|line| line.contains(&secret) || line.contains("wrong-secret")));
    assert!(server.wait().0.success());
}

#[test]
fn a_file_that_is_wrong_keeps_the_server_from_starting_and_is_named_with_its_line() {
    let (line, _) = new_token("a", "read", "*");
    for (text, word) in [
        (format!("{line}{line}"), "line 2: name a"),
        ("a b read *".into(), "line 1"),
        (format!("#\n{}", line.replace("read", "write")), "line 2: rights"),
        ("x".repeat(600 << 10), "too large"),
    ] {
        let file = File::new("wrong", &text);
        let args = ["--listen", "127.0.0.1:0", "--tokens", file.path()];
        let ended = program().args(args).output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{told}");
        assert!(told.contains(file.path()) && told.contains(word), "{told}");
    }
    let ended = program().args(["--tokens", "/nowhere/tokens"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8(ended.stderr).unwrap().contains("/nowhere/tokens"));
}

#[test]
fn a_token_is_made_only_when_a_server_would_take_it() {
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
        let ended = program().args(args).output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), ended.stdout.len()), (Some(2), 0), "{told}");
        assert!(told.contains(word), "{told}");
    }
}

#[test]
fn a_token_that_is_taken_back_while_a_body_arrives_does_not_publish_it() {
    let (a, b) = (new_token("a", "publish", "*"), new_token("b", "read", "*"));
    let file = File::new("late", &format!("{}{}", a.0, b.0));
    let server = Server::start(&["--tokens", file.path()]);
    let mut client = server.connect();
    client.send(format!(
        "POST /topics/news HTTP/1.1\r\nHost: localhost\r\n{}Content-Length: 5\r\n\r\nhel",
        bearer(&a.1)
    ));
    file.write(&b.0);
    let gone = || ask(&server, "POST /topics/x", &format!("{}Content-Length: 0\r\n", bearer(&a.1)));
    until("the token is gone", || gone().status == 401);
    assert_eq!(client.send("lo").answer().status, 401);
    assert_eq!(ask(&server, "GET /topics/news?wait=0", &bearer(&b.1)).seqs(), [0; 0]);
}

#[test]
fn tokens_come_from_a_regular_file_only() {
    let (line, secret) = new_token("a", "read", "*");
    let file = File::new("pipe", &line);
    let server = Server::start(&["--tokens", file.path()]);
    std::fs::remove_file(file.path()).unwrap();
    assert!(Command::new("mkfifo").arg(file.path()).status().unwrap().success());
    // Whoever opened it would wait for ever, and look after nothing else.
    let mut left = hold(&server, "/topics/news?since=now&wait=60", &secret);
    until("it is looked at", || ask(&server, "GET /health", "").status == 200);
    let ended = program().args(["--listen", "127.0.0.1:0", "--tokens", file.path()]).output();
    let ended = ended.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8(ended.stderr).unwrap().contains("expected a regular file"));
    server.signal(15);
    assert_eq!(left.answer().json()["reason"], "drain");
    let mut server = server;
    assert!(server.wait().0.success(), "its watch has ended");
}
