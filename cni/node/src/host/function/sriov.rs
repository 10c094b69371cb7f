//! A real card: its virtual functions, each known by its PCI address wherever its link is and whatever its name.

use std::io;
use std::path::Path;

use api::Mac;
use cni_bin::code;
use nix::libc;
use sriov::{DeviceId, PciAddress, PciEvents, Physical, Sysfs, Virtual};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Function, FunctionId, Provider};
use crate::error::{Error, chain};
use crate::netlink::{Change, Link, Netlink};
use crate::plumb::{kernel, no_socket};

/// Of a link's name, bytes (IFNAMSIZ without the zero).
const LINK_NAME: usize = 15;
/// The card chooses an address when a function's driver begins.
const NO_MAC: Mac = Mac([0; 6]);

/// See the module.
pub(super) struct Card {
    sysfs: Sysfs,
    /// Flag `--pf`.
    chosen: Vec<String>,
    changed: watch::Sender<()>,
}

impl Card {
    /// `chosen` are the physical functions by link or PCI address; none: all that have virtual ones. Listens until `stop`.
    pub(super) fn start(sysfs: &Path, chosen: Vec<String>, stop: CancellationToken) -> Self {
        let changed = watch::Sender::new(());
        let told = changed.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                Err(why) = listen(&told) => warn!(
                    error = %chain(&why),
                    "the kernel tells nothing of PCI devices: functions that come or go without a link are seen late"
                ),
            }
        });
        Self {
            sysfs: Sysfs::new(sysfs),
            chosen,
            changed,
        }
    }

    fn cards(&self) -> Result<Vec<Physical>, Error> {
        self.sysfs.cards(&self.chosen).map_err(|why| refused(&why))
    }

    /// Both functions of the numbers, if the card has them now.
    fn function(&self, id: FunctionId) -> Result<Option<(Physical, Virtual)>, Error> {
        let card = self.cards()?.into_iter().find(|c| c.number == id.physical);
        let (Some(card), Some(number)) = (card, id.r#virtual) else {
            return Ok(None);
        };
        let found = self
            .sysfs
            .virtual_number(card.address, number)
            .map_err(|why| refused(&why))?;
        Ok(found.map(|function| (card, function)))
    }

    /// The MAC of a function without a link is the physical one's to say.
    fn set_mac(&self, function: &Function, mac: Mac) -> Result<(), Error> {
        let Some((card, found)) = self.function(function.id)? else {
            return Ok(());
        };
        let mut netlink = Netlink::open().map_err(|why| no_socket(&why))?;
        let link = match &card.link {
            Some(name) => netlink
                .link(name)
                .map_err(|why| kernel("read the card's link", &why))?,
            None => None,
        };
        let Some(link) = link else {
            return Err(Error::new(
                code::TRY_AGAIN_LATER,
                format!("The card {} has no link on this host.", card.address),
                "Give its physical function back to its own driver.",
            ));
        };
        let change = Change::SetVfMac {
            link: link.index,
            number: found.number,
            mac,
        };
        match netlink.apply(&[change]) {
            // The switch is the DPU's: its port says which addresses may be used.
            Err(why) if is_not_ours(&why.source) => {
                debug!(function = %function.id, %mac, "this host may not set a function's address");
                Ok(())
            }
            done => done.map_err(Error::from),
        }
    }
}

impl Provider for Card {
    fn inventory(&self) -> Result<Vec<Function>, Error> {
        let mut functions = Vec::new();
        for card in self.cards()? {
            let found = self
                .sysfs
                .virtual_functions(card.address)
                .map_err(|why| refused(&why))?;
            functions.extend(found.into_iter().map(|function| Function {
                id: FunctionId {
                    physical: card.number,
                    r#virtual: Some(function.number),
                },
                device: function.address.to_string(),
                pci: Some(function.address.to_string()),
                home: home(card.link.as_deref(), function.number, function.address),
                vfio: function.is_vfio(),
                here: function.link,
            }));
        }
        Ok(functions)
    }

    fn named(&self, device_id: &str) -> Result<String, Error> {
        let address = device_id
            .parse()
            .and_then(|id: DeviceId| id.pci())
            .map_err(|why| {
                Error::new(
                    code::UNSUPPORTED_FIELD,
                    format!("The deviceID cannot be served: {why}."),
                    "Correct the device plugin's resource that the network names.",
                )
            })?;
        Ok(address.to_string())
    }

    fn prepare(&self, function: &Function, mac: Mac) -> Result<(), Error> {
        if function.vfio {
            self.set_mac(function, mac)?;
        }
        Ok(())
    }

    fn find(&self, id: FunctionId, netlink: &mut Netlink) -> Result<Option<Link>, Error> {
        let Some((_, function)) = self.function(id)? else {
            return Ok(None);
        };
        let device = function.address.to_string();
        let links = netlink
            .links()
            .map_err(|why| kernel("read the links of a namespace", &why))?;
        let is_its = |link: &Link| link.parent.as_deref() == Some(device.as_str());
        Ok(links.into_iter().find(is_its))
    }

    fn tidy(&self, function: &Function) -> Result<(), Error> {
        if function.vfio {
            self.set_mac(function, NO_MAC)?;
        }
        Ok(())
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// The name of a function's link at home: the card's with the function's number, or its address where that is too long.
fn home(card: Option<&str>, number: u32, address: PciAddress) -> String {
    card.map(|card| format!("{card}v{number}"))
        .filter(|name| name.len() <= LINK_NAME)
        .unwrap_or_else(|| {
            let digits = address.to_string().replace([':', '.'], "");
            format!("v{}", digits.trim_start_matches('0'))
        })
}

fn is_not_ours(why: &io::Error) -> bool {
    matches!(why.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP))
}

fn refused(why: &sriov::Error) -> Error {
    Error::new(
        code::IO_FAILURE,
        format!("The card cannot be used: {}.", chain(why)),
        "Correct --pf or give the card virtual functions (sriov_numvfs).",
    )
}

/// Tells when PCI devices come, go or change their driver.
async fn listen(changed: &watch::Sender<()>) -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe to call; the descriptor lives as long as the value"
    )]
    let events = AsyncFd::with_interest(PciEvents::open()?, Interest::READABLE)?;
    loop {
        let mut ready = events.readable().await?;
        if ready.get_inner().take()? {
            changed.send_replace(());
        }
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests;
