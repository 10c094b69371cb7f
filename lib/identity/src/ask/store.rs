//! The identity directory: a key, its certificate and the CA bundle, swapped together.
//!
//! Readers (ovn-controller, OVS, cni-node, QEMU, …) know plain paths. Those are symlinks through `..data`, which one rename points at
//! a new directory: nobody sees a new key beside an old certificate (Kubernetes' volumes are written the same way). Links are
//! relative, so that they hold on the host and in the container.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::Error;

const DATA: &str = "..data";
const PENDING: &str = "..pending.key";
const FILES: [&str; 3] = ["tls.key", "tls.crt", "ca.crt"];
/// For QEMU they have these names too: those of a directory of TLS credentials, which csi-node-dpu reads as well.
const NAMES_OF_QEMU: [(&str, &str); 5] = [
    ("client-key.pem", "tls.key"),
    ("client-cert.pem", "tls.crt"),
    ("server-key.pem", "tls.key"),
    ("server-cert.pem", "tls.crt"),
    ("ca-cert.pem", "ca.crt"),
];

/// What the directory holds, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) key_pem: String,
    pub(crate) cert_pem: String,
    pub(crate) ca_pem: String,
}

/// The directory. One writer: the identity container of this node.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    for_qemu: bool,
}

impl Store {
    /// Makes the directory if need be and closes it to all but root. One `for_qemu` has its names too.
    pub(crate) fn open(directory: &Path, for_qemu: bool) -> Result<Self, Error> {
        let failed = |source| Error::Files {
            action: "make the identity directory",
            path: directory.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
        fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(failed)?;
        Ok(Self {
            directory: directory.to_owned(),
            for_qemu,
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The identity in place; `None` when any of the files is missing.
    pub(crate) fn read(&self) -> Result<Option<Identity>, Error> {
        let [Some(key_pem), Some(cert_pem), Some(ca_pem)] = [
            self.read_file(FILES[0])?,
            self.read_file(FILES[1])?,
            self.read_file(FILES[2])?,
        ] else {
            return Ok(None);
        };
        Ok(Some(Identity {
            key_pem,
            cert_pem,
            ca_pem,
        }))
    }

    /// Puts the files in place in one step, durably.
    pub(crate) fn write(&self, identity: &Identity) -> Result<(), Error> {
        self.swap(identity).map_err(|source| Error::Files {
            action: "write the identity in",
            path: self.directory.clone(),
            source,
        })
    }

    /// The key of a request that was posted and not yet answered: after a restart the same request is awaited, not a second one.
    pub(crate) fn pending(&self) -> Result<Option<String>, Error> {
        self.read_file(PENDING)
    }

    /// Remembers the key of a request before it is posted.
    pub(crate) fn remember_pending(&self, key_pem: &str) -> Result<(), Error> {
        let path = self.directory.join(PENDING);
        write_file(&path, key_pem).map_err(|source| Error::Files {
            action: "write",
            path,
            source,
        })
    }

    /// Drops the pending key: its certificate is in place, or was refused.
    pub(crate) fn forget_pending(&self) {
        // A file that stays is only a request that will be found answered.
        let _ = fs::remove_file(self.directory.join(PENDING));
    }

    fn read_file(&self, name: &str) -> Result<Option<String>, Error> {
        let path = self.directory.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Files {
                action: "read",
                path,
                source,
            }),
        }
    }

    fn swap(&self, identity: &Identity) -> io::Result<()> {
        let version = self.unused_version()?;
        let home = self.directory.join(&version);
        DirBuilder::new().mode(0o700).create(&home)?;
        let texts = [&identity.key_pem, &identity.cert_pem, &identity.ca_pem];
        for (name, text) in FILES.iter().zip(texts) {
            write_file(&home.join(name), text)?;
        }
        File::open(&home)?.sync_all()?;
        self.link(DATA, Path::new(&version))?;
        let own = FILES.map(|name| (name, name));
        let foreign = NAMES_OF_QEMU.iter().copied().filter(|_| self.for_qemu);
        // Our own last: while one is missing the directory counts as empty, and is written once more.
        for (name, file) in foreign.chain(own) {
            let target = Path::new(DATA).join(file);
            if fs::read_link(self.directory.join(name)).ok().as_deref() != Some(&target) {
                self.link(name, &target)?;
            }
        }
        File::open(&self.directory)?.sync_all()?;
        self.sweep(&version)
    }

    fn unused_version(&self) -> io::Result<String> {
        let taken = |number: &u32| self.directory.join(version_name(*number)).exists();
        (1..u32::MAX)
            .find(|number| !taken(number))
            .map(version_name)
            .ok_or_else(|| io::Error::other("no version number is free"))
    }

    /// Makes `name` a symlink to `target` by rename, whatever it was before.
    fn link(&self, name: &str, target: &Path) -> io::Result<()> {
        let fresh = self.directory.join("..link");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(target, &fresh)?;
        fs::rename(&fresh, self.directory.join(name))
    }

    /// Removes what earlier swaps, finished or not, left behind.
    fn sweep(&self, keep: &str) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let old = name
                .to_str()
                .is_some_and(|name| name.starts_with("..v") && name != keep);
            if old && entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

fn version_name(number: u32) -> String {
    format!("..v{number}")
}

fn write_file(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
