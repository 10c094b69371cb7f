//! PCI addresses: the one name of a function that no rename and no namespace changes.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// Domain, bus, device and function: `0000:03:00.2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl PciAddress {
    /// The function number: 0 to 7. Of a physical function it is the number that a card counts it by.
    #[must_use]
    pub fn function(&self) -> u32 {
        self.function.into()
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

impl FromStr for PciAddress {
    type Err = Error;

    /// Takes the full form alone, as sysfs has it; upper case is taken, too.
    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| Error::NotADevice { text: text.into() })
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (domain, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let address = PciAddress {
        domain: hex(domain, 4..=8)?,
        bus: hex(bus, 2..=2)?.try_into().ok()?,
        device: hex(device, 2..=2)?.try_into().ok()?,
        function: hex(function, 1..=1)?.try_into().ok()?,
    };
    (address.device < 32 && address.function < 8).then_some(address)
}

fn hex(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let plain = digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0000:01:10.2", "0000:01:10.2")]
    #[case("0000:AF:1F.7", "0000:af:1f.7")]
    #[case("10000:e1:00.0", "10000:e1:00.0")]
    fn an_address_is_said_as_sysfs_says_it(#[case] text: &str, #[case] said: &str) {
        assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), said);
    }

    #[rstest]
    #[case("")]
    #[case("01:10.2")]
    #[case("0000:01:10")]
    #[case("0000:01:20.0")]
    #[case("0000:01:10.8")]
    #[case("0000:01:10.00")]
    #[case("+000:01:10.0")]
    #[case("0000:01:10.0/..")]
    #[case("../0000:01:10.0")]
    #[case("0000:01:10.0\n")]
    fn anything_else_is_refused_by_name(#[case] text: &str) {
        let why = text.parse::<PciAddress>().unwrap_err().to_string();
        assert!(why.contains(text), "{why}");
    }

    proptest! {
        #[test]
        fn what_is_said_is_understood(domain: u32, bus: u8, device in 0u8..32, function in 0u8..8) {
            let address = PciAddress { domain, bus, device, function };
            prop_assert_eq!(address.to_string().parse::<PciAddress>().unwrap(), address);
        }
    }
}
