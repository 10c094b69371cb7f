//! A way to the API server that can be cut, closed and frozen.

use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// They lead to this port.
    Open(u16),
    /// They are closed at once.
    Closed,
    /// They are taken and carry nothing.
    Silent,
}

/// Ends with the value.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    /// Connections older than this are cut.
    cuts: watch::Sender<u32>,
    /// Connections older than this carry nothing any more, without being closed.
    freezes: watch::Sender<u32>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// To the server at `url`.
    pub(crate) async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = watch::Sender::new(State::Open(port(url)));
        let (cuts, freezes) = (watch::Sender::new(0), watch::Sender::new(0));
        let mut task = JoinSet::new();
        let seen = (state.subscribe(), cuts.clone(), freezes.clone());
        task.spawn(async move {
            let (state, cuts, freezes) = seen;
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let state = *state.borrow();
                match state {
                    State::Closed => drop(stream),
                    State::Silent => {
                        let mut cut = cuts.subscribe();
                        connections.spawn(async move {
                            let _ = cut.changed().await;
                            drop(stream);
                        });
                    }
                    State::Open(port) => {
                        let seen = (cuts.subscribe(), freezes.subscribe());
                        connections.spawn(carry(stream, port, seen.0, seen.1));
                    }
                }
            }
        });
        Self {
            address,
            state,
            cuts,
            freezes,
            _task: task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|n| *n += 1);
    }

    /// Ends every connection and takes no others.
    pub(crate) fn close(&self) {
        self.state.send_replace(State::Closed);
        self.cut();
    }

    /// Takes connections (again), to the server at `url`.
    pub(crate) fn open(&self, url: &str) {
        self.state.send_replace(State::Open(port(url)));
    }

    /// Nothing comes through any connection, old or new.
    pub(crate) fn silence(&self) {
        self.state.send_replace(State::Silent);
        self.freeze();
    }

    /// Nothing comes through any connection that there is. New ones work.
    pub(crate) fn freeze(&self) {
        self.freezes.send_modify(|n| *n += 1);
    }
}

fn port(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.parse().unwrap()
}

async fn carry(
    near: TcpStream,
    port: u16,
    mut cut: watch::Receiver<u32>,
    freeze: watch::Receiver<u32>,
) {
    let far = TcpStream::connect(("127.0.0.1", port)).await;
    let Ok(far) = far else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::select! {
        _ = cut.changed() => {}
        () = pump(near_read, far_write, freeze.clone()) => {}
        () = pump(far_read, near_write, freeze.clone()) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut freeze: watch::Receiver<u32>,
) {
    let mut buffer = vec![0; 65_536];
    loop {
        let read = tokio::select! {
            biased;
            _ = freeze.changed() => std::future::pending().await,
            read = from.read(&mut buffer) => read,
        };
        match read {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                if to.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}
