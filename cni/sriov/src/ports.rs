//! The card's side: ports of switches among the links, and which of them stands for which function of the host.
//!
//! A number does not name a function: two cards both have a `pf0vf0`, and so have the two halves of a card for two sockets,
//! which even share their switch. What belongs together is what has the same device. Where two things could be meant,
//! nothing is: the function of another host would be plugged.

use std::collections::BTreeSet;

use crate::devlink::{self, Devlink};
use crate::port_name::Part;
use crate::sysfs::{attribute, names, target};
use crate::{Error, PortName, Sysfs};

/// A link that is a port of a switch: an uplink or a representor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name now.
    pub link: String,
    /// Of which device, as its bus names it: a PCI address. Not every driver says it to sysfs.
    pub device: Option<String>,
    /// Of which switch: `phys_switch_id`. Asked for only where devlink does not know the port: it costs the lock that all
    /// changes of links wait for.
    pub switch: Option<String>,
    /// Which port.
    pub name: PortName,
    /// Who says so.
    pub source: Source,
}

/// Who says which port a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// devlink: flavour, controller and numbers of the port.
    Devlink,
    /// sysfs: `phys_port_name`.
    Sysfs,
}

/// Which host is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The card's uplinks, by link or PCI address; empty: there is one card.
    pub uplinks: Vec<String>,
    /// devlink's number of the host's controller; none: the one that the card has. 0 is the one that this program runs on.
    pub controller: Option<u32>,
}

/// All ports of switches in this namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports(Vec<Port>);

/// What sysfs says of a link with a switch.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) link: String,
    pub(crate) switch: String,
    pub(crate) device: Option<String>,
    pub(crate) port_name: Option<String>,
}

impl Sysfs {
    /// Looks at all links: those that devlink knows are what it says, the others what their `phys_port_name` says.
    ///
    /// # Errors
    /// The kernel's. A link that goes meanwhile is none.
    pub fn ports(&self, devlink: Option<&mut Devlink>) -> Result<Ports, Error> {
        let said = match devlink {
            Some(devlink) => devlink.ports()?,
            None => Vec::new(),
        };
        let mut links = Vec::new();
        for link in names(&self.links())? {
            if !is_known(&link, &said) {
                links.extend(self.observe(link)?);
            }
        }
        Ok(Ports::new(links, &said))
    }

    fn observe(&self, link: String) -> Result<Option<Observed>, Error> {
        let directory = self.links().join(&link);
        let Some(switch) = attribute(&directory.join("phys_switch_id"))? else {
            return Ok(None);
        };
        Ok(Some(Observed {
            link,
            switch,
            device: target(&directory.join("device"))?,
            port_name: attribute(&directory.join("phys_port_name"))?,
        }))
    }
}

impl Ports {
    /// What the links are, and what devlink said of others.
    pub(crate) fn new(links: Vec<Observed>, said: &[devlink::Port]) -> Self {
        let by_driver = |port: &devlink::Port| {
            Some(Port {
                link: port.link.clone()?,
                device: Some(port.device.clone()),
                switch: None,
                name: port.name()?,
                source: Source::Devlink,
            })
        };
        let by_name = |link: Observed| {
            Some(Port {
                name: link.port_name?.parse().ok()?,
                link: link.link,
                device: link.device,
                switch: Some(link.switch),
                source: Source::Sysfs,
            })
        };
        let mut ports: Vec<Port> = said.iter().filter_map(by_driver).collect();
        ports.extend(links.into_iter().filter_map(by_name));
        Self(ports)
    }

    /// Every port.
    pub fn iter(&self) -> impl Iterator<Item = &Port> {
        self.0.iter()
    }

    /// The port that a link is: which function it stands for.
    #[must_use]
    pub fn of_link(&self, link: &str) -> Option<&Port> {
        self.0.iter().find(|port| port.link == link)
    }

    /// The representor of a function of the host: of a VF, or of the PF itself. None: the card has no such function for
    /// this host, or not now.
    ///
    /// # Errors
    /// [`Error::Ambiguous`], [`Error::NoUplink`]: the scope does not say which card or host.
    pub fn find(
        &self,
        physical: u32,
        virtual_function: Option<u32>,
        scope: &Scope,
    ) -> Result<Option<&Port>, Error> {
        let wanted = virtual_function.map_or(Part::Whole, Part::Virtual);
        let ports = self.of_host(scope)?;
        one_card(&ports, physical)?;
        let is_wanted = |port: &&&Port| matches!(port.name, PortName::Function { physical: p, of, .. } if p == physical && of == wanted);
        Ok(ports.iter().find(is_wanted).copied())
    }

    /// How many virtual functions the host has.
    ///
    /// # Errors
    /// As [`Ports::find`].
    pub fn count(&self, scope: &Scope) -> Result<usize, Error> {
        let ports = self.of_host(scope)?;
        let mut count = 0;
        for port in &ports {
            if let PortName::Function { physical, of, .. } = port.name {
                one_card(&ports, physical)?;
                count += usize::from(matches!(of, Part::Virtual(_)));
            }
        }
        Ok(count)
    }

    /// The representors of the host's functions.
    fn of_host(&self, scope: &Scope) -> Result<Vec<&Port>, Error> {
        let uplinks = self.chosen(&scope.uplinks)?;
        let mut ports = Vec::new();
        for port in &self.0 {
            let on_card = uplinks.is_empty() || uplinks.iter().any(|uplink| on_card(port, uplink));
            if on_card && let Some(controller) = controller(port) {
                ports.push((controller, port));
            }
        }
        // On a DPU its own functions have no controller in their names, and are nobody else's.
        let external = ports.iter().any(|(controller, _)| controller.is_some());
        ports.retain(|(controller, _)| match scope.controller {
            Some(wanted) => controller.unwrap_or(0) == wanted,
            None => controller.is_some() == external,
        });
        Ok(ports.into_iter().map(|(_, port)| port).collect())
    }

    /// The uplinks that an operator has named, by link or PCI address.
    fn chosen(&self, names: &[String]) -> Result<Vec<&Port>, Error> {
        let is_uplink = |port: &&Port| matches!(port.name, PortName::Uplink { .. });
        let mut chosen = Vec::new();
        for name in names {
            let mut named = self.0.iter().filter(is_uplink).filter(|port| {
                port.link == *name || port.device.as_ref().is_some_and(|device| device == name)
            });
            chosen.push(named.next().ok_or_else(|| Error::NoUplink {
                uplink: name.clone(),
                there: self.there(),
            })?);
        }
        Ok(chosen)
    }

    fn there(&self) -> String {
        let uplinks = self
            .0
            .iter()
            .filter(|port| matches!(port.name, PortName::Uplink { .. }));
        let names: Vec<String> = uplinks
            .map(|port| format!("{} ({})", port.link, card(port)))
            .collect();
        if names.is_empty() {
            "none is here: is the card in mode switchdev? (`devlink dev eswitch show`)".into()
        } else {
            format!("those here are {}", names.join(", "))
        }
    }
}

/// Whether the driver of a link has said to devlink what it is.
fn is_known(link: &str, said: &[devlink::Port]) -> bool {
    said.iter()
        .any(|port| port.flavour.is_some() && port.link.as_deref() == Some(link))
}

/// The controller of a representor (none: of this side's own functions); nothing for an uplink.
fn controller(port: &Port) -> Option<Option<u32>> {
    match port.name {
        PortName::Function { controller, .. } => Some(controller),
        PortName::Uplink { .. } => None,
    }
}

/// The halves of a card for two sockets share a switch, and have a device each.
fn on_card(port: &Port, uplink: &Port) -> bool {
    match (&port.device, &uplink.device) {
        (Some(device), Some(of)) => device == of,
        _ => port.switch.is_some() && port.switch == uplink.switch,
    }
}

fn card(port: &Port) -> &str {
    let switch = port.switch.as_deref();
    port.device.as_deref().or(switch).unwrap_or_default()
}

/// All functions of a PF are on one card and one host, or it is not known which PF is meant.
fn one_card(ports: &[&Port], physical: u32) -> Result<(), Error> {
    let mut cards = BTreeSet::new();
    for port in ports {
        if let PortName::Function {
            controller,
            physical: of,
            ..
        } = port.name
            && of == physical
        {
            cards.insert((card(port), controller));
        }
    }
    let mut cards = cards.into_iter();
    let (Some(one), Some(other)) = (cards.next(), cards.next()) else {
        return Ok(());
    };
    let said = |(card, controller): (&str, Option<u32>)| {
        let name = PortName::Function {
            controller,
            physical,
            of: Part::Whole,
        };
        format!("{name} of {card}")
    };
    let remedy = if one.0 == other.0 {
        "say which host it is by spec.controller of the Dpu"
    } else {
        "say which card it is by --uplink"
    };
    Err(Error::Ambiguous {
        what: format!("pf{physical}"),
        one: said(one),
        other: said(other),
        remedy: remedy.into(),
    })
}
