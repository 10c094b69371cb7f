//! A man in the middle that speaks the protocol: between a client and a real server it answers in
//! the server's place, injects requests, swallows, or cuts the connection.

use jsonrpc::Framer;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What to do with a message.
pub(crate) enum Verdict {
    Forward,
    /// Forward it, and send this right after it.
    Then(Value),
    /// Send this back to where it came from.
    Answer(Value),
    Swallow,
    /// Close the connection; the message is forwarded first.
    Cut,
}

type Rule = Arc<dyn Fn(&Value) -> Verdict + Send + Sync>;

pub(crate) struct Proxy {
    directory: TempDir,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Judges what the client sends with one rule and what the server sends with the other.
    pub(crate) fn start(
        server: PathBuf,
        from_client: impl Fn(&Value) -> Verdict + Send + Sync + 'static,
        from_server: impl Fn(&Value) -> Verdict + Send + Sync + 'static,
    ) -> Proxy {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("sock")).unwrap();
        let open = watch::Sender::new(true);
        let rules: [Rule; 2] = [Arc::new(from_client), Arc::new(from_server)];
        let task = tokio::spawn(accept(listener, server, rules, open.subscribe()));
        Proxy {
            directory,
            open,
            task,
        }
    }

    /// One that forwards everything.
    pub(crate) fn plain(server: PathBuf) -> Proxy {
        Proxy::start(server, |_| Verdict::Forward, |_| Verdict::Forward)
    }

    pub(crate) fn remote(&self) -> ovsdb::Remote {
        ovsdb::Remote::Unix(self.directory.path().join("sock"))
    }

    /// Closes all connections and accepts none until [`Proxy::resume`].
    pub(crate) fn pause(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn resume(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: UnixListener,
    server: PathBuf,
    rules: [Rule; 2],
    mut open: watch::Receiver<bool>,
) {
    loop {
        open.wait_for(|open| *open).await.unwrap();
        let (client, _) = listener.accept().await.unwrap();
        if *open.borrow() {
            tokio::spawn(connection(
                client,
                server.clone(),
                rules.clone(),
                open.clone(),
            ));
        }
    }
}

async fn connection(
    client: UnixStream,
    server: impl AsRef<Path>,
    [from_client, from_server]: [Rule; 2],
    mut open: watch::Receiver<bool>,
) {
    let Ok(server) = UnixStream::connect(server).await else {
        return;
    };
    let (mut client_in, client_out) = client.into_split();
    let (mut server_in, server_out) = server.into_split();
    let client_out = tokio::sync::Mutex::new(client_out);
    let server_out = tokio::sync::Mutex::new(server_out);
    tokio::select! {
        () = pump(&mut client_in, &server_out, &client_out, &*from_client) => {}
        () = pump(&mut server_in, &client_out, &server_out, &*from_server) => {}
        _ = open.wait_for(|open| !open) => {}
    }
}

async fn pump<R: AsyncRead + Unpin, F: AsyncWrite + Unpin, B: AsyncWrite + Unpin>(
    input: &mut R,
    forward: &tokio::sync::Mutex<F>,
    back: &tokio::sync::Mutex<B>,
    rule: &(dyn Fn(&Value) -> Verdict + Send + Sync),
) {
    let mut framer = Framer::new(1 << 30);
    loop {
        while let Some(frame) = framer.next_frame().unwrap() {
            // A large message is not parsed: it would hold up what the test looks at.
            let verdict = match frame.len() > 1 << 20 {
                true => rule(&Value::Null),
                false => rule(&serde_json::from_slice(&frame).unwrap()),
            };
            let (bytes, cut) = match verdict {
                Verdict::Forward => (frame, false),
                Verdict::Then(more) => ([frame, more.to_string().into_bytes()].concat(), false),
                Verdict::Cut => (frame, true),
                Verdict::Swallow => continue,
                Verdict::Answer(answer) => {
                    let answer = answer.to_string();
                    back.lock()
                        .await
                        .write_all(answer.as_bytes())
                        .await
                        .unwrap();
                    continue;
                }
            };
            if forward.lock().await.write_all(&bytes).await.is_err() || cut {
                return;
            }
        }
        if matches!(input.read_buf(framer.buffer()).await, Ok(0) | Err(_)) {
            return;
        }
    }
}
