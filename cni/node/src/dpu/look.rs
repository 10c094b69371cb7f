//! Check: is a host's attachment still as Attach left it? Looks at the journal, the kernel, Open vSwitch and the row; changes nothing.

use channel::Failure;
use channel::proto::{self, Reason};
use tokio::time::Instant;

use super::asked::{self, failure};
use super::plugging;
use super::ports::HostPorts;
use super::prepare::no_row;
use super::representor::Plug;
use crate::attachment::{AttachmentId, Record};
use crate::check;
use crate::row::{Row, Wanted};

impl HostPorts {
    /// The wiring as it is now.
    pub(super) async fn look(
        &self,
        host: &str,
        id: &AttachmentId,
        attempt: u64,
        deadline: Instant,
    ) -> Result<proto::Wiring, Failure> {
        let _alone = self.node.locks.lock(&id.host_link()).await;
        let differs = |what: &str| failure(Reason::Unspecified, check::differs(id, what));
        let record = self.node.store.get(id);
        let Some(record) = record.filter(|record| record.ordinal == attempt) else {
            return Err(differs("the DPU knows no such attachment"));
        };
        let link = record.link();
        let seen = plugging::link(&self.node, &link).await;
        match seen.map_err(|error| failure(Reason::Unspecified, error))? {
            // DPDK's have none.
            None if record.far().is_some_and(|far| far.plug == Plug::System) => {
                return Err(differs("its representor is gone"));
            }
            Some(seen) if !seen.up => return Err(differs("its representor is down")),
            _ => {}
        }
        let port = check::port(&self.node, id, &link, deadline).await;
        port.map_err(|error| failure(Reason::Unspecified, error))?;
        let row = self.row_of(host, &record).await?;
        let mtu = record.far().map_or(0, |far| far.mtu);
        Ok(asked::wiring(&row, mtu))
    }

    /// The row of a recorded attachment as it is now.
    async fn row_of(&self, host: &str, record: &Record) -> Result<Row, Failure> {
        let southbound = &self.node.southbound;
        let now = Instant::now();
        let found = if record.pod.uid.is_empty() {
            southbound.host_row(host, now).await
        } else {
            let wanted = Wanted {
                pod: &record.pod,
                ifname: &record.id.ifname,
                subnet: None,
                host: Some(host),
            };
            southbound.row(&wanted, now).await
        };
        found.map_err(no_row)
    }
}
