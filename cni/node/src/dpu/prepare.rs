//! What a host's port needs before it can be plugged: the function's representor, the row, the bridge.

use std::sync::Arc;

use channel::Failure;
use channel::proto::{self, Reason};
use tokio::time::Instant;

use super::asked::{self, Asked, Subject, failure};
use super::ports::HostPorts;
use super::representor::Representor;
use crate::attachment::Record;
use crate::row::{Row, Wanted};
use crate::vswitch::IntegrationBridge;

/// Everything that plugging needs.
pub(super) struct Prepared {
    pub(super) record: Record,
    pub(super) bridge: IntegrationBridge,
    pub(super) wiring: proto::Wiring,
}

impl HostPorts {
    /// The function's representor, the row, the bridge; waits for them until the deadline.
    pub(super) async fn prepare(
        &self,
        asked: &Asked,
        deadline: Instant,
    ) -> Result<Prepared, Failure> {
        let not_ready = |error| failure(Reason::NotReady, error);
        self.node.recovered(deadline).await.map_err(not_ready)?;
        let representor = self.representor(asked).await?;
        let row = self.row(asked, deadline).await?;
        let bridge = self.node.vswitch.bridge(deadline).await;
        let bridge = bridge.map_err(not_ready)?;
        let underlay = self.node.mtu(deadline).await.map_err(not_ready)?;
        let mtu = asked::mtu(&row, underlay);
        Ok(Prepared {
            record: asked.record(&row, representor, mtu),
            bridge,
            wiring: asked::wiring(&row, mtu),
        })
    }

    async fn representor(&self, asked: &Asked) -> Result<Representor, Failure> {
        let (function, provider) = (asked.function, Arc::clone(&self.representors));
        let pairing = self.pairing.borrow().clone();
        let controller = pairing.and_then(|pairing| pairing.controller);
        let found = self
            .node
            .host
            .run(move || provider.find(function, controller));
        match found.await {
            Ok(Ok(Some(representor))) => Ok(representor),
            Ok(Ok(None)) => Err(asked::no_function(function, None)),
            Ok(Err(why)) => Err(asked::no_function(function, Some(&why.to_string()))),
            Err(why) => Err(asked::no_function(function, Some(&why.to_string()))),
        }
    }

    async fn row(&self, asked: &Asked, deadline: Instant) -> Result<Row, Failure> {
        let southbound = &self.node.southbound;
        let found = match &asked.subject {
            Subject::Pod { pod, subnet } => {
                let wanted = Wanted {
                    pod,
                    ifname: &asked.id.ifname,
                    subnet: subnet.as_deref(),
                    host: Some(&asked.host),
                };
                southbound.row(&wanted, deadline).await
            }
            Subject::Host => southbound.host_row(&asked.host, deadline).await,
        };
        found.map_err(|error| match southbound.trouble() {
            Some(_) => failure(Reason::NotReady, error),
            None => failure(Reason::NoPort, error),
        })
    }
}
