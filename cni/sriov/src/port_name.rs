//! Names of a switch's ports, as the kernel makes them (`phys_port_name`; net/core/devlink.c).

use std::fmt;
use std::str::FromStr;

/// Which port of its switch a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortName {
    /// A port with a cable: `p0`; one part of a split one: `p0s1`; on a line card: `l1p0`.
    Uplink {
        /// Line card.
        line_card: Option<u32>,
        /// Number of the port.
        port: u32,
        /// Part of it.
        part: Option<u32>,
    },
    /// The representor of a function.
    Function {
        /// Which host it is on, if not on the one that sees this port: `c1`.
        controller: Option<u32>,
        /// Number of the physical function: `pf0`.
        physical: u32,
        /// Which function of the physical one.
        of: Part,
    },
}

/// Which function of a physical one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Itself.
    Whole,
    /// A virtual function: `vf3`.
    Virtual(u32),
    /// A subfunction: `sf7`.
    Sub(u32),
}

/// The text is no name that the kernel gives to an uplink or a representor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a switch's port, such as p0 or c1pf0vf3")]
pub struct NotAPortName(pub String);

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut word = |letters: &str, number: Option<u32>| match number {
            Some(number) => write!(f, "{letters}{number}"),
            None => Ok(()),
        };
        match *self {
            Self::Uplink {
                line_card,
                port,
                part,
            } => {
                word("l", line_card)?;
                word("p", Some(port))?;
                word("s", part)
            }
            Self::Function {
                controller,
                physical,
                of,
            } => {
                word("c", controller)?;
                word("pf", Some(physical))?;
                match of {
                    Part::Whole => Ok(()),
                    Part::Virtual(number) => word("vf", Some(number)),
                    Part::Sub(number) => word("sf", Some(number)),
                }
            }
        }
    }
}

impl FromStr for PortName {
    type Err = NotAPortName;

    fn from_str(text: &str) -> Result<Self, NotAPortName> {
        let mut rest = text;
        let name = function(&mut rest).or_else(|| {
            rest = text;
            uplink(&mut rest)
        });
        name.filter(|_| rest.is_empty())
            .ok_or_else(|| NotAPortName(text.into()))
    }
}

fn function(rest: &mut &str) -> Option<PortName> {
    let controller = word(rest, "c");
    let physical = word(rest, "pf")?;
    let of = match (word(rest, "vf"), word(rest, "sf")) {
        (Some(number), None) => Part::Virtual(number),
        (None, Some(number)) => Part::Sub(number),
        (None, None) => Part::Whole,
        (Some(_), Some(_)) => return None,
    };
    Some(PortName::Function {
        controller,
        physical,
        of,
    })
}

fn uplink(rest: &mut &str) -> Option<PortName> {
    Some(PortName::Uplink {
        line_card: word(rest, "l"),
        port: word(rest, "p")?,
        part: word(rest, "s"),
    })
}

/// Takes letters and a number off the front, if they are there. The kernel writes no zero before a number.
fn word(rest: &mut &str, letters: &str) -> Option<u32> {
    let after = rest.strip_prefix(letters)?;
    let end = after
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(after.len());
    let (digits, after) = after.split_at(end);
    if digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    let number = digits.parse().ok()?;
    *rest = after;
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn of(controller: Option<u32>, physical: u32, of: Part) -> PortName {
        PortName::Function {
            controller,
            physical,
            of,
        }
    }

    fn cable(line_card: Option<u32>, port: u32, part: Option<u32>) -> PortName {
        PortName::Uplink {
            line_card,
            port,
            part,
        }
    }

    #[rstest]
    #[case("p0", cable(None, 0, None))]
    #[case("p12s3", cable(None, 12, Some(3)))]
    #[case("l1p2", cable(Some(1), 2, None))]
    #[case("pf0", of(None, 0, Part::Whole))]
    #[case("c1pf0", of(Some(1), 0, Part::Whole))]
    #[case("pf0vf1", of(None, 0, Part::Virtual(1)))]
    #[case("c1pf0vf3", of(Some(1), 0, Part::Virtual(3)))]
    #[case("c2pf1vf127", of(Some(2), 1, Part::Virtual(127)))]
    #[case("pf0sf7", of(None, 0, Part::Sub(7)))]
    #[case("c1pf1sf88", of(Some(1), 1, Part::Sub(88)))]
    fn names_that_the_kernel_gives(#[case] text: &str, #[case] name: PortName) {
        assert_eq!(text.parse(), Ok(name));
        assert_eq!(name.to_string(), text);
    }

    #[rstest]
    #[case("")]
    #[case("p")]
    #[case("0")]
    #[case("eth0")]
    #[case("P0")]
    #[case("p00")]
    #[case("p0s")]
    #[case("p0 ")]
    #[case("p-1")]
    #[case("p4294967296")]
    #[case("pf")]
    #[case("pfvf1")]
    #[case("pf0vf")]
    #[case("pf0vf01")]
    #[case("pf0vf1x")]
    #[case("pf0vf1sf2")]
    #[case("pf0sf2vf1")]
    #[case("pf0vf1rep")]
    #[case("vf1")]
    #[case("c1")]
    #[case("c1p0")]
    #[case("cpf0vf1")]
    #[case("l1")]
    fn anything_else_is_none(#[case] text: &str) {
        assert_eq!(text.parse::<PortName>(), Err(NotAPortName(text.to_owned())));
    }

    fn any_name() -> impl Strategy<Value = PortName> {
        let number = any::<u32>;
        let part = prop_oneof![
            Just(Part::Whole),
            number().prop_map(Part::Virtual),
            number().prop_map(Part::Sub),
        ];
        prop_oneof![
            (option::of(number()), number(), option::of(number()))
                .prop_map(|(line_card, port, part)| cable(line_card, port, part)),
            (option::of(number()), number(), part)
                .prop_map(|(controller, physical, part)| of(controller, physical, part)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_said_is_understood(name in any_name()) {
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }

        /// Two texts never mean one port.
        #[test]
        fn what_is_understood_is_said_alike(text in "(c[0-9]{0,3})?(l[0-9]{0,2})?(p|pf)[0-9]{0,11}((vf|sf|s)[0-9]{0,11})?.?") {
            if let Ok(name) = text.parse::<PortName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn no_text_is_too_odd(text in ".*") {
            let _ = text.parse::<PortName>();
        }
    }
}
