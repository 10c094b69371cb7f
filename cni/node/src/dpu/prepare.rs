//! What a host's port needs before it can be plugged: the function's representor, the row, the bridge.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use channel::Failure;
use channel::proto::{self, Reason};
use tokio::time::Instant;

use super::asked::{self, Asked, Subject, failure};
use super::ports::HostPorts;
use super::representor::{CardFunction, Representor};
use crate::attachment::Record;
use crate::row::{Row, Wanted};
use crate::southbound::Unfound;
use crate::vswitch::IntegrationBridge;

/// Everything that plugging needs.
pub(super) struct Prepared {
    pub(super) record: Record,
    pub(super) bridge: IntegrationBridge,
    pub(super) wiring: proto::Wiring,
}

impl HostPorts {
    /// The row, the bridge, the MTU; waits for them until the deadline. `representor` is that of the function.
    pub(super) async fn prepare(
        &self,
        asked: &Asked,
        representor: Representor,
        deadline: Instant,
    ) -> Result<Prepared, Failure> {
        let not_ready = |error| failure(Reason::NotReady, error);
        self.node.recovered(deadline).await.map_err(not_ready)?;
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

    /// The representors of functions.
    pub(super) async fn find(
        &self,
        functions: Vec<CardFunction>,
    ) -> HashMap<CardFunction, Result<Representor, Failure>> {
        let provider = Arc::clone(&self.representors);
        let pairing = self.pairing.borrow().clone();
        let controller = pairing.and_then(|pairing| pairing.controller);
        let wanted = functions.clone();
        let finding = self
            .node
            .host
            .run(move || provider.find_all(&wanted, controller));
        let found = match finding.await {
            Ok(found) => found,
            Err(why) => {
                let none = |function| asked::no_function(function, Some(&why.to_string()));
                let each = functions.into_iter();
                return each
                    .map(|function| (function, Err(none(function))))
                    .collect();
            }
        };
        let judge = |(function, found): (CardFunction, io::Result<Option<Representor>>)| {
            let judged = match found {
                Ok(Some(representor)) => Ok(representor),
                Ok(None) => Err(asked::no_function(function, None)),
                Err(why) => Err(asked::no_function(function, Some(&why.to_string()))),
            };
            (function, judged)
        };
        functions.into_iter().zip(found).map(judge).collect()
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
        found.map_err(no_row)
    }
}

/// A database that cannot be asked does not say that there is no port.
pub(super) fn no_row(unfound: Unfound) -> Failure {
    let reason = if unfound.away {
        Reason::NotReady
    } else {
        Reason::NoPort
    };
    failure(reason, unfound.error)
}
