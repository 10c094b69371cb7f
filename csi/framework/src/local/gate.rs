//! The pause of a group snapshot.
//!
//! A `transaction` quiesces its volume before it opens a backup's target. The target is an NBD server of this module that
//! lets every daemon wait for its greeting: when all are here, no member takes a write. Then all are served, and each
//! transaction switches its volume; or all are cut off, and each undoes itself. If this program dies the sockets close:
//! no writer can be left paused.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// The longest pause: what it takes to come together, and to be served.
const GATHER: Duration = Duration::from_millis(1200);
const SERVE: Duration = Duration::from_millis(600);

const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\0\x03";
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
const SIZE: u64 = 512;

/// A socket at which daemons wait.
#[derive(Debug)]
pub(crate) struct Gate {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Gate {
    fn drop(&mut self) {
        // It stays behind where the directory is gone: nothing to be done.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Gate {
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            listener: UnixListener::bind(path)?,
            path: path.to_owned(),
        })
    }

    /// The name of the backup's target.
    pub(crate) fn target(&self) -> String {
        let path = self.path.to_string_lossy();
        let encoded: String = path
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                    char::from(byte).to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect();
        format!("nbd+unix:///gate?socket={encoded}")
    }

    /// Waits until `members` daemons are here: then all are quiet. Dropping the result lets all undo.
    pub(crate) async fn gather(&self, members: usize) -> io::Result<Vec<UnixStream>> {
        let gathering = async {
            let mut here = Vec::new();
            while here.len() < members {
                here.push(self.listener.accept().await?.0);
            }
            Ok(here)
        };
        match timeout(GATHER, gathering).await {
            Ok(here) => here,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the writes of some members could not be paused within 1.2 s",
            )),
        }
    }
}

/// Lets all switch. The pause ends with it.
pub(crate) async fn open(here: Vec<UnixStream>) -> io::Result<()> {
    timeout(SERVE, try_join_all(here.into_iter().map(serve)))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map(drop)
}

/// One disk of 512 bytes that takes everything (NBD protocol, "fixed newstyle" and "transmission").
async fn serve(mut peer: UnixStream) -> io::Result<()> {
    peer.write_all(GREETING).await?;
    peer.read_u32().await?;
    loop {
        let (_magic, option) = (peer.read_u64().await?, peer.read_u32().await?);
        let length = peer.read_u32().await?;
        skip(&mut peer, length).await?;
        match option {
            // NBD_OPT_ABORT
            2 => return reply(&mut peer, option, 1, &[]).await,
            // NBD_OPT_GO: NBD_INFO_EXPORT, the size, NBD_FLAG_HAS_FLAGS; then done.
            7 => {
                let mut info = vec![0, 0];
                info.extend(SIZE.to_be_bytes());
                info.extend([0, 1]);
                reply(&mut peer, option, 3, &info).await?;
                reply(&mut peer, option, 1, &[]).await?;
                break;
            }
            // Any other: NBD_REP_ERR_UNSUP.
            _ => reply(&mut peer, option, 0x8000_0001, &[]).await?,
        }
    }
    loop {
        match peer.read_u32().await {
            Ok(REQUEST) => {}
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            Err(_) => return Ok(()),
        }
        let (_flags, kind) = (peer.read_u16().await?, peer.read_u16().await?);
        let (handle, _offset) = (peer.read_u64().await?, peer.read_u64().await?);
        let length = peer.read_u32().await?;
        let mut data = Vec::new();
        match kind {
            0 if u64::from(length) <= SIZE => data.resize(length as usize, 0),
            0 => return Err(io::ErrorKind::InvalidData.into()),
            1 => skip(&mut peer, length).await?,
            // NBD_CMD_DISC
            2 => return Ok(()),
            _ => {}
        }
        let mut answer = SIMPLE_REPLY.to_be_bytes().to_vec();
        answer.extend(0u32.to_be_bytes());
        answer.extend(handle.to_be_bytes());
        answer.extend(data);
        peer.write_all(&answer).await?;
    }
}

async fn reply(peer: &mut UnixStream, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut bytes = OPTION_REPLY.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    peer.write_all(&bytes).await
}

async fn skip(peer: &mut UnixStream, length: u32) -> io::Result<()> {
    if length > 1 << 20 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    peer.read_exact(&mut bytes).await.map(drop)
}
