//! The URL of a server, as a user types it.
//!
//! Every mistake in it is reported before anything is sent. `https:` is refused too: a client that
//! silently continued without TLS would expose its token to every host on the path.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

/// The accepted forms, as error texts state them.
const RULE: &str = "expected http://HOST[:PORT][/PREFIX] or unix:/PATH";

/// The URL of a server: where to connect, and what each request says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    pub(super) address: ServerAddress,
    /// The value of the `Host` header field.
    pub(super) authority: String,
    /// The path before `/topics` in each request target.
    pub(super) prefix: String,
}

/// The socket address to connect to; a host name is resolved for each connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ServerAddress {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            ServerAddress::Tcp { .. } => write!(f, "http://{}{}", self.authority, self.prefix),
            ServerAddress::Unix(path) => write!(f, "unix:{}", path.display()),
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
        // The path of the socket decides the connection; HTTP/1.1 still requires a Host field.
        let (authority, prefix) = ("localhost".into(), String::new());
        return Ok(Url { address: ServerAddress::Unix(path.into()), authority, prefix });
    }
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => {
            return Err(": TLS belongs to a proxy, use the http: URL of the server".into());
        }
        Some((scheme, _)) => return Err(format!(": the scheme {scheme}: is unknown")),
        // curl accepts a URL without a scheme, too.
        None => text,
    };
    if rest.contains(['?', '#']) {
        return Err(" has more than a path".into());
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(" has a user name; use --token-file for a token".into());
    }
    // The path becomes part of the request line.
    if let Some(c) = path.chars().find(|c| !is_path_char(*c)) {
        return Err(format!(": {c:?} is not allowed in a path, encode it as %XX"));
    }
    Ok(Url {
        address: parse_authority(authority)?,
        authority: authority.into(),
        prefix: path.trim_end_matches('/').into(),
    })
}

/// Parses the host and the port of an authority.
fn parse_authority(authority: &str) -> Result<ServerAddress, String> {
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
        return Err(format!(": {host:?} is not a host name"));
    }
    let port = match after.strip_prefix(':') {
        None if after.is_empty() => Some(80),
        // `parse` alone would accept a sign.
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok(),
        _ => None,
    };
    let port = port.filter(|port| *port > 0);
    let port = port.ok_or_else(|| format!(": {after:?} is not a colon and a port number"))?;
    Ok(ServerAddress::Tcp { host: host.into(), port })
}

/// The characters of a path (RFC 3986, section 3.3).
fn is_path_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/%-._~!$&'()*+,;=:@".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_yields_the_address_the_host_field_and_the_path_prefix() {
        let tcp = |host: &str, port| ServerAddress::Tcp { host: host.into(), port };
        let unix = |path: &str| ServerAddress::Unix(path.into());
        for (text, address, authority, prefix) in [
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
            assert_eq!((url.address, &*url.authority, &*url.prefix), (address, authority, prefix));
        }
    }

    #[test]
    fn a_url_is_displayed_in_full() {
        for (text, displayed) in [
            ("a:8080/x/", "http://a:8080/x"),
            ("http://[::1]:9", "http://[::1]:9"),
            ("unix:/run/l.sock", "unix:/run/l.sock"),
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), displayed);
        }
    }

    #[test]
    fn invalid_urls_are_refused_with_a_reason_and_the_accepted_forms() {
        for (text, why) in [
            ("", "no host"),
            ("http://", "no host"),
            ("unix:", "no path"),
            ("http://a b", "\"a b\" is not a host name"),
            ("http://\u{e9}", "not a host name"),
            ("http://a%20b", "not a host name"),
            ("http://a\r\nX: y", "not a host name"),
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
            ("http://a/x y", "' ' is not allowed"),
            ("http://a/\r\nX: y", "'\\r' is not allowed"),
            ("http://a/\u{e9}", "is not allowed"),
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
