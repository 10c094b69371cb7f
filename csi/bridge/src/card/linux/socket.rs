//! vhost-user-blk sockets: the first client of each, and for the one beside a volume's block device who may connect to it.
//!
//! That one has a directory of its own, which alone is mounted into the pod of a virtual machine. The daemon makes the socket, anew whenever
//! it is started, and then root alone may connect; [`open`] lets the group in, and nobody else.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::recipe::Places;
use crate::card::{Error, Result};
use uuid::Uuid;

/// What fits into a socket's address, bytes (unix(7): 108 with the closing zero).
const ADDRESS: usize = 107;
/// Root's, and read by the group.
const DIRECTORY: u32 = 0o750;
/// connect(2) wants to write.
const SOCKET: u32 = 0o660;
/// Root's alone, as the daemon makes it (0700), and greeted.
const GREETED: u32 = 0o600;

/// Where the socket of a volume is.
///
/// # Errors
/// The path does not fit into a socket's address.
pub(crate) fn path(places: &Places, uuid: Uuid) -> Result<PathBuf> {
    let path = places.vhost_directory(uuid).join("disk.sock");
    let length = path.as_os_str().len();
    if length > ADDRESS {
        return Err(Error::Precondition(format!(
            "exposure.local_block_device.socket: {} has {length} bytes, and {ADDRESS} fit into a socket's address; give opi-bridge a \
             shorter --exports-dir",
            path.display()
        )));
    }
    Ok(path)
}

/// The directory, before the daemon is told of the socket in it.
pub(crate) async fn make(places: &Places, uuid: Uuid) -> Result<()> {
    let (directory, group) = (places.vhost_directory(uuid), places.vhost_gid);
    blocking("can't be made (see --exports-dir)", &directory, move |at| {
        match std::fs::DirBuilder::new().mode(0o700).create(at) {
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        give(at, group, DIRECTORY)
    })
    .await
}

/// Sees to it that a vhost-user socket of a daemon that runs has had a client: without one QEMU dies of a block_resize ([`qemu::greet`]).
/// outboard-engine is that for a socket that a recipe brought, and this for one that was added since. The mode tells that it was done.
pub(crate) async fn greet(socket: &Path) -> Result<()> {
    let look = |at: &Path| {
        let mode = std::fs::symlink_metadata(at)?.mode() & 0o7777;
        let known = [GREETED, SOCKET].contains(&mode);
        Ok((known, !known && is_connected(at)))
    };
    let (known, guest) = looking(socket, look).await?;
    if known {
        return Ok(());
    }
    if !guest {
        // Who was faster than this was the first.
        let greeted = qemu::greet(socket).await;
        greeted.map_err(|why| {
            let socket = socket.display();
            Error::Away(format!(
                "{socket}: does not answer ({why}); if its daemon has just ended, call again"
            ))
        })?;
    }
    let mark = |at: &Path| std::fs::set_permissions(at, std::fs::Permissions::from_mode(GREETED));
    looking(socket, mark).await
}

/// Lets the group connect to what the daemon made, and what was greeted before: a guest would be the one client that the daemon takes at
/// a time.
pub(crate) async fn open(places: &Places, uuid: Uuid) -> Result<PathBuf> {
    let (socket, group) = (path(places, uuid)?, places.vhost_gid);
    looking(&socket, move |at| give(at, group, SOCKET)).await?;
    Ok(socket)
}

async fn looking<T: Send + 'static>(
    socket: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let what = "can't be given to who may use it; if its daemon has just ended, call again";
    blocking(what, socket, work).await
}

/// Neither socket nor directory.
pub(crate) async fn remove(places: &Places, uuid: Uuid) -> Result<()> {
    let directory = places.vhost_directory(uuid);
    blocking(
        "can't be removed",
        &directory,
        |at| match std::fs::remove_dir_all(at) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
    )
    .await
}

/// Nobody but root writes where these are: what lies there is what was put there.
fn give(path: &Path, group: u32, mode: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(0), Some(group))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

async fn blocking<T: Send + 'static>(
    what: &str,
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let path_there = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&path_there)).await;
    let path = path.display();
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(why)) => Err(Error::Away(format!("{path}: {what} ({why})"))),
        Err(why) => Err(Error::Internal(format!("{path}: {why}"))),
    }
}

/// Whether somebody is connected to the listener at `path`. The kernel lists the daemon's end of a connection in the network namespace
/// of whoever connected, which is a pod's.
pub(crate) fn is_connected(path: &Path) -> bool {
    let path = path.to_string_lossy();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut seen = HashSet::new();
    processes
        .filter(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().bytes().all(|b| b.is_ascii_digit())
        })
        .filter(|process| {
            let space = std::fs::read_link(process.path().join("ns/net"));
            space.is_ok_and(|space| seen.insert(space))
        })
        .any(|process| {
            let table = std::fs::read_to_string(process.path().join("net/unix"));
            lists(&table.unwrap_or_default(), &path)
        })
}

/// Num RefCount Protocol Flags Type St Inode Path; St 03 is connected.
fn lists(table: &str, path: &str) -> bool {
    table.lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.nth(5) == Some("03") && fields.nth(1) == Some(path)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn places(exports: &Path) -> Places {
        Places {
            exports: exports.to_owned(),
            credentials: "/c".into(),
            aio: qemu::commands::Aio::Threads,
            node: "n".into(),
            vhost_gid: 107,
        }
    }

    #[tokio::test]
    async fn only_root_and_the_group_come_in_also_after_the_socket_was_made_anew() {
        let home = tempfile::tempdir().unwrap();
        let (places, uuid) = (places(home.path()), Uuid::from_u128(7));
        let about = |path: &Path| {
            let about = std::fs::symlink_metadata(path).unwrap();
            (about.mode() & 0o7777, about.uid(), about.gid())
        };
        make(&places, uuid).await.unwrap();
        let socket = path(&places, uuid).unwrap();
        assert!(open(&places, uuid).await.is_err(), "not there yet");
        for _ in 0..2 {
            let _ = std::fs::remove_file(&socket);
            let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            assert!(!is_connected(&socket));
            make(&places, uuid).await.unwrap();
            let daemon = listener.try_clone().unwrap();
            let daemon = std::thread::spawn(move || {
                let (mut client, _) = daemon.accept().unwrap();
                client.read_exact(&mut [0; 12]).unwrap();
                client.write_all(&[0; 20]).unwrap();
            });
            greet(&socket).await.unwrap();
            daemon.join().unwrap();
            assert_eq!(about(&socket).0, GREETED);
            greet(&socket).await.unwrap();
            assert_eq!(open(&places, uuid).await.unwrap(), socket);
            greet(&socket).await.unwrap();
            assert_eq!(about(&socket), (0o660, 0, 107));
            assert_eq!(about(socket.parent().unwrap()), (0o750, 0, 107));
            let _guest = std::os::unix::net::UnixStream::connect(&socket).unwrap();
            let _server = listener.accept().unwrap();
            assert!(is_connected(&socket));
            std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o700)).unwrap();
            greet(&socket).await.unwrap();
        }
        for _ in 0..2 {
            remove(&places, uuid).await.unwrap();
        }
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_too_long_is_refused() {
        let long = format!("/{}", "x".repeat(60));
        let error = path(&places(Path::new(&long)), Uuid::nil()).unwrap_err();
        assert!(error.to_string().contains("--exports-dir"), "{error}");
    }
}
