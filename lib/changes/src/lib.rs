//! When does something in a directory change? The kernel tells (inotify(7)); what it cannot tell is found by time.
//!
//! Files that somebody else exchanges (certificates, the downward API's, the pairing) are followed in one form: begin to listen, look,
//! wait. What changes during the look is heard by the wait, so nothing is missed, and nothing need be kept from one turn to the next:
//!
//! ```text
//! loop {
//!     let changes = Changes::within([directory]);
//!     look();
//!     changes.come().await;
//! }
//! ```

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

/// The longest wait for a directory that the kernel cannot watch, most likely because it is not there yet.
const UNHEARD: Duration = Duration::from_secs(1);
/// The longest wait for one that it watches: what a mount hides, and what another machine does to a shared one, sends no event.
const HEARD: Duration = Duration::from_secs(30);

/// Room for many events; one with the longest name takes 272 bytes.
const EVENTS: usize = 4096;

/// What changes in some directories from now on. Nothing is said of what is in their subdirectories.
#[derive(Debug)]
pub struct Changes {
    told: Option<AsyncFd<OwnedFd>>,
    limit: Duration,
}

impl Changes {
    /// Begins to listen. Needs tokio's runtime.
    pub fn within<D: AsRef<Path>>(directories: impl IntoIterator<Item = D>) -> Self {
        let mut whole = true;
        let told = listen(directories, &mut whole).ok();
        let heard = whole && told.is_some();
        Self {
            told,
            limit: if heard { HEARD } else { UNHEARD },
        }
    }

    /// Waits until a look is worth while: a file has been written, a file or a directory has come or has gone, or nobody can tell. That
    /// takes 30 s at most, and 1 s while one of the directories is not there.
    pub async fn come(self) {
        let told = async {
            match &self.told {
                Some(told) => heard(told).await,
                None => std::future::pending().await,
            }
        };
        // Late is a reason to look as well.
        let _ = tokio::time::timeout(self.limit, told).await;
    }
}

/// Returns at the first event that counts: a file that is only made is not whole yet, its end is a CLOSE_WRITE, or a rename.
async fn heard(told: &AsyncFd<OwnedFd>) {
    loop {
        let Ok(mut ready) = told.readable().await else {
            return std::future::pending().await;
        };
        let mut room = [MaybeUninit::uninit(); EVENTS];
        let mut events = inotify::Reader::new(told.get_ref(), &mut room);
        loop {
            match events.next() {
                Ok(event) => {
                    let kind = event.events();
                    if !kind.contains(ReadFlags::CREATE) || kind.contains(ReadFlags::ISDIR) {
                        return;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => break ready.clear_ready(),
                // Nobody can tell any more what it was.
                Err(_) => return,
            }
        }
    }
}

fn listen<D: AsRef<Path>>(
    directories: impl IntoIterator<Item = D>,
    whole: &mut bool,
) -> io::Result<AsyncFd<OwnedFd>> {
    let told = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let changes = WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR;
    for directory in directories {
        *whole &= inotify::add_watch(&told, directory.as_ref(), changes).is_ok();
    }
    #[expect(
        deprecated,
        reason = "its successor is unsafe to call; the descriptor lives as long as the value"
    )]
    let told = AsyncFd::new(told);
    told
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn what_changes_after_the_beginning_is_told_at_once() {
        let home = tempfile::tempdir().unwrap();
        let (one, two) = (home.path().join("one"), home.path().join("two"));
        for directory in [&one, &two] {
            std::fs::create_dir(directory).unwrap();
        }
        let steps: [&dyn Fn(); 7] = [
            &|| std::fs::create_dir(one.join("directory")).unwrap(),
            &|| std::fs::remove_dir(one.join("directory")).unwrap(),
            &|| std::fs::write(one.join("file"), "a").unwrap(),
            &|| std::fs::write(two.join("file"), "a").unwrap(),
            &|| std::fs::rename(one.join("file"), one.join("other")).unwrap(),
            &|| std::fs::remove_file(two.join("file")).unwrap(),
            &|| std::fs::remove_dir(&two).unwrap(),
        ];
        let started = Instant::now();
        for step in steps {
            let changes = Changes::within([&one, &two]);
            step();
            changes.come().await;
        }
        assert!(started.elapsed() < HEARD / 2);
    }

    #[tokio::test]
    async fn a_file_is_told_of_when_it_is_whole() {
        let home = tempfile::tempdir().unwrap();
        let changes = Changes::within([home.path()]);
        let begun = std::fs::File::create(home.path().join("file")).unwrap();
        let mut told = std::pin::pin!(changes.come());
        let early = tokio::time::timeout(Duration::from_millis(50), &mut told);
        assert!(early.await.is_err(), "it is empty yet");
        drop(begun);
        let told = tokio::time::timeout(HEARD / 2, told);
        assert!(told.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_there_is_asked_for_every_second_and_peace_every_half_minute() {
        let home = tempfile::tempdir().unwrap();
        let started = tokio::time::Instant::now();
        let changes = Changes::within([home.path().join("missing"), home.path().to_owned()]);
        changes.come().await;
        assert_eq!(started.elapsed(), UNHEARD);
        Changes::within([home.path()]).come().await;
        assert_eq!(started.elapsed(), UNHEARD + HEARD);
    }
}
