//! The emulated card: a function is one end of a veth pair, its representor the other, called `pf<P>vf<V>`.

use std::io;

use super::{CardFunction, Plug, Provider, Representor};
use crate::netlink::Netlink;

/// The provider.
pub(super) struct Veth;

impl Provider for Veth {
    fn find(&self, function: CardFunction, _: Option<u32>) -> io::Result<Option<Representor>> {
        if function.vf.is_none() {
            return Ok(None);
        }
        let link = Netlink::open()?.link(&function.to_string())?;
        Ok(link.filter(|link| link.veth).map(|link| Representor {
            link: link.name,
            plug: Plug::System,
        }))
    }

    fn count(&self, _: Option<u32>) -> io::Result<u32> {
        let links = Netlink::open()?.links()?;
        let ours = links
            .iter()
            .filter(|link| link.veth && is_representor(&link.name));
        Ok(u32::try_from(ours.count()).unwrap_or(u32::MAX))
    }
}

/// Whether a link has the name of a virtual function's representor.
fn is_representor(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix("pf")
        .and_then(|rest| rest.split_once("vf"))
        .is_some_and(|(physical, vf)| digits(physical) && digits(vf))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::sandbox::{sandboxed, sh};

    #[test]
    fn a_function_is_there_while_its_pair_is() {
        sandboxed(
            "dpu::representor::veth::tests::a_function_is_there_while_its_pair_is",
            async {
                sh("ip link add pf0vf3 type veth peer name vf3
                    ip link add pf0vf04x type veth peer name x
                    ip tuntap add pf0vf5 mode tap");
                let function = |vf| CardFunction {
                    physical: 0,
                    vf: Some(vf),
                };
                assert_eq!(function(3).to_string(), "pf0vf3");
                let found = Veth.find(function(3), None).unwrap().unwrap();
                assert_eq!(found.link, "pf0vf3");
                // A link of that name that is no representor, and none at all.
                assert_eq!(Veth.find(function(5), None).unwrap(), None);
                assert_eq!(Veth.find(function(4), None).unwrap(), None);
                assert_eq!(Veth.count(None).unwrap(), 1);
                sh("ip link del vf3");
                assert_eq!(Veth.find(function(3), None).unwrap(), None);
            },
        );
    }
}
