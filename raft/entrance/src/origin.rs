//! Where connections are counted as coming from: [`Origin`].

use std::net::{IpAddr, Ipv6Addr};

/// A remote address as far as it costs something to have another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin(IpAddr);

/// A single host is usually given this much of IPv6 to choose its addresses from.
const HOST_MASK: u128 = !(u64::MAX as u128);

impl Origin {
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & HOST_MASK)),
            canonical => canonical,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_host_are_one_origin() {
        let same = |a: &str, b: &str| Origin::of(a.parse().unwrap()) == Origin::of(b.parse().unwrap());
        assert!(same("10.0.0.1", "::ffff:10.0.0.1"));
        assert!(same("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
    }
}
