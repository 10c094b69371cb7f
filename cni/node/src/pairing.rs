//! Which pair this node is in: follows the file that the container `identity` keeps beside the certificate of the channel.

use std::io;
use std::path::{Path, PathBuf};

use api::pairing::{PAIRING_FILE, Pairing};
use changes::Changes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

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
    let mut changes = Changes::within([&directory]);
    look(&directory, &sender);
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        loop {
            changes.come().await;
            changes = Changes::within([&directory]);
            look(&directory, &sender);
        }
    }));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        assert!(started.elapsed() < Duration::from_secs(15));
        stop.cancel();
    }
}
