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
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

/// The longest wait for a directory that the kernel cannot watch, most likely because it is not there yet.
const UNHEARD: Duration = Duration::from_secs(1);
/// The longest wait for one that it watches: what a mount hides, and what another machine does to a shared one, sends no event.
const HEARD: Duration = Duration::from_secs(30);

/// What changes in some directories from now on. Nothing is said of their subdirectories.
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

    /// Waits until a look is worth while: a file has been written, has come or has gone, or nobody can tell. That takes 30 s at most,
    /// and 1 s while one of the directories is not there.
    pub async fn come(self) {
        let told = async {
            // It was made for this one wait: readable means that there is an event.
            match &self.told {
                Some(told) if told.readable().await.is_ok() => {}
                _ => std::future::pending().await,
            }
        };
        // Late is a reason to look as well.
        let _ = tokio::time::timeout(self.limit, told).await;
    }
}

fn listen<D: AsRef<Path>>(
    directories: impl IntoIterator<Item = D>,
    whole: &mut bool,
) -> io::Result<AsyncFd<OwnedFd>> {
    let told = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    // A file that is only made is not whole yet: its end is a CLOSE_WRITE, or a rename.
    let changes = WatchFlags::MOVED_TO
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
        let steps: [&dyn Fn(); 5] = [
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
