//! Client addresses: sets of prefixes, and the truncation that keeps a person out of a log line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Bits kept of an IPv4 address when it is truncated for logs (a /24 holds up to 254 households).
pub const TRUNCATED_IPV4_BITS: u8 = 24;
/// Bits kept of an IPv6 address when it is truncated for logs (a /48 is a customer site or larger).
pub const TRUNCATED_IPV6_BITS: u8 = 48;

/// Maps an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2) to the IPv4 address it stands for.
///
/// A dual-stack listener reports IPv4 peers in mapped form; comparing or logging them unmapped would miss every prefix.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Sets the host bits of an address to zero: /24 for IPv4, /48 for IPv6.
pub fn truncate(address: IpAddr) -> IpAddr {
    match canonical(address) {
        IpAddr::V4(v4) => {
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << (32 - TRUNCATED_IPV4_BITS))))
        }
        IpAddr::V6(v6) => {
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - TRUNCATED_IPV6_BITS))))
        }
    }
}

/// A set of address prefixes; asks "is this peer in it?". Small by nature (a handful of proxies), so a plain scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet(Vec<IpNet>);

impl PrefixSet {
    /// Builds the set; order does not matter and overlaps are harmless.
    pub fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        Self(prefixes.into_iter().collect())
    }

    /// True when the (canonical form of the) address lies in one of the prefixes.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        self.0.iter().any(|prefix| prefix.contains(&address))
    }

    /// The prefixes, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.0.iter()
    }

    /// True when no prefix is in the set, that is: nobody matches.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_keeps_the_network_only() {
        for (full, kept) in [
            ("203.0.113.77", "203.0.113.0"),
            ("::ffff:203.0.113.77", "203.0.113.0"),
            ("2001:db8:1234:5678::9", "2001:db8:1234::"),
        ] {
            assert_eq!(truncate(full.parse().unwrap()), kept.parse::<IpAddr>().unwrap(), "{full}");
        }
    }

    #[test]
    fn a_mapped_peer_is_found_under_its_ipv4_prefix() {
        let set = PrefixSet::new(["10.0.0.0/8".parse().unwrap()]);
        assert!(set.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!set.contains("11.1.2.3".parse().unwrap()));
        assert!(!PrefixSet::default().contains("10.1.2.3".parse().unwrap()), "an empty set holds nobody");
    }
}
