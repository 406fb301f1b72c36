//! Which peers are proxies that say truly for whom they ask.
//!
//! Anybody can send `X-Forwarded-For`. It is believed from those who are named here, and from
//! nobody else; otherwise a client could choose whose share it uses up.

use std::net::IpAddr;

use super::units::whole;

/// Addresses, networks, or `unix`: as `--trust-proxy` names them.
#[derive(Clone, Default, Debug)]
pub struct TrustedProxies(Vec<Proxy>);

#[derive(Clone, Debug)]
enum Proxy {
    Unix,
    Network { base: u128, bits: u32 },
}

/// What a proxy may be named by, as errors say it.
const RULE: &str = "allowed is an IP address, a network such as 10.0.0.0/8, or unix";

/// IPv4 addresses as IPv6 has them, so that one comparison does for both.
fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl TrustedProxies {
    /// Adds one.
    ///
    /// # Errors
    /// Says what is allowed.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        if text == "unix" {
            self.0.push(Proxy::Unix);
            return Ok(());
        }
        let (base, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let base: IpAddr = base.parse().map_err(|_| RULE)?;
        let most: u64 = if base.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most as u32,
            Some(bits) => whole(bits).filter(|bits| *bits <= most).ok_or(RULE)? as u32,
        };
        self.0.push(Proxy::Network { base: mapped(base), bits: 128 - most as u32 + bits });
        Ok(())
    }

    /// Whether a peer, without an address on a unix socket, is one of them.
    #[must_use]
    pub fn trust(&self, peer: Option<IpAddr>) -> bool {
        self.0.iter().any(|proxy| match (proxy, peer) {
            (Proxy::Unix, None) => true,
            (Proxy::Network { base, bits }, Some(peer)) => {
                let differ = base ^ mapped(peer);
                *bits == 0 || differ >> (128 - bits) == 0
            }
            _ => false,
        })
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let trusts = |network: &str, peer: &str| {
            let mut proxies = TrustedProxies::default();
            proxies.add(network).unwrap();
            proxies.trust(Some(peer.parse().unwrap()))
        };
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("192.168.1.77/31", "192.168.1.76", "192.168.1.78"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("::/0", "2001:db8::1", "2001:db8::1"),
        ] {
            assert!(trusts(network, inside), "{network} {inside}");
            assert!(inside == outside || !trusts(network, outside), "{network} {outside}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "host", "10.0.0.0/", "10.0.0.0/+8"] {
            assert!(TrustedProxies::default().add(bad).is_err(), "{bad}");
        }
    }
}
