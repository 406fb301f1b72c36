//! The request target in each of its four forms (RFC 9112, section 3.2), and the host of a request.
//!
//! The host is decided once, by the rules that also bind a front proxy: the guard against DNS
//! rebinding (see [`crate::access`]) is worth nothing if the two can be made to differ.

use std::net::Ipv6Addr;

use crate::http::{HeaderName, Method, RequestHead, split_port};
use crate::problem::{Cause, Problem};

/// The parts of a request target.
pub struct RequestTarget<'a> {
    /// A path, or the asterisk of `OPTIONS *`.
    pub path: &'a str,
    /// The part after the question mark.
    pub query: &'a str,
    /// Host and port, if the target names them.
    pub authority: Option<&'a str>,
}

impl<'a> RequestTarget<'a> {
    pub fn read(method: &Method, target: &'a str) -> Result<RequestTarget<'a>, Problem> {
        if *method == Method::Connect {
            // CONNECT asks for a tunnel, with any target: no resource of this server allows it.
            let detail = "this server is no proxy and does not support CONNECT";
            return Err(Problem::new(Cause::MethodNotAllowed, detail)
                .with_header("Allow", "GET, HEAD, POST, DELETE, OPTIONS"));
        }
        if target.as_bytes().contains(&b'#') {
            return Err(Problem::malformed(
                "the request target has a fragment, which belongs to the client alone",
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
            // The last proxy on the way would send an asterisk (RFC 9112, section 3.2.4).
            "" if origin.is_empty() && *method == Method::Options => "*",
            "" => "/",
            _ => path,
        };
        Ok(RequestTarget { path, query, authority })
    }
}

/// The target without this scheme, in upper or lower case.
fn strip_scheme<'a>(target: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = target.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn no_target(target: &str) -> Problem {
    Problem::malformed(if target == "*" {
        "request target * is allowed for OPTIONS only".into()
    } else if strip_scheme(target, "https://").is_some() {
        // RFC 9110, section 7.4: https must not be served over a connection without TLS.
        format!("request target {target:?}: https needs TLS, and the server speaks plain HTTP")
    } else {
        format!("request target {target:?} does not begin with /")
    })
}

/// Leaves one host in the head: that of the target if it names one, even if the header field
/// differs (RFC 9112, section 3.2.2).
///
/// # Errors
/// `400` if the field is repeated, missing although required, or malformed.
pub fn settle_host(
    head: &mut RequestHead,
    authority: Option<&str>,
    is_required: bool,
) -> Result<(), Problem> {
    let first_two = {
        let mut hosts = head.get_all(HeaderName::Host);
        (hosts.next(), hosts.next())
    };
    match first_two {
        (_, Some(_)) => {
            return Err(Problem::malformed("header Host is repeated; expected exactly one"));
        }
        (Some(host), None) => check_host("header Host", host)?,
        (None, None) if is_required => {
            return Err(Problem::malformed(
                "header Host is missing; HTTP/1.1 requires exactly one",
            ));
        }
        (None, None) => {}
    }
    if let Some(authority) = authority {
        check_host("the request target's host", authority)?;
        head.insert(HeaderName::Host, authority);
    }
    Ok(())
}

/// Checks the syntax of a host with an optional port. Whether this server serves that host is for
/// [`crate::access`] to decide.
fn check_host(source: &str, text: &str) -> Result<(), Problem> {
    let plain = text.bytes().position(|b| !PLAIN[usize::from(b)]).unwrap_or(text.len());
    if plain == text.len() && plain > 0 {
        return Ok(());
    }
    let (host, port) = split_port(text);
    let host_is_valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => plain == host.len() && plain > 0 || is_name(host),
    };
    // A port may be empty (RFC 3986, section 3.2.3).
    let port = port.unwrap_or_default();
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port_is_valid = digits && (port.len() < 5 || port.parse::<u16>().is_ok());
    if host_is_valid && port_is_valid {
        return Ok(());
    }
    Err(Problem::malformed(format!(
        "{source} is {text:?}; expected a name or an address, optionally with a colon and a port"
    )))
}

/// The bytes of a name that are not percent-encoded.
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
    let is_plain = |text: &str| text.bytes().all(|b| PLAIN[usize::from(b)]);
    let mut parts = host.split('%');
    let first_is_plain = parts.next().is_some_and(is_plain);
    !host.is_empty() && first_is_plain && parts.all(|part| encoded(part) && is_plain(&part[2..]))
}
