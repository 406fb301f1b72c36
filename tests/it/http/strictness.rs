//! Goal: whatever a front proxy and this server could read differently is refused, with the right
//! status and a reason, and nothing that follows it is taken for a request. What is not refused is
//! there too: strictness is no blanket.

mod bodies;
mod fields;
mod lines;
mod streams;

use std::borrow::Cow;
use std::collections::HashSet;

use crate::support::{Client, Response, Server};
use Expected::{Declined, Fine, Last, Refused};

/// One row: a sentence, the bytes that matter, and the answer.
type Row = (&'static str, &'static [u8], Expected);

/// Rows whose bytes stand between the same others.
struct Group {
    before: &'static [u8],
    rows: &'static [Row],
    after: &'static [u8],
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Expected {
    /// This status; the next request is answered too.
    Fine(u16),
    /// This status, and the connection ends as asked.
    Last(u16),
    /// A problem with this status and this word in its detail; the next request is answered too.
    Declined(u16, &'static str),
    /// The same, but where the next request begins cannot be known: the connection ends.
    Refused(u16, &'static str),
}

/// A row, spelled out.
pub struct Case {
    pub name: Cow<'static, str>,
    pub bytes: Vec<u8>,
    expected: Expected,
}

pub fn table() -> Vec<Case> {
    let mut cases = streams::made();
    let groups = [lines::GROUPS, fields::GROUPS, bodies::GROUPS, streams::GROUPS];
    for group in groups.into_iter().flatten() {
        for (name, bytes, expected) in group.rows {
            let bytes = [group.before, bytes, group.after].concat();
            cases.push(Case { name: (*name).into(), bytes, expected: *expected });
        }
    }
    cases
}

/// What follows each row; only its answer names this path.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What was answered, without what differs from one time to the next.
#[derive(PartialEq, Debug)]
struct Answered {
    status: u16,
    ends: bool,
    detail: String,
}

/// Reads the answer, and makes sure that it is the only one.
fn answered(case: &Case, client: &mut Client) -> Answered {
    let name = &case.name;
    let is_head = case.bytes.starts_with(b"HEAD ");
    let mut response = next_answer(client, is_head);
    if response.status == 100 {
        response = next_answer(client, is_head);
    }
    let ends = response.header("Connection") == Some("close");
    if !ends {
        let next = client.response();
        assert!(next.status == 404 && next.detail().contains("/next"), "{name}: {next:?}");
        client.close_write();
    }
    assert_eq!(
        String::from_utf8_lossy(&client.read_to_end()),
        "",
        "{name}: more than was asked for"
    );
    let is_problem = response.status >= 400 && !is_head;
    let detail = if is_problem { response.detail() } else { String::new() };
    Answered { status: response.status, ends, detail }
}

fn next_answer(client: &mut Client, is_head: bool) -> Response {
    if is_head { client.response_head() } else { client.response() }
}

fn check(case: &Case, answered: &Answered) {
    let (status, says, ends) = match case.expected {
        Fine(status) => (status, "", false),
        Last(status) => (status, "", true),
        Declined(status, says) => (status, says, false),
        Refused(status, says) => (status, says, true),
    };
    let shown = String::from_utf8_lossy(&case.bytes[..case.bytes.len().min(300)]);
    let context = format!("{}: {shown:?} got {answered:?}", case.name);
    assert_eq!((answered.status, answered.ends), (status, ends), "{context}");
    assert!(answered.detail.contains(says), "not {says:?}: {context}");
}

fn send_at_once(client: &mut Client, bytes: &[u8]) {
    client.send(bytes);
}

fn send_one_by_one(client: &mut Client, bytes: &[u8]) {
    for byte in bytes {
        client.send([*byte]);
    }
}

/// Sends every row in this manner, each on a connection of its own.
fn run(server: &Server, send: fn(&mut Client, &[u8])) -> Vec<Answered> {
    let ask = |case: &Case| {
        let mut client = server.connect();
        send(&mut client, &[&case.bytes, NEXT].concat());
        let answered = answered(case, &mut client);
        check(case, &answered);
        answered
    };
    table().iter().map(ask).collect()
}

/// Events are kept of those requests alone that were answered so.
fn nothing_else_was_kept(server: &Server) {
    let published = table().iter().filter(|case| case.expected == Fine(201)).count();
    let kept = server.get("/topics/strict?wait=0&limit=1000").seqs().len();
    assert_eq!(kept, published);
}

#[test]
fn every_row_is_answered_as_the_table_says() {
    let server = Server::start(&[]);
    run(&server, send_at_once);
    nothing_else_was_kept(&server);
}

#[test]
fn bytes_that_come_one_by_one_are_answered_as_those_that_come_together() {
    let server = Server::start(&[]);
    let one_by_one = run(&server, send_one_by_one);
    nothing_else_was_kept(&server);
    for ((at_once, one_by_one), case) in
        run(&server, send_at_once).iter().zip(&one_by_one).zip(table())
    {
        assert_eq!(at_once, one_by_one, "{}", case.name);
    }
}

#[test]
fn the_table_is_long_and_says_everything_once() {
    let table = table();
    let names: HashSet<&str> = table.iter().map(|case| &*case.name).collect();
    let bytes: HashSet<&[u8]> = table.iter().map(|case| &*case.bytes).collect();
    let refused = table.iter().filter(|case| matches!(case.expected, Refused(..))).count();
    println!("{} rows, {refused} of them end their connection", table.len());
    assert!(refused >= 150 && table.len() - refused >= 50);
    assert_eq!((names.len(), bytes.len()), (table.len(), table.len()));
}
