//! A unix socket that only root reaches, served by one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use tokio::net::UnixListener;

/// A listener whose socket is ours while this lives. The socket file stays behind at the end: a client then sees
/// "connection refused", which says "restarting", and the next process replaces it.
#[derive(Debug)]
pub struct Socket {
    /// Accepts connections.
    pub listener: UnixListener,
    _lock: Flock<File>,
}

/// Why a socket can't be bound.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process serves it, and lives.
    #[error(
        "socket {}: another process serves it; end that one first, or give this one another path",
        .path.display()
    )]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// The directory is somebody else's or shared, so that others could put their own socket in place of ours.
    #[error(
        "socket {}: its directory {why}; choose a directory of its own, such as /run/outboard",
        .path.display()
    )]
    Directory {
        /// The socket.
        path: PathBuf,
        /// What is wrong with the directory.
        why: String,
    },
    /// The operating system refused a step.
    #[error("socket {}: can't {step}", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The step, as a verb and its object.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Binds `path` (absolute) with mode 0600 in a directory of mode 0700, which is made when it is missing. What an ended
/// process left there is replaced; a living one is not: `<path>.lock` is held as long as the [`Socket`]. Call it within
/// a tokio runtime.
///
/// # Errors
///
/// Every [`Error`].
pub fn bind(path: &Path) -> Result<Socket, Error> {
    let at = At(path);
    let dir = path
        .parent()
        .filter(|_| path.is_absolute())
        .ok_or_else(|| at.directory("is not given by an absolute path"))?;
    make_private(dir, at)?;
    let lock = lock(at)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(at.io("remove the one left by an earlier process")(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(at.io("bind it"))?;
    // Nobody else passes the directory, so the moment between the two calls is harmless.
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(at.io("set its mode to 0600"))?;
    Ok(Socket {
        listener,
        _lock: lock,
    })
}

/// The socket that an error is about.
#[derive(Clone, Copy)]
struct At<'a>(&'a Path);

impl<'a> At<'a> {
    fn io(self, step: &'static str) -> impl FnOnce(io::Error) -> Error + 'a {
        move |source| Error::Io {
            path: self.0.to_owned(),
            step,
            source,
        }
    }

    fn directory(self, why: &str) -> Error {
        Error::Directory {
            path: self.0.to_owned(),
            why: why.to_owned(),
        }
    }
}

fn make_private(dir: &Path, at: At<'_>) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(at.io("make its directory"))?;
    let metadata = std::fs::metadata(dir).map_err(at.io("inspect its directory"))?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(at.directory(&format!("belongs to user {}", metadata.uid())));
    }
    // A sticky directory is one that programs share (/tmp): closing it to them would break them.
    if metadata.mode() & 0o1000 != 0 {
        return Err(at.directory("is shared with other programs"));
    }
    if metadata.mode() & 0o777 != 0o700 {
        std::fs::set_permissions(dir, Permissions::from_mode(0o700))
            .map_err(at.io("set its directory's mode to 0700"))?;
    }
    Ok(())
}

fn lock(at: At<'_>) -> Result<Flock<File>, Error> {
    let mut path = at.0.as_os_str().to_owned();
    path.push(".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(at.io("open its lock file"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == nix::errno::Errno::EWOULDBLOCK {
            Error::Busy {
                path: at.0.to_owned(),
            }
        } else {
            at.io("lock its lock file")(errno.into())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_private_single_and_survives_its_process() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run/cni.sock");
        let first = bind(&path).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(matches!(bind(&path), Err(Error::Busy { .. })));
        drop(first);
        let refused = std::os::unix::net::UnixStream::connect(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        std::fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
        let _second = bind(&path).unwrap();
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_shared_directory_is_refused() {
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), Permissions::from_mode(0o1777)).unwrap();
        let error = bind(&home.path().join("cni.sock")).unwrap_err();
        assert!(error.to_string().contains("is shared with other programs"));
        assert_eq!(mode(home.path()), 0o777);
        let error = bind(Path::new("cni.sock")).unwrap_err();
        assert!(error.to_string().contains("absolute"));
    }
}
