//! A TLS connection whose peer is known, and that can be cut from anywhere.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use crate::Peer;

/// Bytes to and from a [`Peer`]. With tonic each request has the peer in its extensions.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// Wakes who waits for a byte when the connection is cut.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    /// `None`: no certificate, or one that can't be read.
    pub(crate) fn new(stream: TlsStream<TcpStream>) -> Option<Self> {
        let (tcp, session) = stream.get_ref();
        let certificate = session.peer_certificates()?.first()?;
        let peer = Peer::new(certificate, tcp.peer_addr().ok())?;
        let cut = Box::pin(peer.token().clone().cancelled_owned());
        Some(Self { stream, peer, cut })
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The certificate that the other end has shown, as DER.
    #[must_use]
    pub fn shown(&self) -> Vec<u8> {
        let certificates = self.stream.get_ref().1.peer_certificates();
        let first = certificates.and_then(<[_]>::first);
        first.map(|shown| shown.to_vec()).unwrap_or_default()
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.peer.token().is_cancelled() || self.cut.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the connection was cut",
            ));
        }
        Ok(())
    }

    fn seen<T>(&self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(why)) = &poll {
            self.peer.broke(why);
        }
        poll
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.peer.cut();
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        let poll = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.seen(poll)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(cx)?;
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.seen(poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.seen(poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A farewell to somebody who may not hear it must not be waited for.
        if self.poll_cut(cx).is_err() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}
