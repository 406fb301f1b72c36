//! Pages of other origins, kept out.
//!
//! A browser sends its user's requests wherever a page tells it to, also to a server on localhost
//! or in a home network that the page's author could never reach. What gives such a page away is
//! its `Origin` (RFC 6454), which pages cannot forge, and `Sec-Fetch-Site`. A page may also let a
//! name of its own resolve to this server's address (DNS rebinding), and so be of the server's own
//! origin; what gives it away then is that name, in `Host`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::config::Config;
use crate::conn::Conn;
use crate::http::{HeaderName, Method, RequestHead, Response, split_port};
use crate::limits::PREFLIGHT_MAX_AGE_SECONDS;
use crate::problem::{Cause, Problem};

/// Whose page may read an answer: what `Access-Control-Allow-Origin` says.
pub type AllowedOrigin = Arc<str>;

/// Which pages may ask, and under which names the server may be asked.
pub struct OriginPolicy {
    /// Host names in lower case, and an address that needs no reading; none: any name will do.
    names: Option<Vec<String>>,
    /// Origins that are let in, or `*`.
    allowed: Vec<AllowedOrigin>,
}

impl OriginPolicy {
    pub fn new(config: &Config) -> OriginPolicy {
        // A page that is let in by a forged name still has no token.
        let names = config.tokens.is_none().then(|| {
            // Addresses will do anyway. This is the most usual one, and found without being read.
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
        let cors = match head.get(HeaderName::Origin)? {
            None => None,
            Some(origin) => match self.allow(origin) {
                _ if host.is_some_and(|host| is_same(origin, host)) => None,
                Some(cors) => Some(cors),
                None => return Err(foreign_origin(origin, host)),
            },
        };
        let says =
            |field, word: &str| head.get_all(field).any(|said| said.eq_ignore_ascii_case(word));
        let goes_home = head.method == Method::Get
            && head.path() == "/"
            && says(HeaderName::SecFetchMode, "navigate");
        if cors.is_none() && says(HeaderName::SecFetchSite, "cross-site") && !goes_home {
            return Err(Problem::new(
                Cause::ForeignOrigin,
                "header Sec-Fetch-Site says cross-site: a page of another site asks; it may when \
                 its Origin is named by --allow-origin",
            ));
        }
        Ok(cors)
    }

    fn allow(&self, origin: &str) -> Option<AllowedOrigin> {
        let named =
            |allowed: &&AllowedOrigin| ***allowed == *"*" || allowed.eq_ignore_ascii_case(origin);
        self.allowed.iter().find(named).cloned()
    }
}

fn foreign_host(host: &str) -> Problem {
    let name = split_port(host).0;
    Problem::new(
        Cause::ForeignHost,
        format!(
            "header Host: {host:?} is no name of this server; allowed are IP addresses, localhost \
             and the machine's own name. To allow this one, start it with --allow-host {name}"
        ),
    )
}

fn foreign_origin(origin: &str, host: Option<&str>) -> Problem {
    let host = host.unwrap_or_default();
    Problem::new(
        Cause::ForeignOrigin,
        format!(
            "header Origin: {origin:?} is another site's: this one is asked as Host: {host:?}. \
             Its pages may ask when --allow-origin names it; behind a proxy, Host has to be what \
             the browser sent, with its port"
        ),
    )
}

/// The machine's name, with and without `.local`, by which its network finds it.
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

/// Whether an origin is that of the server which was asked under this `Host`.
fn is_same(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default = if scheme.eq_ignore_ascii_case("https") { "443" } else { "80" };
    let (name, port) = split_port(authority);
    let (own_name, own_port) = split_port(host);
    name.eq_ignore_ascii_case(own_name) && port.unwrap_or(default) == own_port.unwrap_or(default)
}

/// What a browser asks before it sends a request that no form could: which methods and headers
/// another site's page may use (Fetch standard, section 3.2.2).
#[must_use]
pub fn preflight() -> Response {
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
    fn an_origin_is_the_servers_own_when_host_and_port_are_the_same() {
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
            assert!(is_same(origin, host), "{origin} {host}");
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
            assert!(!is_same(origin, host), "{origin} {host}");
        }
    }

    #[test]
    fn a_name_is_the_servers_own_when_nobody_else_can_point_it_here() {
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
