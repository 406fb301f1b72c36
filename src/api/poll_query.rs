//! The query parameters of a poll: a new parameter is added to [`PARAMETERS`] and read in
//! [`PollQuery::parse`].
//!
//! A parameter that changes the response is a field of [`PageKey`], because equal keys share one
//! page. A parameter of streams, too, is also read in [`super::stream`].

use std::time::Duration;

use super::page::{BodyFormat, PageKey, PageShape};
use super::query_params::{QueryParams, parse_integer};
use crate::access::RequiredRight;
use crate::cursor::Since;
use crate::http::{HeaderName, RequestHead};
use crate::limits::{DEFAULT_PAGE_EVENTS, MAX_PAGE_EVENTS};
use crate::log::GapPolicy;
use crate::names::{TopicSet, TypeFilter};
use crate::problem::Problem;
use crate::time::parse_seconds;

const PARAMETERS: [&str; 6] = ["since", "wait", "limit", "type", "format", "gap"];
const DEFAULT_WAIT: Duration = Duration::from_secs(25);

/// A poll's topics and parameters.
#[derive(Debug)]
pub struct PollQuery {
    pub(super) key: PageKey,
    /// The longest wait for an event, at most `--max-wait`.
    pub(super) wait: Duration,
}

impl PollQuery {
    /// Parses a poll's topics, parameters and preferences. `max_wait` is `--max-wait`.
    ///
    /// # Errors
    /// Names the part that is wrong, and what is expected.
    pub fn parse(
        topics: &str,
        head: &RequestHead,
        max_wait: Duration,
    ) -> Result<PollQuery, Problem> {
        let topics = TopicSet::parse(topics).map_err(Problem::bad_request)?;
        let params = QueryParams::parse(head.query(), &PARAMETERS)?;
        let format = params.get_parsed("format", BodyFormat::Json, |text| match text {
            "json" => Ok(BodyFormat::Json),
            "ndjson" => Ok(BodyFormat::Ndjson),
            "raw" => Ok(BodyFormat::Raw),
            _ => Err("expected json, ndjson or raw".into()),
        })?;
        let limit = params.get_parsed("limit", DEFAULT_PAGE_EVENTS, |text| {
            parse_integer(text, 1, MAX_PAGE_EVENTS)
        })?;
        let preferred = match params.get("wait") {
            // The parameter wins over the header.
            Some(_) => None,
            // A HEAD request does not wait, so no preference is applied.
            None if head.is_head_request() => None,
            None => head.get_all(HeaderName::Prefer).find_map(preferred_wait),
        };
        let wait = match preferred {
            Some(seconds) => Duration::from_secs(seconds),
            None => params.get_parsed("wait", DEFAULT_WAIT, parse_wait)?,
        };
        Ok(PollQuery {
            wait: if head.is_head_request() { Duration::ZERO } else { wait.min(max_wait) },
            key: PageKey {
                topics,
                since: params.get_parsed("since", Since::Start, parse_since)?,
                types: params.get_parsed("type", TypeFilter::default(), TypeFilter::parse)?,
                limit: if format == BodyFormat::Raw { 1 } else { limit },
                shape: PageShape::Response(format),
                on_gap: params.get_parsed("gap", GapPolicy::Fail, |text| match text {
                    "fail" => Ok(GapPolicy::Fail),
                    "skip" => Ok(GapPolicy::Skip),
                    _ => Err("expected fail or skip".into()),
                })?,
                applied_wait: preferred,
                cors: None,
            },
        })
    }

    /// The right that the poll needs.
    pub fn required_right(&self) -> RequiredRight {
        self.key.required_right()
    }
}

/// Parses `since`: where a reader begins.
///
/// # Errors
/// Says what is expected.
pub fn parse_since(text: &str) -> Result<Since, String> {
    let last = text.strip_prefix("last:");
    match text {
        "start" => Ok(Since::Start),
        "now" => Ok(Since::Now),
        _ if last.is_some_and(|count| !count.is_empty()) => {
            let count = last.unwrap_or_default();
            let only_digits = count.bytes().all(|b| b.is_ascii_digit());
            let number = if only_digits { count.parse().ok() } else { None };
            number.map(Since::Last).ok_or_else(|| "expected last: and a whole number".into())
        }
        _ => text
            .parse()
            .map(Since::After)
            .map_err(|_| "expected start, now, last:N or a cursor from this server".into()),
    }
}

/// Parses `wait`. A number too large for a `Duration` becomes the longest one, which `--max-wait`
/// then limits.
fn parse_wait(text: &str) -> Result<Duration, String> {
    let expected = "expected a number of seconds, not negative, such as 25 or 0.5";
    parse_seconds(text).ok_or_else(|| expected.into())
}

/// The `wait` of a `Prefer` header (RFC 7240, section 4.3), if it has one.
fn preferred_wait(value: &str) -> Option<u64> {
    value.split(',').find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let seconds = value.trim().trim_matches('"');
        let is_number = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
        let is_wait = name.trim().eq_ignore_ascii_case("wait") && is_number;
        is_wait.then(|| seconds.parse().unwrap_or(u64::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_preference_is_parsed_with_quotes_parameters_and_in_any_case() {
        assert_eq!(preferred_wait("respond-async, WAIT = \"7\"; x=y"), Some(7));
        assert_eq!(preferred_wait("wait"), None);
        assert_eq!(preferred_wait("wait=-1"), None);
    }

    #[test]
    fn since_accepts_four_forms_and_no_other() {
        assert_eq!(parse_since("start"), Ok(Since::Start));
        assert_eq!(parse_since("now"), Ok(Since::Now));
        assert_eq!(parse_since("last:0"), Ok(Since::Last(0)));
        for text in ["", "last:", "last:-1", "last:x", "Start", "12", "2026-01-01T00:00:00Z"] {
            assert!(parse_since(text).is_err(), "{text}");
        }
    }
}
