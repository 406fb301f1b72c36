//! Where a server is, as people write it.
//!
//! Everything that can be wrong with it is found before anything is sent; `https:` too, because a
//! client that quietly spoke without TLS would show its token to everybody on the way.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

/// What a URL may be, as errors say it.
const RULE: &str = "allowed is http://HOST[:PORT][/PREFIX] or unix:/PATH";

/// A server's address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    pub(super) place: Place,
    /// What the Host field of each request says.
    pub(super) authority: String,
    /// What stands before `/topics` in each request's target.
    pub(super) prefix: String,
}

/// What to connect to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp { .. } => write!(f, "http://{}{}", self.authority, self.prefix),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        parse(text).map_err(|why| format!("{text:?}{why}; {RULE}"))
    }
}

fn parse(text: &str) -> Result<Url, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(" has no path".into());
        }
        // The connection goes to the socket, whatever the Host field says.
        let (authority, prefix) = ("localhost".into(), String::new());
        return Ok(Url { place: Place::Unix(path.into()), authority, prefix });
    }
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => {
            return Err(": TLS belongs to a proxy and is not spoken here".into());
        }
        Some((scheme, _)) => return Err(format!(": {scheme}: is unknown")),
        // As curl takes it.
        None => text,
    };
    if rest.contains(['?', '#']) {
        return Err(" has more than a path".into());
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(" has a user; a token is given by --token-file".into());
    }
    // It becomes part of a line of the request.
    if let Some(c) = path.chars().find(|c| !may_stand_in_a_path(*c)) {
        return Err(format!(": {c:?} cannot stand in a path; %XX can"));
    }
    Ok(Url {
        place: place(authority)?,
        authority: authority.into(),
        prefix: path.trim_end_matches('/').into(),
    })
}

/// Host and port of an authority.
fn place(authority: &str) -> Result<Place, String> {
    let (host, after) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or(": the [ is not closed")?;
            if address.parse::<Ipv6Addr>().is_err() {
                return Err(format!(": {address:?} is not an IPv6 address"));
            }
            (address, after)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    if host.is_empty() {
        return Err(" has no host".into());
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~');
    if !authority.starts_with('[') && !host.chars().all(is_name) {
        return Err(format!(": {host:?} is not a host's name"));
    }
    let port = match after.strip_prefix(':') {
        None if after.is_empty() => Some(80),
        // A number takes a sign, too.
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok(),
        _ => None,
    };
    let port = port.filter(|port| *port > 0);
    let port = port.ok_or_else(|| format!(": {after:?} is not a colon and a port"))?;
    Ok(Place::Tcp { host: host.into(), port })
}

/// A path's characters (RFC 3986, section 3.3).
fn may_stand_in_a_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/%-._~!$&'()*+,;=:@".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_what_to_connect_to_and_what_comes_before_the_topics() {
        let tcp = |host: &str, port| Place::Tcp { host: host.into(), port };
        let unix = |path: &str| Place::Unix(path.into());
        for (text, place, authority, prefix) in [
            ("http://a.example", tcp("a.example", 80), "a.example", ""),
            ("http://127.0.0.1:8080/", tcp("127.0.0.1", 8080), "127.0.0.1:8080", ""),
            ("localhost:8080", tcp("localhost", 8080), "localhost:8080", ""),
            ("http://[::1]", tcp("::1", 80), "[::1]", ""),
            ("http://[::1]:9/x/y/", tcp("::1", 9), "[::1]:9", "/x/y"),
            ("a_b/x@y/%2F", tcp("a_b", 80), "a_b", "/x@y/%2F"),
            ("http://a:65535//", tcp("a", 65535), "a:65535", ""),
            ("unix:/run/l.sock", unix("/run/l.sock"), "localhost", ""),
            ("unix:l.sock?#@ ", unix("l.sock?#@ "), "localhost", ""),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.place, &*url.authority, &*url.prefix), (place, authority, prefix));
        }
    }

    #[test]
    fn a_url_is_shown_as_it_was_meant() {
        for (text, shown) in [
            ("a:8080/x/", "http://a:8080/x"),
            ("http://[::1]:9", "http://[::1]:9"),
            ("unix:/run/l.sock", "unix:/run/l.sock"),
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_cannot_be_connected_to_is_refused_with_what_can() {
        for (text, why) in [
            ("", "no host"),
            ("http://", "no host"),
            ("unix:", "no path"),
            ("http://a b", "\"a b\" is not a host's name"),
            ("http://\u{e9}", "not a host's name"),
            ("http://a%20b", "not a host's name"),
            ("http://a\r\nX: y", "not a host's name"),
            ("http://a:99999", ":99999"),
            ("http://a:0", ":0"),
            ("http://a:+80", ":+80"),
            ("http://a:", "port"),
            ("http://:80", "no host"),
            ("http://[]", "not an IPv6 address"),
            ("http://[::1", "not closed"),
            ("http://[::1]8080", "port"),
            ("http://[::1]a:80", "port"),
            ("http://[1.2.3.4]", "not an IPv6 address"),
            ("http://[fe80::1%eth0]", "not an IPv6 address"),
            ("::1", "no host"),
            ("http://me:secret@a", "--token-file"),
            ("http://a/x?y=1", "more than a path"),
            ("http://a?x", "more than a path"),
            ("http://a/#x", "more than a path"),
            ("http://a/x y", "' ' cannot stand"),
            ("http://a/\r\nX: y", "'\\r' cannot stand"),
            ("http://a/\u{e9}", "cannot stand"),
            ("ftp://a", "ftp: is unknown"),
            ("https://a", "TLS belongs to a proxy"),
            ("https://[", "TLS belongs to a proxy"),
            ("/topics", "no host"),
            ("a:b:c", "port"),
        ] {
            let error = text.parse::<Url>().unwrap_err();
            assert!(error.contains(why) && error.ends_with(RULE), "{text}: {error}");
        }
    }
}
