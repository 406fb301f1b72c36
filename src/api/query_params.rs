//! Query strings: each parameter known by name, each at most once.
//!
//! Strictness helps the client. A mistyped `since` that was ignored would replay everything, and of
//! two values of one parameter a proxy may have meant the other one. Both are refused, and the
//! refusal lists the parameters that are known.
//!
//! The lists of known parameters are where they are read: [`super::poll_query`] for a poll,
//! [`super::stream`] for a stream, [`super::publish_request`] and [`super::topics`].

use std::borrow::Cow;

use crate::http::percent_decode;
use crate::problem::Problem;

/// The parameters of one request.
pub struct QueryParams<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> QueryParams<'a> {
    /// Parses a query string that may contain the parameters `known`.
    ///
    /// # Errors
    /// Names the unknown or repeated parameter, and those that are known.
    pub fn parse(query: &'a str, known: &[&'static str]) -> Result<QueryParams<'a>, Problem> {
        let mut params: Vec<(&'static str, Cow<'a, str>)> = Vec::new();
        // Nearly every publish has no query; this test is cheaper than the loop's.
        if query.is_empty() {
            return Ok(QueryParams(params));
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = percent_decode(name)?;
            let name = known.iter().find(|known| ***known == *name).ok_or_else(|| {
                let known = match known {
                    [] => "none".into(),
                    _ => known.join(", "),
                };
                Problem::bad_request(format!("unknown parameter {name:?}; known here: {known}"))
            })?;
            if params.iter().any(|(before, _)| before == name) {
                return Err(Problem::bad_request(format!(
                    "parameter {name} is repeated; expected at most once"
                )));
            }
            params.push((name, percent_decode(value)?));
        }
        Ok(QueryParams(params))
    }

    /// The value of a parameter, decoded.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }

    /// The value of a parameter as `parse` reads it, or the default.
    ///
    /// # Errors
    /// Names the parameter and its value, and what `parse` expects.
    pub fn get_parsed<T>(
        &self,
        name: &str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Problem> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => parse(value)
                .map_err(|why| Problem::bad_request(format!("parameter {name}={value}: {why}"))),
        }
    }
}

/// Parses a whole number from `min` to `max`.
///
/// # Errors
/// Says what is expected.
pub fn parse_integer(text: &str, min: usize, max: usize) -> Result<usize, String> {
    let only_digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|n| only_digits && (min..=max).contains(n));
    number.ok_or_else(|| format!("expected a whole number from {min} to {max}"))
}
