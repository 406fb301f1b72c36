//! The limit of connections for each client.
//!
//! A client is an IPv4 address or an IPv6 /64: a subscriber gets a whole /64 and can change
//! addresses within it at will. Loopback and unix sockets are the host itself and are not counted.
//! A connection from a proxy of `--trust-proxy` is not counted either; instead each of its requests
//! counts, until it is answered, for the client that the proxy names.
//!
//! *Locks.* The map of counts, for a few instructions; no other lock is taken under it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::{Config, TrustedProxies};
use crate::http::{HeaderName, RequestHead};
use crate::problem::{Cause, Problem};
use crate::sync::Mutex;

/// Counts the connections and requests of each client. Clones share the counts.
#[derive(Clone)]
pub struct ClientLimiter(Arc<LimiterInner>);

struct LimiterInner {
    max_per_client: usize,
    proxies: TrustedProxies,
    /// Only clients with a count above 0, so never more entries than connections.
    counts: Mutex<HashMap<ClientAddress, usize>>,
}

/// The address, or the prefix of it, that identifies a client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct ClientAddress(IpAddr);

impl ClientAddress {
    fn of(address: IpAddr) -> ClientAddress {
        ClientAddress(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (!0 << 64)).into()),
        })
    }
}

/// One connection or request of a client, counted until dropped. `None` is not counted.
pub struct ClientPermit(Option<(ClientLimiter, ClientAddress)>);

impl ClientLimiter {
    #[must_use]
    pub fn new(config: &Config) -> ClientLimiter {
        ClientLimiter(Arc::new(LimiterInner {
            max_per_client: config.max_connections_per_client(),
            proxies: config.trust_proxies.clone(),
            counts: Mutex::default(),
        }))
    }

    /// Counts a connection, unless it is from a trusted proxy.
    ///
    /// # Errors
    /// `429` when the client is at its limit.
    pub fn admit_connection(&self, peer: Option<SocketAddr>) -> Result<ClientPermit, Problem> {
        let peer = peer.map(|peer| peer.ip().to_canonical());
        if self.0.proxies.trusts(peer) {
            return Ok(ClientPermit(None));
        }
        self.acquire(peer)
    }

    /// Counts a request, if it is from a trusted proxy.
    ///
    /// # Errors
    /// `429` when the client is at its limit.
    pub fn admit_request(
        &self,
        peer: Option<SocketAddr>,
        head: &RequestHead,
    ) -> Result<ClientPermit, Problem> {
        match self.forwarded_client(peer, head) {
            Some(client) => self.acquire(Some(client)),
            None => Ok(ClientPermit(None)),
        }
    }

    /// The client for which a trusted proxy sends a request: the last address in `X-Forwarded-For`
    /// that is not a trusted proxy itself. The addresses before it can be forged.
    #[must_use]
    pub fn forwarded_client(&self, peer: Option<SocketAddr>, head: &RequestHead) -> Option<IpAddr> {
        if self.0.proxies.is_empty() {
            return None;
        }
        let peer = peer.map(|peer| peer.ip().to_canonical());
        if !self.0.proxies.trusts(peer) {
            return None;
        }
        let fields: Vec<&str> = head.get_all(HeaderName::XForwardedFor).collect();
        let hops = fields.iter().rev().flat_map(|field| field.rsplit(','));
        let mut nearest = peer;
        for hop in hops {
            // An unreadable entry counts as the proxy that added it.
            let Some(address) = parse_address(hop.trim()) else { break };
            nearest = Some(address);
            if !self.0.proxies.trusts(nearest) {
                break;
            }
        }
        nearest
    }

    fn acquire(&self, address: Option<IpAddr>) -> Result<ClientPermit, Problem> {
        let Some(address) = address.filter(|address| !address.is_loopback()) else {
            return Ok(ClientPermit(None));
        };
        let client = ClientAddress::of(address);
        let mut counts = self.0.counts.lock();
        let count = counts.entry(client).or_default();
        if *count >= self.0.max_per_client {
            let detail = format!(
                "this client has {count} connections; expected at most {} \
                 (--max-connections-per-client)",
                self.0.max_per_client
            );
            return Err(Problem::new(Cause::ClientCap, detail));
        }
        *count += 1;
        drop(counts);
        Ok(ClientPermit(Some((self.clone(), client))))
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let Some((limiter, client)) = &self.0 else { return };
        let mut counts = limiter.0.counts.lock();
        if let Some(count) = counts.get_mut(client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(client);
            }
        }
    }
}

/// Parses an entry of `X-Forwarded-For`. Some proxies add the port.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Method;

    fn limiter(proxies: &[&str], max: &str) -> ClientLimiter {
        let mut args = vec!["--max-connections-per-client", max];
        args.extend(proxies.iter().flat_map(|proxy| ["--trust-proxy", proxy]));
        let args = args.into_iter().map(Into::into);
        match crate::config::parse(args, |_| None).unwrap() {
            crate::config::Command::Serve(config) => ClientLimiter::new(&config),
            _ => unreachable!(),
        }
    }

    fn head(forwarded: &[&str]) -> RequestHead {
        let mut head = RequestHead::new(Method::Get, "/", "");
        for hops in forwarded {
            head.append(HeaderName::XForwardedFor, hops);
        }
        head
    }

    fn peer(text: &str) -> Option<SocketAddr> {
        text.parse().ok().map(|ip| SocketAddr::new(ip, 4711))
    }

    #[test]
    fn dropped_connections_are_no_longer_counted() {
        let limiter = limiter(&[], "2");
        let one = limiter.admit_connection(peer("203.0.113.1")).unwrap();
        let _two = limiter.admit_connection(peer("::ffff:203.0.113.1")).unwrap();
        assert!(limiter.admit_connection(peer("203.0.113.1")).is_err());
        assert!(limiter.admit_connection(peer("203.0.113.2")).is_ok());
        drop(one);
        assert!(limiter.admit_connection(peer("203.0.113.1")).is_ok());
        assert_eq!(limiter.0.counts.lock().len(), 1, "a client without connections has no entry");
    }

    #[test]
    fn ipv6_clients_are_counted_by_64_bit_prefix_and_the_host_itself_not_at_all() {
        let limiter = limiter(&[], "1");
        let _one = limiter.admit_connection(peer("2001:db8:1:2:3::4")).unwrap();
        assert!(limiter.admit_connection(peer("2001:db8:1:2:ffff::")).is_err());
        assert!(limiter.admit_connection(peer("2001:db8:1:3::4")).is_ok());
        let host = [peer("127.0.0.1"), peer("::1"), peer("::ffff:127.0.0.9"), None];
        let many: Vec<_> =
            host.into_iter().cycle().take(100).map(|p| limiter.admit_connection(p)).collect();
        assert!(many.iter().all(Result::is_ok));
    }

    #[test]
    fn only_a_trusted_proxy_names_the_client() {
        let limiter = limiter(&["10.0.0.0/8", "127.0.0.1", "2001:db8::/32", "unix"], "1");
        let client = |from, forwarded: &[&str]| {
            limiter.forwarded_client(from, &head(forwarded)).map(|client| client.to_string())
        };
        let is = |client: Option<String>, wanted: &str| assert_eq!(client.as_deref(), Some(wanted));
        is(client(peer("10.1.2.3"), &["198.51.100.7"]), "198.51.100.7");
        is(client(peer("127.0.0.1"), &["1.1.1.1, 198.51.100.7"]), "198.51.100.7");
        is(client(peer("127.0.0.1"), &["1.1.1.1", "198.51.100.7,10.9.9.9"]), "198.51.100.7");
        is(client(peer("::ffff:10.1.2.3"), &["198.51.100.7:1234"]), "198.51.100.7");
        is(client(peer("2001:db8::1"), &["[2a00::1]:80"]), "2a00::1");
        is(client(None, &["[2a00::1]"]), "2a00::1");
        // An unreadable or missing entry counts as the proxy.
        is(client(peer("10.1.2.3"), &["1.1.1.1, unknown"]), "10.1.2.3");
        is(client(peer("10.1.2.3"), &["1.1.1.1, nobody, 10.4.4.4"]), "10.4.4.4");
        is(client(peer("10.1.2.3"), &[]), "10.1.2.3");
        // The header of an untrusted peer is ignored.
        assert_eq!(client(peer("203.0.113.1"), &["198.51.100.7"]), None);
        let _held = limiter.admit_request(peer("10.1.2.3"), &head(&["198.51.100.7"])).unwrap();
        assert!(limiter.admit_request(peer("10.1.2.3"), &head(&["198.51.100.7"])).is_err());
        assert!(limiter.admit_request(peer("10.1.2.3"), &head(&["198.51.100.8"])).is_ok());
        assert!(
            limiter.admit_connection(peer("10.1.2.3")).is_ok()
                && limiter.admit_connection(None).is_ok()
        );
    }
}
