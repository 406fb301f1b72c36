//! The invariants of paths, queries, cursors, topic lists and type filters, for any request target.
//! The fuzz target and the replay in the ordinary tests both check them.

use std::fmt::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use longpoll::access::Access;
use longpoll::api::{Api, LogHandle};
use longpoll::config::Config;
use longpoll::conn::Conn;
use longpoll::cursor::{Cursor, Epoch};
use longpoll::http::{HeaderName, Method, RequestHead, percent_decode};
use longpoll::limits::{NAME_CHARS, NAMES_PER_POLL};
use longpoll::metrics::Metrics;
use longpoll::names::{Name, Pattern, TopicSet, TypeFilter};
use longpoll::semaphore::Semaphore;
use longpoll::shutdown::Shutdown;
use longpoll::time::{Seconds, parse_seconds};

static API: LazyLock<Api> = LazyLock::new(|| {
    let shutdown = Shutdown::new().expect("a descriptor");
    let metrics = Arc::new(Metrics::default());
    let (config, epoch) = (Config::default(), Epoch::from_bits(7));
    let access = Access::open(&config).expect("no token file to read");
    let log = LogHandle::in_memory(&config, epoch).expect("random bytes");
    Api::new(&config, access, log, Semaphore::new(1), metrics, shutdown)
});

/// The connection that the requests seem to come from; nothing is read from it.
static CONN: LazyLock<Conn> = LazyLock::new(|| {
    let (socket, _) = UnixStream::pair().expect("a socket pair");
    Conn::accepted(socket.into(), None, Duration::from_secs(1)).expect("a valid socket")
});

/// Panics if an invariant is violated. The first line of `bytes` is a request target without its
/// first slash; an optional second line is the value of a `Prefer` header.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (target, prefer) = text.split_once('\n').unwrap_or((text, ""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    check_decoding(path);
    // The path, its list of topics, and each name and value of the query, one at a time.
    let values = query.split(['&', '=']);
    for part in [path, path.trim_start_matches("topics/")].into_iter().chain(values) {
        check_cursor(part);
        check_topics(part);
        check_types(part);
        check_seconds(part);
    }
    check_routes(path, query, prefer);
}

fn check_decoding(text: &str) {
    let Ok(decoded) = percent_decode(text) else {
        assert!(text.contains('%'));
        return;
    };
    assert!(decoded.len() <= text.len());
    assert_eq!(percent_decode(&encode(&decoded)).expect("encoded"), decoded);
    if !text.contains('%') {
        assert_eq!(decoded, text);
    }
}

/// Percent-encodes every byte.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, b| {
        let _ = write!(encoded, "%{b:02X}");
        encoded
    })
}

fn check_cursor(text: &str) {
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string(), text);
        assert_eq!(cursor.text(), text);
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
    (1..=NAME_CHARS).contains(&text.len()) && text.bytes().all(allowed)
}

fn check_topics(list: &str) {
    assert_eq!(Name::new(list).is_some(), is_name(list));
    let parts: Vec<&str> = list.split(',').collect();
    let prefix = |part: &str| part.strip_suffix('*').map(str::to_owned);
    let allowed = |part: &&str| match prefix(part) {
        Some(prefix) => prefix.is_empty() || is_name(&prefix),
        None => is_name(part),
    };
    match TopicSet::parse(list) {
        Err(detail) => {
            assert!(parts.len() > NAMES_PER_POLL || !parts.iter().all(allowed), "{list:?}");
            assert!(detail.contains("topic"), "{detail}");
        }
        Ok(set) => {
            assert!(parts.len() <= NAMES_PER_POLL && parts.iter().all(allowed), "{list:?}");
            let patterns: Vec<String> = set.patterns().iter().map(pattern_text).collect();
            assert_eq!(TopicSet::parse(&patterns.join(",")).as_ref(), Ok(&set));
            // Exactly one pattern covers each part.
            for part in parts {
                let covers = |pattern: &&Pattern| match (pattern, prefix(part)) {
                    (Pattern::Topic(name), None) => **name == *part,
                    (Pattern::Topic(_), Some(_)) => false,
                    (Pattern::Prefix(prefix), _) => part.starts_with(&**prefix),
                };
                assert_eq!(set.patterns().iter().filter(covers).count(), 1, "{part} in {list}");
            }
            assert!(patterns.iter().all(|pattern| list.split(',').any(|part| part == pattern)));
        }
    }
}

fn pattern_text(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Topic(name) => name.to_string(),
        Pattern::Prefix(prefix) => format!("{prefix}*"),
    }
}

fn check_types(list: &str) {
    let parts: Vec<&str> = list.split(',').collect();
    let is_valid = parts.len() <= NAMES_PER_POLL && parts.iter().all(|part| is_name(part));
    match TypeFilter::parse(list) {
        Err(detail) => assert!(!is_valid && !detail.is_empty(), "{list:?}: {detail}"),
        Ok(filter) => {
            assert!(is_valid, "{list:?}");
            assert!(!filter.matches_all() && !filter.matches(None));
            let name = |part: &str| Name::new(part).expect("a name");
            assert!(parts.iter().all(|part| filter.matches(Some(&name(part)))));
            let other = "another-one";
            assert_eq!(filter.matches(Some(&name(other))), parts.contains(&other));
        }
    }
}

fn check_seconds(text: &str) {
    if let Some(time) = parse_seconds(text).filter(|time| *time < Duration::MAX) {
        let micros = Duration::from_micros(time.as_micros() as u64);
        let is_representable = time.as_secs() < u64::MAX / 1_000_000;
        assert!(
            !is_representable || parse_seconds(&Seconds(time).to_string()) == Some(micros),
            "{text}"
        );
    }
}

/// The operation that the API parses from a request, or status and detail of its refusal.
fn route(method: Method, path: &str, query: &str, prefer: &str) -> Result<String, (u16, String)> {
    let mut head = RequestHead::new(method, path, query);
    if !prefer.is_empty() {
        head.append(HeaderName::Prefer, prefer);
    }
    match API.route(&head, &CONN).operation {
        Ok(operation) => Ok(format!("{operation:?}")),
        Err(problem) => {
            let body: serde_json::Value = serde_json::from_slice(&problem.body()).expect("JSON");
            let detail = body["detail"].as_str().unwrap_or_default().to_owned();
            assert!(!detail.is_empty());
            Err((problem.cause().status(), detail))
        }
    }
}

fn check_routes(path: &str, query: &str, prefer: &str) {
    let path = format!("/{path}");
    let [get, post] = [Method::Get, Method::Post];
    for method in [get, post, Method::Head, Method::Delete, Method::Options, Method::Put] {
        let result = route(method.clone(), &path, query, prefer);
        if let Err((status, _)) = result {
            assert!([400, 404, 405].contains(&status));
        }
        // Neither percent-encoding nor the order of parameters changes the operation.
        if let Ok(decoded) = percent_decode(&path) {
            let same = route(method.clone(), &encode(&decoded), query, prefer);
            assert_eq!(same.is_ok(), result.is_ok());
            assert!(result.is_err() || same == result);
        }
        let reversed: Vec<&str> = query.rsplit('&').collect();
        let same = route(method.clone(), &path, &reversed.join("&"), prefer);
        assert_eq!(same.is_ok(), result.is_ok());
        assert!(result.is_err() || same == result);
        if let (Ok(operation), Some(query)) = (&result, encoded_query(query)) {
            assert_eq!(route(method, &path, &query, prefer).as_ref(), Ok(operation));
        }
    }
    let (get, head) = (route(Method::Get, &path, query, ""), route(Method::Head, &path, query, ""));
    assert_eq!(get.is_ok(), head.is_ok());
    // An accepted `since` is a cursor, `start`, `now`, or `last:` with a number.
    if let (Ok(_), Some(since)) = (get, parameter(query, "since")) {
        let number = since.strip_prefix("last:").map(|n| n.parse::<u64>().is_ok());
        let is_word = ["start", "now"].contains(&&*since);
        assert!(is_word || number == Some(true) || since.parse::<Cursor>().is_ok(), "{since}");
    }
}

/// The query with every byte of its names and values percent-encoded.
fn encoded_query(query: &str) -> Option<String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (percent_decode(name).ok()?, percent_decode(value).ok()?);
        Some(format!("{}={}", encode(&name), encode(&value)))
    });
    Some(pairs.collect::<Option<Vec<_>>>()?.join("&"))
}

/// The first value of a parameter, decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(key, _)| percent_decode(key).is_ok_and(|key| key == name));
    values.next().and_then(|(_, value)| Some(percent_decode(value).ok()?.into_owned()))
}
