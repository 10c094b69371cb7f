//! What a card does for its host: which functions it has, and how one is known again wherever its link is.
//!
//! A function's link is at home (in the host's own namespace), or in a pod's, and comes home when the pod's namespace ends: the
//! kernel does that with a real card's, the emulated one makes it anew.

mod sriov;
mod veth;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use api::Mac;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::args::{Args, Kind};
use crate::error::Error;
use crate::netlink::{Link, Netlink};

/// A function as the card counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct FunctionId {
    /// Physical function.
    pub(crate) physical: u32,
    /// Virtual function; none: the physical one itself.
    pub(crate) r#virtual: Option<u32>,
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pf{}", self.physical)?;
        self.r#virtual
            .map_or(Ok(()), |number| write!(f, "vf{number}"))
    }
}

impl From<FunctionId> for channel::proto::Function {
    fn from(id: FunctionId) -> Self {
        Self {
            physical: id.physical,
            r#virtual: id.r#virtual,
        }
    }
}

/// A function that the card has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its numbers.
    pub(crate) id: FunctionId,
    /// What a `deviceID` names: its PCI address; of the emulated card its link's name at home.
    pub(crate) device: String,
    /// Its PCI address, for the result of an ADD.
    pub(crate) pci: Option<String>,
    /// Its link's name at home while nobody has it.
    pub(crate) home: String,
    /// Its link's name as it is at home now; none: it has no link, or that is in a pod.
    pub(crate) here: Option<String>,
    /// Its driver is vfio-pci: it has no link, and goes to a VM as it is. The pool does not hand it out.
    pub(crate) vfio: bool,
}

/// A card. All calls block, on threads that may, and ask the card anew.
pub(crate) trait Provider: Send + Sync + 'static {
    /// All functions that pods may have. An emulated card makes those that are missing.
    ///
    /// # Errors
    /// The card cannot be read: a sentence for the operator.
    fn inventory(&self) -> Result<Vec<Function>, Error>;

    /// The name among [`Function::device`] that a `deviceID` means, whether there is such a function or not.
    ///
    /// # Errors
    /// No function of this kind of card can have it.
    fn named(&self, device_id: &str) -> Result<String, Error> {
        Ok(device_id.to_owned())
    }

    /// Before a function without a link goes to a pod, in the host's namespace: what is set at the card, for want of a link.
    ///
    /// # Errors
    /// The card refuses.
    fn prepare(&self, function: &Function, mac: Mac) -> Result<(), Error>;

    /// The function's link, whatever its name is, if it is in the namespace of `netlink`.
    ///
    /// # Errors
    /// The kernel refuses to say.
    fn find(&self, id: FunctionId, netlink: &mut Netlink) -> Result<Option<Link>, Error>;

    /// After the function came home from a pod and has its name again: takes back what [`Provider::prepare`] did.
    ///
    /// # Errors
    /// The card refuses.
    fn tidy(&self, function: &Function) -> Result<(), Error>;

    /// Changes when functions may have come or gone and no link of the host's namespace tells.
    fn changed(&self) -> watch::Receiver<()>;
}

/// The card that the flags name.
pub(crate) fn provider(args: &Args, sysfs: &Path, stop: CancellationToken) -> Arc<dyn Provider> {
    match args.card {
        Kind::Veth => Arc::new(veth::Card::start(
            args.card_functions,
            args.card_netns.clone(),
            stop,
        )),
        Kind::Sriov => Arc::new(sriov::Card::start(sysfs, args.pf.clone(), stop)),
    }
}
