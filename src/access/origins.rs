//! Refusal of requests from pages of other origins.
//!
//! A page can make a browser send requests to any address that the browser reaches, also to a
//! server on localhost or in a home network that the page's author cannot reach. Such a request is
//! recognised by its `Origin` (RFC 6454) and `Sec-Fetch-Site`, which pages cannot forge. With DNS
//! rebinding a page lets a name of its own resolve to this server's address and so has the server's
//! own origin; it is recognised by that name in `Host`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::config::Config;
use crate::conn::Conn;
use crate::http::{HeaderName, Method, RequestHead, Response, split_port};
use crate::limits::PREFLIGHT_MAX_AGE_SECONDS;
use crate::problem::{Cause, Problem};

/// The value of `Access-Control-Allow-Origin`: the origin whose pages may read a response.
pub type AllowedOrigin = Arc<str>;

/// The origins that may send requests, and the names of this server.
pub struct OriginPolicy {
    /// Host names in lower case, and the most common address. `None` accepts any name.
    names: Option<Vec<String>>,
    /// The origins of `--allow-origin`, or `*`.
    allowed: Vec<AllowedOrigin>,
}

impl OriginPolicy {
    pub fn new(config: &Config) -> OriginPolicy {
        // With tokens, a rebound name gains nothing: the page has no token.
        let names = config.tokens.is_none().then(|| {
            // Every address is accepted anyway; listing the most common one saves parsing it.
            let mut names = vec![String::from("127.0.0.1"), String::from("localhost")];
            names.extend(config.allow_hosts.iter().cloned());
            names.extend(own_names());
            names
        });
        let allowed = config.allow_origins.iter().map(|origin| Arc::from(origin.as_str()));
        OriginPolicy { names, allowed: allowed.collect() }
    }

    pub fn check(&self, head: &RequestHead, conn: &Conn) -> Result<Option<AllowedOrigin>, Problem> {
        let host = head.get_all(HeaderName::Host).next();
        if let (Some(names), Some(host), false) = (&self.names, host, conn.is_unix()) {
            if !is_own_name(names, host) {
                return Err(foreign_host(host));
            }
        }
        let allowed = match head.get(HeaderName::Origin)? {
            None => None,
            Some(origin) => match self.find_allowed(origin) {
                _ if host.is_some_and(|host| is_same_origin(origin, host)) => None,
                Some(allowed) => Some(allowed),
                None => return Err(foreign_origin(origin, host)),
            },
        };
        let has = |name, value: &str| head.get_all(name).any(|v| v.eq_ignore_ascii_case(value));
        // A link from another site to the console page is harmless.
        let is_link_to_console = head.method == Method::Get
            && head.path() == "/"
            && has(HeaderName::SecFetchMode, "navigate");
        if allowed.is_none() && has(HeaderName::SecFetchSite, "cross-site") && !is_link_to_console {
            return Err(Problem::new(
                Cause::ForeignOrigin,
                "header Sec-Fetch-Site: cross-site: the request is from a page of another site; \
                 expected an Origin that --allow-origin allows",
            ));
        }
        Ok(allowed)
    }

    fn find_allowed(&self, origin: &str) -> Option<AllowedOrigin> {
        let matches =
            |allowed: &&AllowedOrigin| ***allowed == *"*" || allowed.eq_ignore_ascii_case(origin);
        self.allowed.iter().find(matches).cloned()
    }
}

fn foreign_host(host: &str) -> Problem {
    let name = split_port(host).0;
    Problem::new(
        Cause::ForeignHost,
        format!(
            "header Host: {host:?} is not a name of this server; expected an IP address, localhost \
             or the machine's own name. To allow this name, start the server with \
             --allow-host {name}"
        ),
    )
}

fn foreign_origin(origin: &str, host: Option<&str>) -> Problem {
    let host = host.unwrap_or_default();
    Problem::new(
        Cause::ForeignOrigin,
        format!(
            "header Origin: {origin:?} is not this server's origin, which has Host: {host:?}; \
             expected an origin that --allow-origin allows. Behind a proxy, Host has to be what \
             the browser sent, with its port"
        ),
    )
}

/// The machine's name without and with `.local`, the name in multicast DNS.
fn own_names() -> Vec<String> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().to_ascii_lowercase();
    let bare = name.strip_suffix(".local").unwrap_or(&name);
    if bare.is_empty() {
        return Vec::new();
    }
    vec![bare.to_owned(), format!("{bare}.local")]
}

fn is_own_name(names: &[String], host: &str) -> bool {
    let name = split_port(host).0;
    let name = name.strip_suffix('.').unwrap_or(name);
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    names.iter().any(|known| known.len() == name.len() && known.eq_ignore_ascii_case(name))
        || literal.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
        || name.parse::<Ipv4Addr>().is_ok()
}

/// Whether an origin is that of a server with this `Host`.
fn is_same_origin(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default = if scheme.eq_ignore_ascii_case("https") { "443" } else { "80" };
    let (name, port) = split_port(authority);
    let (own_name, own_port) = split_port(host);
    name.eq_ignore_ascii_case(own_name) && port.unwrap_or(default) == own_port.unwrap_or(default)
}

/// The response to a preflight request: the methods and headers that a page of another origin may
/// use (Fetch standard, section 3.2.2).
#[must_use]
pub fn preflight_response() -> Response {
    Response::no_content()
        .with_header("Access-Control-Allow-Methods", "GET, HEAD, POST, DELETE")
        .with_header(
            "Access-Control-Allow-Headers",
            "Authorization, Content-Type, Event-Type, Idempotency-Key, Last-Event-ID, Prefer",
        )
        .with_header("Access-Control-Max-Age", &PREFLIGHT_MAX_AGE_SECONDS.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_origin_means_same_host_and_port() {
        for (origin, host) in [
            ("http://localhost:8080", "localhost:8080"),
            ("http://LOCALHOST:8080", "localhost:8080"),
            ("http://a.example", "a.example"),
            ("http://a.example", "a.example:80"),
            ("http://a.example:80", "a.example"),
            ("https://a.example", "a.example"),
            ("https://a.example", "a.example:443"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("http://[::1]", "[::1]"),
        ] {
            assert!(is_same_origin(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("http://localhost:8081", "localhost:8080"),
            ("http://localhost", "localhost:8080"),
            ("https://a.example", "a.example:80"),
            ("http://a.example", "b.example"),
            ("http://a.example.evil", "a.example"),
            ("http://[::2]", "[::1]"),
            ("null", "null"),
            ("", ""),
            ("localhost", "localhost"),
        ] {
            assert!(!is_same_origin(origin, host), "{origin} {host}");
        }
    }

    #[test]
    fn only_own_names_and_addresses_are_accepted_as_host() {
        let names = ["localhost".to_owned(), "attic".to_owned()];
        let hosts =
            ["localhost", "LocalHost:8080", "localhost.", "127.0.0.1", "10.1.2.3:80", "[::1]:80"];
        for host in hosts.into_iter().chain(["[2001:db8::1]", "attic", "attic:8080"]) {
            assert!(is_own_name(&names, host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil",
            "::1",
            "[::1",
            "attic.x",
            "1",
        ] {
            assert!(!is_own_name(&names, host), "{host}");
        }
    }
}
