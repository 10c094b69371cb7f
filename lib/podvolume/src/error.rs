//! What was in the way.

use std::path::PathBuf;

use nix::errno::Errno;

/// A path that was not used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {refusal}")]
pub struct Error {
    /// The component that was refused, from kubelet's root on.
    pub path: PathBuf,
    /// Why.
    pub refusal: Refusal,
}

/// Why a component of a path is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Kubelet's own directory cannot be looked at: it is not mounted here, or is elsewhere.
    #[error("pods' volumes cannot be looked at: {}", .0.desc())]
    Root(Errno),
    /// Somebody who writes the volume has put a link there.
    #[error("is a symbolic link")]
    Link,
    /// Somebody who writes the volume has put something else there.
    #[error("is no directory")]
    NotDirectory,
    /// Linux before 5.6.
    #[error("cannot be opened safely: this kernel has no openat2")]
    OldKernel,
    /// The file system failed.
    #[error("cannot be used: {}", .0.desc())]
    Io(Errno),
}

impl Error {
    pub(crate) fn at(path: impl Into<PathBuf>, why: Errno) -> Self {
        let refusal = match why {
            Errno::ELOOP => Refusal::Link,
            Errno::ENOTDIR => Refusal::NotDirectory,
            Errno::ENOSYS => Refusal::OldKernel,
            why => Refusal::Io(why),
        };
        Self {
            path: path.into(),
            refusal,
        }
    }
}
