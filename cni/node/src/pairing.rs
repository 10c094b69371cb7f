//! Which pair this node is in: follows the file that the container `identity` keeps beside the certificate of the channel.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::pairing::{PAIRING_FILE, Pairing};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How soon it is looked at again when the kernel does not tell: the directory is not there yet.
const PERIOD: Duration = Duration::from_secs(1);
/// The same when it does: what a mount hides sends no event.
const LONG_PERIOD: Duration = Duration::from_secs(30);

/// The pair that the file in `directory` names now.
///
/// # Errors
/// A sentence: it cannot be read. A file that is not there is no error.
pub(crate) fn read(directory: &Path) -> Result<Option<Pairing>, String> {
    let path = directory.join(PAIRING_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => text
            .parse()
            .map(Some)
            .map_err(|why| format!("{}: {why}", path.display())),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(format!("{}: {why}", path.display())),
    }
}

/// Follows the file until `stop`. One that cannot be read changes nothing: it is replaced as a whole.
pub(crate) fn follow(
    directory: PathBuf,
    stop: CancellationToken,
) -> watch::Receiver<Option<Pairing>> {
    let (sender, receiver) = watch::channel(None);
    look(&directory, &sender);
    tokio::spawn(async move {
        let mut told = None;
        while !stop.is_cancelled() {
            if told.is_none() {
                told = watch_directory(&directory).ok();
                // It may have come before the watch did.
                look(&directory, &sender);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(if told.is_some() { LONG_PERIOD } else { PERIOD }) => {
                    // The directory itself may have been replaced.
                    told = None;
                }
                heard = heard(told.as_ref()) => if heard.is_err() { told = None },
            }
            look(&directory, &sender);
        }
    });
    receiver
}

fn look(directory: &Path, sender: &watch::Sender<Option<Pairing>>) {
    let found = match read(directory) {
        Ok(found) => found,
        Err(sentence) => return warn!("the pair is kept as it was: {sentence}"),
    };
    sender.send_if_modified(|known| {
        if *known == found {
            return false;
        }
        match &found {
            Some(pair) => {
                info!(dpu = pair.dpu, host = pair.host, address = %pair.socket_address(), "this node is in a pair");
            }
            None => info!("this node is in no pair"),
        }
        *known = found;
        true
    });
}

/// What tokio can wait for.
struct Told(Inotify);

impl AsRawFd for Told {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn watch_directory(directory: &Path) -> io::Result<AsyncFd<Told>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let changes = AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF;
    inotify.add_watch(directory, changes)?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe to call; the descriptor lives as long as the value"
    )]
    let told = AsyncFd::new(Told(inotify));
    told
}

/// Waits for a change in the directory; for ever without a watch.
async fn heard(told: Option<&AsyncFd<Told>>) -> io::Result<()> {
    let Some(told) = told else {
        return std::future::pending().await;
    };
    loop {
        let mut ready = told.readable().await?;
        match ready.try_io(|inotify| inotify.get_ref().0.read_events().map_err(io::Error::from)) {
            Ok(read) => return read.map(drop),
            Err(_would_block) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_is_followed_as_it_comes_changes_and_goes() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("channel");
        let stop = CancellationToken::new();
        let mut pair = follow(directory.clone(), stop.clone());
        assert_eq!(*pair.borrow_and_update(), None);
        std::fs::create_dir(&directory).unwrap();
        let write = |dpu: &str| {
            let text = format!(
                r#"{{"dpu":"{dpu}","host":"h1","address":"198.18.0.12","port":9478,"controller":null,"uid":"u"}}"#
            );
            let temporary = directory.join(".new");
            std::fs::write(&temporary, text).unwrap();
            std::fs::rename(temporary, directory.join(PAIRING_FILE)).unwrap();
        };
        let is = async |pair: &mut watch::Receiver<Option<Pairing>>, dpu: Option<&str>| {
            let wanted = |now: &Option<Pairing>| now.as_ref().map(|pair| pair.dpu.as_str()) == dpu;
            tokio::time::timeout(Duration::from_secs(20), pair.wait_for(wanted))
                .await
                .unwrap()
                .unwrap();
        };
        write("d1");
        is(&mut pair, Some("d1")).await;
        // From here on the kernel tells.
        let started = std::time::Instant::now();
        write("d2");
        is(&mut pair, Some("d2")).await;
        std::fs::write(directory.join(PAIRING_FILE), "{").unwrap();
        std::fs::remove_file(directory.join(PAIRING_FILE)).unwrap();
        is(&mut pair, None).await;
        assert!(started.elapsed() < LONG_PERIOD / 2);
        stop.cancel();
    }
}
