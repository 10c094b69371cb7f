//! Which changes of the kernel concern the gateway: those of `ob0`, and of the routes that lead there.
//!
//! Most of a node's changes are of pods' links. There are no policy rules of ours, so those of others are not followed; and a
//! few settings (`accept_ra`) change without a word: they are the timer's.

use api::names::GATEWAY_IFNAME;
use ipnet::IpNet;
use tokio::sync::watch;

use super::node_port::NodePort;
use crate::netlink::{Event, Netlink};

/// What is known of `ob0`, to tell its events from others.
pub(crate) struct Concern {
    index: Option<u32>,
    port: watch::Receiver<Option<NodePort>>,
}

impl Concern {
    /// Looks once; then events say the rest.
    pub(crate) fn new(port: watch::Receiver<Option<NodePort>>) -> Self {
        let link = Netlink::open().and_then(|mut netlink| netlink.link(GATEWAY_IFNAME));
        Self {
            index: link.ok().flatten().map(|link| link.index),
            port,
        }
    }

    /// Whether the gateway must look again.
    pub(crate) fn of(&mut self, event: &Event) -> bool {
        match event {
            Event::Link { index, name, .. } if name == GATEWAY_IFNAME => {
                self.index = Some(*index);
                true
            }
            // It may have got another name.
            Event::Link { index, .. } => self.index == Some(*index),
            Event::Address { link } => self.index == Some(*link),
            Event::Route { link, dst } => {
                link.is_some() && self.index == *link || self.leads_to(dst)
            }
            Event::Setting { link } => link.is_none() || self.index == *link,
            Event::Table { .. } => false,
            Event::Lost => true,
        }
    }

    fn leads_to(&self, dst: &IpNet) -> bool {
        self.port.borrow().as_ref().is_some_and(|port| {
            let facts = &port.facts;
            let inside = facts.pod_cidrs.iter().chain(&facts.service_cidrs);
            inside.map(IpNet::trunc).any(|net| net == *dst)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::node_port;

    #[test]
    fn ob0_and_its_routes_concern_the_gateway() {
        let mut concern = Concern {
            index: None,
            port: watch::channel(Some(node_port())).1,
        };
        let link = |index, name: &str| Event::Link {
            index,
            name: name.to_owned(),
            gone: false,
        };
        let route = |link, dst: &str| Event::Route {
            link,
            dst: dst.parse().unwrap(),
        };
        let told = [
            (link(3, "ob0123456789abc"), false),
            (Event::Address { link: 7 }, false),
            (link(7, "ob0"), true),
            (Event::Address { link: 7 }, true),
            (Event::Address { link: 3 }, false),
            (link(7, "renamed"), true),
            (route(Some(7), "10.99.0.0/16"), true),
            (route(Some(2), "10.99.0.0/16"), false),
            (route(Some(2), "10.96.0.0/16"), true),
            (route(None, "0.0.0.0/0"), false),
            (Event::Setting { link: Some(3) }, false),
            (Event::Setting { link: Some(7) }, true),
            (Event::Setting { link: None }, true),
            (Event::Lost, true),
        ];
        for (event, concerns) in told {
            assert_eq!(concern.of(&event), concerns, "{event:?}");
        }
    }
}
