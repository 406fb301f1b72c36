//! What a request is aimed at: its target in each of the four forms (RFC 9112, section 3.2), and
//! its host.
//!
//! Which host is meant is decided once and the same way as a front proxy has to, because the guard
//! against DNS rebinding (see [`crate::access`]) is worth nothing if the two can be made to differ.

use std::net::Ipv6Addr;

use crate::http::{HeaderName, Method, RequestHead, split_port};
use crate::problem::{Cause, Problem};

/// A request target, taken apart.
pub struct RequestTarget<'a> {
    /// A path, or the asterisk of `OPTIONS *`.
    pub path: &'a str,
    /// Whatever follows the question mark.
    pub query: &'a str,
    /// Host and port, when the target names them.
    pub authority: Option<&'a str>,
}

impl<'a> RequestTarget<'a> {
    pub fn read(method: &Method, target: &'a str) -> Result<RequestTarget<'a>, Problem> {
        if *method == Method::Connect {
            // Whatever it names, it asks for a tunnel: no resource of this server allows that.
            let detail = "this server is no proxy and does not take CONNECT";
            return Err(Problem::new(Cause::MethodNotAllowed, detail)
                .with_header("Allow", "GET, HEAD, POST, DELETE, OPTIONS"));
        }
        if target.as_bytes().contains(&b'#') {
            return Err(Problem::malformed(
                "the request target has a fragment; that stays in the client",
            ));
        }
        let (authority, origin) = if target.starts_with('/') {
            (None, target)
        } else if let Some(rest) = strip_scheme(target, "http://") {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        } else if target == "*" && *method == Method::Options {
            (None, target)
        } else {
            return Err(no_target(target));
        };
        let (path, query) = match origin.bytes().position(|byte| byte == b'?') {
            Some(at) => (&origin[..at], &origin[at + 1..]),
            None => (origin, ""),
        };
        let path = match path {
            // What the last proxy would make of it (RFC 9112, section 3.2.4).
            "" if origin.is_empty() && *method == Method::Options => "*",
            "" => "/",
            _ => path,
        };
        Ok(RequestTarget { path, query, authority })
    }
}

/// What follows the scheme, in which case does not matter.
fn strip_scheme<'a>(target: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = target.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn no_target(target: &str) -> Problem {
    Problem::malformed(if target == "*" {
        "request target * is for OPTIONS alone".into()
    } else if strip_scheme(target, "https://").is_some() {
        // RFC 9110, section 7.4: not to be served over a connection that is not secured.
        format!("request target {target:?}: https needs TLS, and the server speaks plain HTTP")
    } else {
        format!("request target {target:?} does not begin with /")
    })
}

/// Leaves the one host that counts in the head: that of the target, if it names one, whatever
/// the field says (RFC 9112, section 3.2.2).
pub fn settle_host(
    head: &mut RequestHead,
    authority: Option<&str>,
    must_be_there: bool,
) -> Result<(), Problem> {
    let first_two = {
        let mut hosts = head.get_all(HeaderName::Host);
        (hosts.next(), hosts.next())
    };
    match first_two {
        (_, Some(_)) => {
            return Err(Problem::malformed("header Host is repeated; it may come once"));
        }
        (Some(host), None) => check_host("header Host", host)?,
        (None, None) if must_be_there => {
            return Err(Problem::malformed("header Host is missing; HTTP/1.1 needs it once"));
        }
        (None, None) => {}
    }
    if let Some(authority) = authority {
        check_host("the request target's host", authority)?;
        head.insert(HeaderName::Host, authority);
    }
    Ok(())
}

/// Whether this is a host and perhaps a port. Not whether it is one of this server's: that is the
/// api's to say.
fn check_host(whose: &str, text: &str) -> Result<(), Problem> {
    let plain = text.bytes().position(|b| !PLAIN[usize::from(b)]).unwrap_or(text.len());
    if plain == text.len() && plain > 0 {
        return Ok(());
    }
    let (host, port) = split_port(text);
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => plain == host.len() && plain > 0 || is_name(host),
    };
    // It may be empty (RFC 3986, section 3.2.3).
    let port = port.unwrap_or_default();
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port_fits = digits && (port.len() < 5 || port.parse::<u16>().is_ok());
    if host_fits && port_fits {
        return Ok(());
    }
    Err(Problem::malformed(format!(
        "{whose} is {text:?}; right is a name or an address, and perhaps a colon and a port"
    )))
}

/// The bytes of a name that mean themselves.
const PLAIN: [bool; 256] = {
    let (mut plain, mut byte) = ([false; 256], 0);
    while byte < 256 {
        let marks = matches!(byte as u8, b'!' | b'$' | b'&'..=b'.' | b';' | b'=' | b'_' | b'~');
        plain[byte] = marks || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    plain
};

/// A registered name or an IPv4 address (RFC 3986, section 3.2.2), not empty (RFC 9110, section
/// 4.2.1).
fn is_name(host: &str) -> bool {
    let encoded = |part: &str| {
        let digits = part.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let fits = |text: &str| text.bytes().all(|b| PLAIN[usize::from(b)]);
    let mut parts = host.split('%');
    let first_fits = parts.next().is_some_and(fits);
    !host.is_empty() && first_fits && parts.all(|part| encoded(part) && fits(&part[2..]))
}
