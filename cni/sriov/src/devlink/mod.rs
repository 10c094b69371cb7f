//! Ports and switches as devlink knows them (Documentation/networking/devlink; generic netlink family `devlink`).
//!
//! A driver says there what a port is: uplink, function, and on which host's controller; the name in sysfs is made of it.
//! The crates for devlink are made for async programs or cover only what their makers needed; two requests are enough here.

mod message;
mod socket;

use crate::port_name::Part;
use crate::{Error, Eswitch, PortName};
use message::{Attributes, attribute};
use socket::Socket;

const CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const PORT_GET: u8 = 5;
const ESWITCH_GET: u8 = 29;

const BUS_NAME: u16 = 1;
const DEV_NAME: u16 = 2;
const PORT_NETDEV_NAME: u16 = 7;
const ESWITCH_MODE: u16 = 25;
const PORT_FLAVOUR: u16 = 77;
const PORT_NUMBER: u16 = 78;
const PORT_SPLIT_SUBPORT_NUMBER: u16 = 79;
const PORT_PCI_PF_NUMBER: u16 = 127;
const PORT_PCI_VF_NUMBER: u16 = 128;
const PORT_EXTERNAL: u16 = 149;
const PORT_CONTROLLER_NUMBER: u16 = 150;
const PORT_PCI_SF_NUMBER: u16 = 164;

/// A port of a device that devlink knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Bus of the device: `pci`.
    pub bus: String,
    /// Name of the device on its bus: a PCI address.
    pub device: String,
    /// The name of its link, if it has one and that is in this namespace.
    pub link: Option<String>,
    /// What it is, if its driver says it.
    pub flavour: Option<Flavour>,
}

/// What a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// It has a cable.
    Physical {
        /// Its number.
        port: u32,
        /// Part of a split one.
        part: Option<u32>,
    },
    /// It stands for a function.
    Function {
        /// The host that the function is on.
        controller: u32,
        /// That is not the host which this kernel runs on.
        external: bool,
        /// Number of the physical function.
        physical: u32,
        /// Which function of it.
        of: Part,
    },
    /// Anything else: of a switch's CPU, of a virtual function itself, …
    Other,
}

impl Port {
    /// The name that the kernel gives to such a port.
    #[must_use]
    pub fn name(&self) -> Option<PortName> {
        match self.flavour? {
            Flavour::Physical { port, part } => Some(PortName::Uplink {
                line_card: None,
                port,
                part,
            }),
            Flavour::Function {
                controller,
                external,
                physical,
                of,
            } => Some(PortName::Function {
                controller: external.then_some(controller),
                physical,
                of,
            }),
            Flavour::Other => None,
        }
    }

    /// From the attributes of a message.
    fn parse(attributes: Attributes<'_>) -> Option<Self> {
        let mut bus = None;
        let mut device = None;
        let mut link = None;
        let mut kind = None;
        let mut port = 0;
        let mut part = None;
        let (mut controller, mut external, mut physical) = (0, false, None);
        let (mut virtual_function, mut subfunction) = (None, None);
        for (key, value) in attributes {
            match key {
                BUS_NAME => bus = value.text(),
                DEV_NAME => device = value.text(),
                PORT_NETDEV_NAME => link = value.text(),
                PORT_FLAVOUR => kind = value.half(),
                PORT_NUMBER => port = value.word()?,
                PORT_SPLIT_SUBPORT_NUMBER => part = value.word(),
                PORT_PCI_PF_NUMBER => physical = value.half(),
                PORT_PCI_VF_NUMBER => virtual_function = value.half(),
                PORT_PCI_SF_NUMBER => subfunction = value.word(),
                PORT_EXTERNAL => external = value.byte()? != 0,
                PORT_CONTROLLER_NUMBER => controller = value.word()?,
                _ => {}
            }
        }
        let function = |of| {
            Some(Flavour::Function {
                controller,
                external,
                physical: physical?.into(),
                of,
            })
        };
        // enum devlink_port_flavour. Drivers older than the controller's number have their functions on this host.
        let flavour = match kind {
            Some(0) => Some(Flavour::Physical { port, part }),
            Some(3) => function(Part::Whole),
            Some(4) => virtual_function.and_then(|n| function(Part::Virtual(n.into()))),
            Some(7) => subfunction.and_then(|n| function(Part::Sub(n))),
            Some(_) => Some(Flavour::Other),
            None => None,
        };
        Some(Self {
            bus: bus?,
            device: device?,
            link,
            flavour,
        })
    }
}

/// A conversation with devlink about the devices of one network namespace.
#[derive(Debug)]
pub struct Devlink {
    socket: Socket,
    family: u16,
}

impl Devlink {
    /// Opens it in the calling thread's namespace. None: this kernel has no devlink, or its module is not loaded, for
    /// then no driver needs it.
    ///
    /// # Errors
    /// The kernel refuses sockets of generic netlink.
    pub fn open() -> Result<Option<Self>, Error> {
        let asked = |source| Error::Devlink {
            what: "itself".into(),
            source,
        };
        let mut socket = Socket::open().map_err(asked)?;
        let name = attribute(CTRL_ATTR_FAMILY_NAME, b"devlink\0");
        let answer = socket.ask(CTRL, CTRL_CMD_GETFAMILY, &name).map_err(asked)?;
        let family = answer.and_then(|answer| {
            let mut attributes = message::attributes(&answer);
            attributes.find_map(|(key, value)| value.half().filter(|_| key == CTRL_ATTR_FAMILY_ID))
        });
        Ok(family.map(|family| Self { socket, family }))
    }

    /// All ports of all devices.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ports(&mut self) -> Result<Vec<Port>, Error> {
        let rows = self
            .socket
            .dump(self.family, PORT_GET)
            .map_err(|source| Error::Devlink {
                what: "its ports".into(),
                source,
            })?;
        let port = |row: &Vec<u8>| Port::parse(message::attributes(row));
        Ok(rows.iter().filter_map(port).collect())
    }

    /// The mode of a device's switch. None: devlink does not know the device, or it has no switch.
    ///
    /// # Errors
    /// The kernel's; it answers only who may change the network.
    pub fn eswitch(&mut self, bus: &str, device: &str) -> Result<Option<Eswitch>, Error> {
        let mut body = attribute(BUS_NAME, format!("{bus}\0").as_bytes());
        body.extend(attribute(DEV_NAME, format!("{device}\0").as_bytes()));
        let answer = self
            .socket
            .ask(self.family, ESWITCH_GET, &body)
            .map_err(|source| Error::Devlink {
                what: format!("the switch of {bus}/{device}"),
                source,
            })?;
        let mode = answer.and_then(|answer| {
            let mut attributes = message::attributes(&answer);
            attributes.find_map(|(key, value)| value.half().filter(|_| key == ESWITCH_MODE))
        });
        Ok(match mode {
            Some(0) => Some(Eswitch::Legacy),
            Some(1) => Some(Eswitch::Switchdev),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(attributes: &[(u16, &[u8])]) -> Option<Port> {
        let mut bytes = Vec::new();
        for (key, value) in attributes {
            bytes.extend(attribute(*key, value));
        }
        Port::parse(message::attributes(&bytes))
    }

    const DEVICE: [(u16, &[u8]); 2] = [(BUS_NAME, b"pci\0"), (DEV_NAME, b"0000:03:00.0\0")];

    fn name(attributes: &[(u16, &[u8])]) -> Option<String> {
        let all: Vec<_> = DEVICE.iter().chain(attributes).copied().collect();
        port(&all)
            .expect("bus and device are there")
            .name()
            .map(|n| n.to_string())
    }

    #[test]
    fn ports_have_the_names_that_the_kernel_gives() {
        let half = u16::to_ne_bytes;
        let word = u32::to_ne_bytes;
        let cable = [(PORT_FLAVOUR, &half(0)[..]), (PORT_NUMBER, &word(1))];
        assert_eq!(name(&cable).as_deref(), Some("p1"));
        let split = [
            (PORT_FLAVOUR, &half(0)[..]),
            (PORT_NUMBER, &word(1)),
            (PORT_SPLIT_SUBPORT_NUMBER, &word(2)),
        ];
        assert_eq!(name(&split).as_deref(), Some("p1s2"));
        let external = [
            (PORT_FLAVOUR, &half(4)[..]),
            (PORT_PCI_PF_NUMBER, &half(0)),
            (PORT_PCI_VF_NUMBER, &half(3)),
            (PORT_CONTROLLER_NUMBER, &word(1)),
            (PORT_EXTERNAL, &[1]),
        ];
        assert_eq!(name(&external).as_deref(), Some("c1pf0vf3"));
        // A controller that is not external is this side's own.
        let own = [
            (PORT_FLAVOUR, &half(7)[..]),
            (PORT_PCI_PF_NUMBER, &half(1)),
            (PORT_PCI_SF_NUMBER, &word(88)),
            (PORT_CONTROLLER_NUMBER, &word(0)),
            (PORT_EXTERNAL, &[0]),
        ];
        assert_eq!(name(&own).as_deref(), Some("pf1sf88"));
        let whole = [(PORT_FLAVOUR, &half(3)[..]), (PORT_PCI_PF_NUMBER, &half(1))];
        assert_eq!(name(&whole).as_deref(), Some("pf1"));
    }

    #[test]
    fn other_flavours_are_no_ports_of_ours() {
        for flavour in [1u16, 2, 5, 6, 8, 99] {
            assert_eq!(name(&[(PORT_FLAVOUR, &flavour.to_ne_bytes())]), None);
        }
        // No flavour; a function without its numbers.
        assert_eq!(name(&[]), None);
        assert_eq!(name(&[(PORT_FLAVOUR, &4u16.to_ne_bytes())]), None);
    }

    #[test]
    fn a_message_without_a_device_is_none() {
        assert_eq!(port(&[(BUS_NAME, b"pci\0")]), None);
    }

    #[test]
    fn this_kernel_is_asked() {
        // Whether it has devlink or not: an answer, and no card of its own is harmed.
        if let Some(mut devlink) = Devlink::open().unwrap() {
            devlink.ports().unwrap();
            assert_eq!(devlink.eswitch("pci", "ffff:ff:1f.7").unwrap(), None);
        }
    }
}
