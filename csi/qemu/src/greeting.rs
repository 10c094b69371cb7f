//! The first client of a vhost-user socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// A message of vhost-user: GET_FEATURES (1) in version 1 with nothing behind it.
const QUESTION: [u8; 12] = [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
/// Header and 8 bytes.
const ANSWER: usize = 20;
/// A daemon that has no client answers at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who was a vhost-user socket's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// The caller.
    Answered,
    /// Most likely somebody else is: a daemon takes one client at a time, and lets the next one wait.
    Waiting,
}

/// Is a client of a vhost-user socket of qemu-storage-daemon's, and goes. QEMU 10 dies of a block_resize while a socket never had one: it
/// tells the guest through what a first client sets up, and does not look whether that is there.
///
/// # Errors
/// Nobody listens there, or who does broke off.
pub async fn greet(socket: &Path) -> io::Result<Greeting> {
    let mut stream = UnixStream::connect(socket).await?;
    let talk = async {
        stream.write_all(&QUESTION).await?;
        stream.read_exact(&mut [0; ANSWER]).await
    };
    match tokio::time::timeout(PATIENCE, talk).await {
        Ok(answered) => answered.map(|_| Greeting::Answered),
        Err(_) => Ok(Greeting::Waiting),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_answers_was_greeted_and_who_does_not_has_another_client() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        assert!(greet(&path).await.is_err());
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let daemon = async {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut asked = [0; QUESTION.len()];
            client.read_exact(&mut asked).await.unwrap();
            client.write_all(&[0; ANSWER]).await.unwrap();
            asked
        };
        let (greeted, asked) = tokio::join!(greet(&path), daemon);
        assert_eq!((greeted.unwrap(), asked), (Greeting::Answered, QUESTION));
        assert_eq!(greet(&path).await.unwrap(), Greeting::Waiting);
    }
}
