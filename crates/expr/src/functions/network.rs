//! Functions of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Arguments, Outcome};
use crate::eval::Machine;
use crate::value::{Fetched, Value};

/// `cidr(ip, v4 bits, v6 bits)`: the network of an address.
pub fn cidr<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let address = address(machine, &mut arguments)?;
    let four = arguments.int(machine, 1)?;
    let six = arguments.int(machine, 2)?;
    Ok(Fetched::Value(Value::Ip(masked(address, four, six))))
}

/// `cidr6(ip, bits)`: as `cidr`, IPv4 addresses unchanged.
pub fn cidr6<'e>(machine: &mut Machine<'e, '_>, mut arguments: Arguments<'e>) -> Outcome<'e> {
    let address = address(machine, &mut arguments)?;
    let six = arguments.int(machine, 1)?;
    Ok(Fetched::Value(Value::Ip(masked(address, 32, six))))
}

fn address<'e>(machine: &mut Machine<'e, '_>, arguments: &mut Arguments<'e>) -> Result<IpAddr, Fetched<'e>> {
    match arguments.get(machine, 0) {
        Fetched::Value(Value::Ip(address)) => Ok(address),
        Fetched::Value(_) => Err(Fetched::Unknown),
        other => Err(other),
    }
}

/// An address with the bits after the prefix cleared; the checker saw to the prefixes.
pub(crate) fn masked(address: IpAddr, four: i64, six: i64) -> IpAddr {
    let host = |bits: i64, whole: i64| u32::try_from(whole - bits.clamp(0, whole)).unwrap_or(0);
    match address {
        IpAddr::V4(four_bytes) => {
            let mask = u32::MAX.checked_shl(host(four, 32)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(four_bytes.to_bits() & mask))
        }
        IpAddr::V6(six_bytes) => {
            let mask = u128::MAX.checked_shl(host(six, 128)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(six_bytes.to_bits() & mask))
        }
    }
}
