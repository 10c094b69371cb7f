//! Kubelet's directory of pods.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::beneath::beneath;
use crate::{Error, Refusal};

/// Kubelet's root directory, as this program sees it.
#[derive(Debug, Clone)]
pub struct Pods {
    root: PathBuf,
}

impl Pods {
    /// Nothing is looked at yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether that can be a pod's UID: it becomes part of a path.
    pub fn is_uid(uid: &str) -> bool {
        let fits = (1..=64).contains(&uid.len());
        fits && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    }

    /// Where an emptyDir of a pod is.
    pub fn empty_dir(&self, uid: &str, volume: &str) -> PathBuf {
        self.root.join(below(uid, volume))
    }

    /// The lowest of the directories above an emptyDir that is there, kubelet's root at least: what comes next on the way down comes in
    /// it. They are kubelet's alone.
    pub fn nearest(&self, uid: &str, volume: &str) -> PathBuf {
        let volume = self.empty_dir(uid, volume);
        let mut above = volume.ancestors().skip(1);
        let there = above.find(|path| path.is_dir() || *path == self.root);
        there.unwrap_or(&self.root).to_owned()
    }

    /// An emptyDir of a pod, opened; none if the pod has no such volume. The caller has looked at the UID ([`Pods::is_uid`]).
    ///
    /// # Errors
    /// [`Refusal::Root`] where kubelet's directory of pods itself is out of reach; else what lies in the way.
    pub fn open(&self, uid: &str, volume: &str) -> Result<Option<OwnedFd>, Error> {
        let no_root = |why: Errno| Error {
            path: self.root.clone(),
            refusal: Refusal::Root(why),
        };
        let flags = OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC;
        let top = nix::fcntl::open(&self.root, flags, Mode::empty()).map_err(no_root)?;
        beneath(&top, Path::new("pods")).map_err(no_root)?;
        match beneath(&top, &below(uid, volume)) {
            Ok(opened) => Ok(Some(opened)),
            Err(Errno::ENOENT) => Ok(None),
            Err(why) => Err(Error::at(self.empty_dir(uid, volume), why)),
        }
    }
}

/// The path below kubelet's root, which kubelet's own layout gives.
fn below(uid: &str, volume: &str) -> PathBuf {
    PathBuf::from(format!(
        "pods/{uid}/volumes/kubernetes.io~empty-dir/{volume}"
    ))
}
