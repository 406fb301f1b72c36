//! The proxies whose `X-Forwarded-For` is trusted.
//!
//! Any client can send `X-Forwarded-For`. It counts only from the peers listed here; otherwise a
//! client could choose on whose account its connections are counted.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

/// The addresses, networks and `unix` of `--trust-proxy`.
#[derive(Clone, Default, Debug)]
pub struct TrustedProxies {
    networks: Vec<Ipv6Net>,
    unix: bool,
}

/// The syntax of a proxy, for error texts.
const PROXY_RULE: &str = "expected an IP address, a network such as 10.0.0.0/8, or unix";

impl TrustedProxies {
    /// Adds an address, a network, or `unix` for all peers on unix sockets.
    ///
    /// # Errors
    /// Says what is expected.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        if text == "unix" {
            self.unix = true;
            return Ok(());
        }
        let address = || text.parse().map(|address: IpAddr| IpNet::from(address));
        let network = text.parse().or_else(|_| address()).map_err(|_| PROXY_RULE)?;
        self.networks.push(match network {
            IpNet::V6(network) => network,
            // As mapped IPv6 addresses, so that ::/0 includes IPv4.
            IpNet::V4(network) => {
                Ipv6Net::new(network.addr().to_ipv6_mapped(), 96 + network.prefix_len())
                    .map_err(|_| PROXY_RULE)?
            }
        });
        Ok(())
    }

    /// Whether a peer is trusted; `None` is a peer on a unix socket.
    #[must_use]
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        let address = match peer {
            None => return self.unix,
            Some(IpAddr::V4(address)) => address.to_ipv6_mapped(),
            Some(IpAddr::V6(address)) => address,
        };
        self.networks.iter().any(|network| network.contains(&address))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    pub(super) fn clear(&mut self) {
        *self = TrustedProxies::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_contains_its_addresses_and_no_others() {
        let trusts = |network: &str, peer: &str| {
            let mut proxies = TrustedProxies::default();
            proxies.add(network).unwrap();
            proxies.trusts(Some(peer.parse().unwrap()))
        };
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("192.168.1.77/31", "192.168.1.76", "192.168.1.78"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.0.0.0"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
        ] {
            assert!(trusts(network, inside), "{network} {inside}");
            assert!(!trusts(network, outside), "{network} {outside}");
        }
        assert!(trusts("::/0", "2001:db8::1") && trusts("::/0", "203.0.113.9"));
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "host", "10.0.0.0/", "10.0.0.0/+8"] {
            assert!(TrustedProxies::default().add(bad).is_err(), "{bad}");
        }
    }
}
