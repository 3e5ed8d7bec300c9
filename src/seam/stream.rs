//! Names of streams: what stands for a TCP connection where everybody else has an address.
//!
//! Corridor and control room know packets by addresses. So that they need not know of streams, a stream gets an
//! address of the discard prefix (RFC 6666), where nobody can live; `io` sends what goes there on the stream. Such
//! an address never leaves this host: it is no candidate, and nobody is told of it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// 100::/64.
const PREFIX: u64 = 0x0100_0000_0000_0000;

/// The address of stream `number`.
pub const fn address(number: u64) -> SocketAddr {
    let bits = (PREFIX as u128) << 64 | number as u128;
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(bits)), 1)
}

/// The stream behind an address, if it is one's.
pub const fn number(address: SocketAddr) -> Option<u64> {
    let SocketAddr::V6(address) = address else { return None };
    let bits = address.ip().to_bits();
    if (bits >> 64) as u64 == PREFIX { Some(bits as u64) } else { None }
}

/// Whether packets to or from there travel on a stream.
pub const fn is_stream(address: SocketAddr) -> bool {
    number(address).is_some()
}

/// As which others may be told of `address`: a stream is seen nowhere.
pub const fn public(address: SocketAddr) -> SocketAddr {
    if is_stream(address) { SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0) } else { address }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_found_again_by_its_address_and_no_host_is_taken_for_one() {
        for stream in [0, 7, u64::MAX] {
            assert_eq!(number(address(stream)), Some(stream));
        }
        assert_eq!(address(7).to_string(), "[100::7]:1");
        for text in ["192.0.2.1:7777", "[2001:db8::7]:1", "[::]:0", "[101::7]:1", "[100:0:0:1::7]:1"] {
            let address = text.parse().expect("an address");
            assert!(!is_stream(address) && public(address) == address, "{text}");
        }
        assert_eq!(public(address(7)).to_string(), "[::]:0");
    }
}
