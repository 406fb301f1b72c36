//! Guards against request smuggling: input that a front proxy and this server could parse
//! differently is refused with the right status and a reason, and the bytes after it are not taken
//! for a request. The table also has valid requests, so that strictness does not refuse them.

mod bodies;
mod fields;
mod lines;
mod streams;

use std::borrow::Cow;
use std::collections::HashSet;

use crate::support::{Client, Response, Server};
use Expected::{Declined, Fine, Last, Refused};

/// One row: a description, the bytes in question, and the expected response.
type Row = (&'static str, &'static [u8], Expected);

/// Rows whose bytes stand between the same bytes.
struct Group {
    before: &'static [u8],
    rows: &'static [Row],
    after: &'static [u8],
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Expected {
    /// This status, and the next request is answered, too.
    Fine(u16),
    /// This status, and the connection closes as requested.
    Last(u16),
    /// A problem with this status and this text in its detail; the next request is answered, too.
    Declined(u16, &'static str),
    /// As `Declined`, but the connection closes, because the start of the next request is unknown.
    Refused(u16, &'static str),
}

/// A row with the bytes of its group.
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

/// The request that follows each row; only its response names this path.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The parts of a response that do not change from run to run.
#[derive(PartialEq, Debug)]
struct Observed {
    status: u16,
    closes: bool,
    detail: String,
}

/// Reads the response and checks that no other one follows, but for that to the next request.
fn observe(case: &Case, client: &mut Client) -> Observed {
    let name = &case.name;
    let is_head = case.bytes.starts_with(b"HEAD ");
    let mut response = next_response(client, is_head);
    if response.status == 100 {
        response = next_response(client, is_head);
    }
    let closes = response.header("Connection") == Some("close");
    if !closes {
        let next = client.response();
        assert!(next.status == 404 && next.detail().contains("/next"), "{name}: {next:?}");
        client.close_write();
    }
    assert_eq!(
        String::from_utf8_lossy(&client.read_to_end()),
        "",
        "{name}: more responses than requests"
    );
    let is_problem = response.status >= 400 && !is_head;
    let detail = if is_problem { response.detail() } else { String::new() };
    Observed { status: response.status, closes, detail }
}

fn next_response(client: &mut Client, is_head: bool) -> Response {
    if is_head { client.response_head() } else { client.response() }
}

fn check(case: &Case, observed: &Observed) {
    let (status, says, closes) = match case.expected {
        Fine(status) => (status, "", false),
        Last(status) => (status, "", true),
        Declined(status, says) => (status, says, false),
        Refused(status, says) => (status, says, true),
    };
    let shown = String::from_utf8_lossy(&case.bytes[..case.bytes.len().min(300)]);
    let context = format!("{}: {shown:?} got {observed:?}", case.name);
    assert_eq!((observed.status, observed.closes), (status, closes), "{context}");
    assert!(observed.detail.contains(says), "not {says:?}: {context}");
}

fn send_at_once(client: &mut Client, bytes: &[u8]) {
    client.send(bytes);
}

fn send_one_by_one(client: &mut Client, bytes: &[u8]) {
    for byte in bytes {
        client.send([*byte]);
    }
}

/// Sends every row with `send`, each on a new connection.
fn run(server: &Server, send: fn(&mut Client, &[u8])) -> Vec<Observed> {
    let send_case = |case: &Case| {
        let mut client = server.connect();
        send(&mut client, &[&case.bytes, NEXT].concat());
        let observed = observe(case, &mut client);
        check(case, &observed);
        observed
    };
    table().iter().map(send_case).collect()
}

/// Checks that the log contains the events of the requests with 201 and no others.
fn assert_only_acknowledged_events_are_kept(server: &Server) {
    let is_published = |case: &&Case| {
        matches!(case.expected, Fine(201) | Last(201))
            && case.bytes.starts_with(b"POST /topics/strict ")
    };
    let published = table().iter().filter(is_published).count();
    let kept = server.get("/topics/strict?wait=0&limit=1000").seqs().len();
    assert_eq!(kept, published);
}

#[test]
fn every_row_gets_its_expected_response() {
    let server = Server::start(&[]);
    run(&server, send_at_once);
    assert_only_acknowledged_events_are_kept(&server);
}

#[test]
fn single_bytes_get_the_same_response_as_one_packet() {
    let server = Server::start(&[]);
    let one_by_one = run(&server, send_one_by_one);
    assert_only_acknowledged_events_are_kept(&server);
    for ((at_once, one_by_one), case) in
        run(&server, send_at_once).iter().zip(&one_by_one).zip(table())
    {
        assert_eq!(at_once, one_by_one, "{}", case.name);
    }
}

#[test]
fn table_is_long_and_has_no_duplicates() {
    let table = table();
    let names: HashSet<&str> = table.iter().map(|case| &*case.name).collect();
    let bytes: HashSet<&[u8]> = table.iter().map(|case| &*case.bytes).collect();
    let refused = table.iter().filter(|case| matches!(case.expected, Refused(..))).count();
    println!("{} rows, {refused} of them close their connection", table.len());
    assert!(refused >= 150 && table.len() - refused >= 50);
    assert_eq!((names.len(), bytes.len()), (table.len(), table.len()));
}
