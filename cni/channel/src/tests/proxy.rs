//! A wire that can stop forwarding, as a switch does that is dead: nobody is told.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Which direction goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flows {
    pub(super) to_dpu: bool,
    pub(super) to_host: bool,
}

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    flows: watch::Sender<Flows>,
    /// Connections that are there end when it changes.
    broken: watch::Sender<u64>,
}

pub(super) const ALL: Flows = Flows {
    to_dpu: true,
    to_host: true,
};

impl Proxy {
    pub(super) async fn to(dpu: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let flows = watch::Sender::new(ALL);
        let broken = watch::Sender::new(0);
        let (flow, cut) = (flows.subscribe(), broken.subscribe());
        tokio::spawn(async move {
            while let Ok((host, _)) = listener.accept().await {
                let (flow, mut cut) = (flow.clone(), cut.clone());
                cut.borrow_and_update();
                tokio::spawn(async move {
                    let Ok(dpu) = TcpStream::connect(dpu).await else {
                        return;
                    };
                    let (from_host, to_host) = host.into_split();
                    let (from_dpu, to_dpu) = dpu.into_split();
                    tokio::select! {
                        () = forward(from_host, to_dpu, flow.clone(), |flows| flows.to_dpu) => {}
                        () = forward(from_dpu, to_host, flow, |flows| flows.to_host) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            flows,
            broken,
        }
    }

    pub(super) fn flow(&self, flows: Flows) {
        self.flows.send_replace(flows);
    }

    pub(super) fn stop(&self) {
        self.flow(Flows {
            to_dpu: false,
            to_host: false,
        });
    }

    /// Ends the connections that are there.
    pub(super) fn break_all(&self) {
        self.broken.send_modify(|times| *times += 1);
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flows>,
    ours: fn(&Flows) -> bool,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if flow.wait_for(ours).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
