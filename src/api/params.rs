//! Query parameters: each known by name, each at most once.
//!
//! Strictness is a kindness here. A mistyped `since` that was passed over would replay everything,
//! and of two that contradict each other a proxy may have meant the other one. So both are refused,
//! and the refusal lists what is known.

use std::borrow::Cow;

use crate::http::percent_decode;
use crate::problem::Problem;

/// The parameters of one request.
pub struct QueryParams<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> QueryParams<'a> {
    /// Reads a query string. Whatever is not known is refused: a mistyped `since` would otherwise
    /// replay everything.
    ///
    /// # Errors
    /// Names the parameter at fault, and those that are known.
    pub fn read(query: &'a str, known: &[&'static str]) -> Result<QueryParams<'a>, Problem> {
        let mut params: Vec<(&'static str, Cow<'a, str>)> = Vec::new();
        // Nearly every publish has none, and is done sooner than that would be found out below.
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
                    "parameter {name} is repeated; it may come once"
                )));
            }
            params.push((name, percent_decode(value)?));
        }
        Ok(QueryParams(params))
    }

    /// A parameter's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| &**value)
    }

    /// A parameter's value as `parse` reads it, or the default.
    ///
    /// # Errors
    /// Names the parameter, its value, and what is allowed.
    pub fn parsed<T>(
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

/// A whole number in a range.
///
/// # Errors
/// Says what is allowed.
pub fn whole(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|n| digits && (least..=most).contains(n));
    number.ok_or_else(|| format!("allowed is a whole number from {least} to {most}"))
}
