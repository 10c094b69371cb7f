//! How is a directory in a pod's volume opened or made, when nothing that lies there is believed?
//!
//! The pod writes the volume: every component is opened below the one before it, and a symbolic link or a file in the way is refused by
//! the kernel (openat2(2): RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS), not by a look that could be overtaken. [`Pods`] opens a volume, [`make`]
//! and [`descend`] go on from there, [`identity`] tells the directories apart.

mod beneath;
mod error;
mod pods;

pub use beneath::{Identity, Owner, descend, identity, make};
pub use error::{Error, Refusal};
pub use pods::Pods;
