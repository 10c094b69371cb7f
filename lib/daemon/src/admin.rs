//! The HTTP server for operators: `/metrics`, `/healthz`, `/readyz`. It serves no secrets and changes nothing.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::readiness::Readiness;

/// A bound admin server that does not serve yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// Binds `address`. An address of `[::]` takes IPv4 too, and becomes `0.0.0.0` where the kernel has no IPv6.
    ///
    /// # Errors
    ///
    /// When the address is taken or is not this machine's.
    pub async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let bound = match TcpListener::bind(address).await {
            Err(error)
                if error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
                    && address.ip().is_unspecified() =>
            {
                TcpListener::bind(SocketAddr::from(([0u8; 4], address.port()))).await
            }
            other => other,
        };
        let listener = bound.with_context(|| {
            format!("--admin-address {address}: can't listen there; give another address or port")
        })?;
        let address = listener.local_addr().context("reading the admin address")?;
        Ok(Self { listener, address })
    }

    /// The bound address, with the port that the kernel chose for port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is cancelled. Register everything first: the registry is shared from here on.
    ///
    /// # Errors
    ///
    /// When the listener fails for good.
    pub async fn serve(
        self,
        registry: Registry,
        readiness: Readiness,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let app = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz).with_state(readiness))
            .route("/metrics", get(metrics).with_state(Arc::new(registry)));
        axum::serve(self.listener, app)
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await
            .context("serving the admin address")
    }
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let complaints = readiness.complaints();
    if complaints.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let mut body = String::new();
    for (name, why) in complaints {
        // Writing to a String can't fail.
        let _ = writeln!(body, "{name}: {why}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, body)
}

async fn metrics(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let mut body = String::new();
    match prometheus_client::encoding::text::encode(&mut body, &registry) {
        Ok(()) => (
            StatusCode::OK,
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            body,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_metrics_and_health_are_served_until_shutdown() {
        let admin = Admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = admin.address();
        let mut registry = Registry::default();
        crate::process::register(&mut registry, "test");
        let calls = Counter::<u64>::default();
        registry.register("cni_calls", "Calls", calls.clone());
        let readiness = Readiness::default();
        let check = readiness.check("ovs", "br-int is missing: start ovn-controller");
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(admin.serve(registry, readiness, shutdown.clone()));

        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let waiting = get(address, "/readyz").await;
        assert!(waiting.starts_with("HTTP/1.1 503"), "{waiting}");
        assert!(waiting.ends_with("ovs: br-int is missing: start ovn-controller\n"));
        check.ready();
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        calls.inc();
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("cni_calls_total 1\n"), "{metrics}");
        assert!(
            metrics.contains("process_resident_memory_bytes "),
            "{metrics}"
        );
        assert!(
            metrics.contains("outboard_build_info{program=\"test\""),
            "{metrics}"
        );
        shutdown.cancel();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_taken_address_is_named() {
        let first = Admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let error = Admin::bind(first.address()).await.unwrap_err();
        assert!(format!("{error:#}").contains(&first.address().to_string()));
    }
}
