//! Whose connection it is, and how many each may have.
//!
//! A client is an IPv4 address, or an IPv6 /64: that is what one subscriber gets, and could change
//! addresses within at will. Loopback and unix sockets are the host itself and are not counted.
//! Behind a proxy that `--trust-proxy` names, a connection is the proxy's; there each request
//! counts, for as long as it is being answered, for the client that the proxy names.
//!
//! *Locks.* The map of counts, held for a few instructions; nothing is locked under it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::{Config, TrustedProxies};
use crate::http::{HeaderName, RequestHead};
use crate::problem::{Cause, Problem};

/// Counts for each client.
#[derive(Clone)]
pub struct ClientLimiter(Arc<LimiterInner>);

struct LimiterInner {
    most: usize,
    proxies: TrustedProxies,
    /// Only those with a count; so there are never more than connections.
    counts: Mutex<HashMap<ClientAddress, usize>>,
}

/// Who is counted as one.
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

/// One more for a client; given back when dropped.
pub struct ClientPermit(Option<(ClientLimiter, ClientAddress)>);

impl ClientLimiter {
    #[must_use]
    pub fn new(config: &Config) -> ClientLimiter {
        let (most, proxies) = (config.max_connections_per_client(), config.trust_proxies.clone());
        ClientLimiter(Arc::new(LimiterInner { most, proxies, counts: Mutex::default() }))
    }

    /// Counts a connection.
    ///
    /// # Errors
    /// `429` when its client has as many as it may.
    pub fn connected(&self, peer: Option<SocketAddr>) -> Result<ClientPermit, Problem> {
        let peer = peer.map(|peer| peer.ip().to_canonical());
        if self.0.proxies.trusts(peer) {
            return Ok(ClientPermit(None));
        }
        self.take(peer)
    }

    /// Counts a request that came through a trusted proxy.
    ///
    /// # Errors
    /// `429` when its client has as many as it may.
    pub fn asked(
        &self,
        peer: Option<SocketAddr>,
        head: &RequestHead,
    ) -> Result<ClientPermit, Problem> {
        match self.forwarded(peer, head) {
            Some(client) => self.take(Some(client)),
            None => Ok(ClientPermit(None)),
        }
    }

    /// For whom a trusted proxy asks: the last address that it, or those behind it that are
    /// trusted too, saw. What stands before that may be anybody's invention.
    #[must_use]
    pub fn forwarded(&self, peer: Option<SocketAddr>, head: &RequestHead) -> Option<IpAddr> {
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
            // Whom nobody can name counts as the hop that said so.
            let Some(address) = address(hop.trim()) else { break };
            nearest = Some(address);
            if !self.0.proxies.trusts(nearest) {
                break;
            }
        }
        nearest
    }

    fn take(&self, address: Option<IpAddr>) -> Result<ClientPermit, Problem> {
        let Some(address) = address.filter(|address| !address.is_loopback()) else {
            return Ok(ClientPermit(None));
        };
        let client = ClientAddress::of(address);
        let mut counts = self.0.counts.lock();
        let count = counts.entry(client).or_default();
        if *count >= self.0.most {
            let most = self.0.most;
            let detail = format!(
                "this client has {most} connections, as many as one may (--max-connections-per-client)"
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
        let Some((clients, client)) = &self.0 else { return };
        let mut counts = clients.0.counts.lock();
        if let Some(count) = counts.get_mut(client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(client);
            }
        }
    }
}

/// An address as `X-Forwarded-For` has it: some proxies add the port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Method;

    fn clients(proxies: &[&str], most: &str) -> ClientLimiter {
        let mut args = vec!["--max-connections-per-client", most];
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
    fn a_client_has_so_many_connections_and_gets_them_back() {
        let clients = clients(&[], "2");
        let one = clients.connected(peer("203.0.113.1")).unwrap();
        let _two = clients.connected(peer("::ffff:203.0.113.1")).unwrap();
        assert!(clients.connected(peer("203.0.113.1")).is_err());
        assert!(clients.connected(peer("203.0.113.2")).is_ok());
        drop(one);
        assert!(clients.connected(peer("203.0.113.1")).is_ok());
        assert_eq!(clients.0.counts.lock().len(), 1, "who has none is forgotten");
    }

    #[test]
    fn a_slash_64_is_one_client_and_the_host_itself_is_none() {
        let clients = clients(&[], "1");
        let _one = clients.connected(peer("2001:db8:1:2:3::4")).unwrap();
        assert!(clients.connected(peer("2001:db8:1:2:ffff::")).is_err());
        assert!(clients.connected(peer("2001:db8:1:3::4")).is_ok());
        let host = [peer("127.0.0.1"), peer("::1"), peer("::ffff:127.0.0.9"), None];
        let many: Vec<_> =
            host.into_iter().cycle().take(100).map(|p| clients.connected(p)).collect();
        assert!(many.iter().all(Result::is_ok));
    }

    #[test]
    fn a_trusted_proxy_says_for_whom_it_asks_and_nobody_else_does() {
        let clients = clients(&["10.0.0.0/8", "127.0.0.1", "2001:db8::/32", "unix"], "1");
        let client = |from, forwarded: &[&str]| {
            clients.forwarded(from, &head(forwarded)).map(|client| client.to_string())
        };
        let is = |client: Option<String>, wanted: &str| assert_eq!(client.as_deref(), Some(wanted));
        is(client(peer("10.1.2.3"), &["198.51.100.7"]), "198.51.100.7");
        is(client(peer("127.0.0.1"), &["1.1.1.1, 198.51.100.7"]), "198.51.100.7");
        is(client(peer("127.0.0.1"), &["1.1.1.1", "198.51.100.7,10.9.9.9"]), "198.51.100.7");
        is(client(peer("::ffff:10.1.2.3"), &["198.51.100.7:1234"]), "198.51.100.7");
        is(client(peer("2001:db8::1"), &["[2a00::1]:80"]), "2a00::1");
        is(client(None, &["[2a00::1]"]), "2a00::1");
        // What cannot be read, or is not there, is the proxy's own doing.
        is(client(peer("10.1.2.3"), &["1.1.1.1, unknown"]), "10.1.2.3");
        is(client(peer("10.1.2.3"), &["1.1.1.1, nobody, 10.4.4.4"]), "10.4.4.4");
        is(client(peer("10.1.2.3"), &[]), "10.1.2.3");
        // Whoever is not trusted may write there what they like.
        assert_eq!(client(peer("203.0.113.1"), &["198.51.100.7"]), None);
        let _held = clients.asked(peer("10.1.2.3"), &head(&["198.51.100.7"])).unwrap();
        assert!(clients.asked(peer("10.1.2.3"), &head(&["198.51.100.7"])).is_err());
        assert!(clients.asked(peer("10.1.2.3"), &head(&["198.51.100.8"])).is_ok());
        assert!(clients.connected(peer("10.1.2.3")).is_ok() && clients.connected(None).is_ok());
    }
}
