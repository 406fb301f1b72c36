//! Where a server is, as people write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ureq::http::Uri;

/// What a URL may be, as errors say it.
const RULE: &str = "allowed is http://HOST[:PORT][/PREFIX] or unix:/PATH";

/// A server's address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    pub(super) place: Place,
    /// What stands before `/topics` in each request's target.
    pub(super) base: String,
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
            Place::Tcp { .. } => f.write_str(&self.base),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(format!("{text:?} has no path; {RULE}"));
            }
            // The authority is what the Host field says; the connection goes to the socket.
            return Ok(Url { place: Place::Unix(path.into()), base: "http://localhost".into() });
        }
        let with_scheme = match text.split_once("://") {
            Some(("http", _)) => text.to_owned(),
            Some(("https", _)) => {
                return Err(format!(
                    "{text:?}: TLS belongs to a proxy and is not spoken here; {RULE}"
                ));
            }
            Some((scheme, _)) => return Err(format!("{text:?}: {scheme}: is unknown; {RULE}")),
            // As curl takes it.
            None => format!("http://{text}"),
        };
        let uri: Uri = with_scheme.parse().map_err(|e| format!("{text:?}: {e}; {RULE}"))?;
        let authority = uri.authority().ok_or_else(|| format!("{text:?} has no host; {RULE}"))?;
        if authority.as_str().contains('@') {
            return Err(format!("{text:?} has a user; a token is given by --token-file; {RULE}"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(format!("{text:?} has more than a path; {RULE}"));
        }
        let after = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = match after.strip_prefix(':') {
            None => Some(80),
            Some(port) => port.parse().ok(),
        };
        let port = port.filter(|_| !host.is_empty());
        let port = port.ok_or_else(|| format!("{text:?} has no host or no such port; {RULE}"))?;
        let prefix = uri.path().trim_end_matches('/');
        Ok(Url {
            place: Place::Tcp { host: host.into(), port },
            base: format!("http://{authority}{prefix}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_what_to_connect_to_and_what_comes_before_the_topics() {
        let tcp = |host: &str, port| Place::Tcp { host: host.into(), port };
        for (text, place, base) in [
            ("http://a.example", tcp("a.example", 80), "http://a.example"),
            ("http://127.0.0.1:8080/", tcp("127.0.0.1", 8080), "http://127.0.0.1:8080"),
            ("localhost:8080", tcp("localhost", 8080), "http://localhost:8080"),
            ("http://[::1]:9/x/y/", tcp("::1", 9), "http://[::1]:9/x/y"),
            ("unix:/run/l.sock", Place::Unix("/run/l.sock".into()), "http://localhost"),
            ("unix:l.sock", Place::Unix("l.sock".into()), "http://localhost"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.place, &*url.base), (place, base), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_connected_to_is_refused_with_what_can() {
        for text in [
            "",
            "http://",
            "unix:",
            "http://a b",
            "http://a:99999",
            "http://a:",
            "http://:80",
            "http://me:secret@a",
            "http://a/x?y=1",
            "http://a/#x",
            "ftp://a",
            "https://a",
            "/topics",
            "a:b:c",
        ] {
            let error = text.parse::<Url>().unwrap_err();
            assert!(error.contains("allowed is"), "{text}: {error}");
        }
        assert!("https://a".parse::<Url>().unwrap_err().contains("TLS belongs to a proxy"));
    }
}
