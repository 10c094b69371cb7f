//! OVN's own time: what no CNI plugin on it can be faster than.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ovsdb::{Client, Condition, Datum, MonitorSpec, Mutation, Replica, Transaction, Uuid};
use tokio::time::Instant;

use super::ports::{self, Databases, LIMIT, Port};
use crate::node::Node;

ovsdb::table! {
    /// An interface of Open vSwitch.
    struct Interface in "Interface" {
        name: String,
        external_ids: BTreeMap<String, String>,
        error: Option<String>,
    }
}

/// The node's Open vSwitch, written to directly.
pub(super) struct Floor {
    ovs: Client,
    interfaces: Replica,
}

/// A plugged port: its time, and its row for [`Floor::unplug`].
pub(super) struct Plugged {
    pub(super) time: Duration,
    port: Uuid,
}

impl Floor {
    /// Connects. In a tokio runtime.
    pub(super) fn connect(node: &Node) -> Result<Self> {
        let socket = node.path("/run/openvswitch/db.sock");
        let ovs = ports::client("Open_vSwitch", &format!("unix:{}", socket.display()))?;
        let interfaces = ovs.monitor(MonitorSpec::new().table::<Interface>());
        Ok(Self { ovs, interfaces })
    }

    /// From the insert of Port and Interface to `ovn-installed`. The link is there, and so is the logical port.
    pub(super) async fn plug(&self, link: &str, port: &Port) -> Result<Plugged> {
        let begun = Instant::now();
        let (row, interface) = self.insert(link, port).await?;
        self.installed(interface, link).await?;
        Ok(Plugged {
            time: begun.elapsed(),
            port: row,
        })
    }

    /// The same when the logical port is inserted at the same moment; the row in NB too.
    pub(super) async fn plug_new(
        &self,
        databases: &Databases,
        link: &str,
        port: &Port,
    ) -> Result<(Plugged, Uuid)> {
        let mut transaction = Transaction::new();
        let name = port.insert(&mut transaction);
        let begun = Instant::now();
        let logical = databases.nb.transact(transaction, begun + LIMIT);
        let (logical, local) = tokio::join!(logical, self.insert(link, port));
        let (row, interface) = local?;
        self.installed(interface, link).await?;
        let time = begun.elapsed();
        let logical = logical?
            .inserted(&name)
            .context("an inserted row has a UUID")?;
        Ok((Plugged { time, port: row }, logical))
    }

    /// Removes the port.
    pub(super) async fn unplug(&self, plugged: &Plugged) -> Result<()> {
        let mut transaction = Transaction::new();
        let gone = Mutation::delete("ports", vec![plugged.port]);
        transaction.mutate("Bridge", [Condition::eq("name", "br-int")], [gone]);
        self.ovs
            .transact(transaction, Instant::now() + LIMIT)
            .await?;
        Ok(())
    }

    async fn insert(&self, link: &str, port: &Port) -> Result<(Uuid, Uuid)> {
        let ids = BTreeMap::from([
            ("iface-id", port.name.clone()),
            ("iface-id-ver", port.pod.uid.clone()),
            ("attached-mac", port.facts.mac.to_string()),
        ]);
        let mut transaction = Transaction::new();
        let interface = transaction.insert(
            "Interface",
            [
                ("name", Datum::from(link)),
                ("external_ids", Datum::from(ids)),
            ],
        );
        let row = transaction.insert(
            "Port",
            [
                ("name", Datum::from(link)),
                ("interfaces", Datum::from(interface.clone())),
            ],
        );
        let bridge = [Condition::eq("name", "br-int")];
        transaction.mutate("Bridge", bridge, [Mutation::insert("ports", &row)]);
        let outcome = self
            .ovs
            .transact(transaction, Instant::now() + LIMIT)
            .await?;
        let uuid = |name| outcome.inserted(name).context("an inserted row has a UUID");
        Ok((uuid(&row)?, uuid(&interface)?))
    }

    async fn installed(&self, interface: Uuid, link: &str) -> Result<()> {
        let error = ports::when(
            &self.interfaces,
            &format!("ovn-installed of {link}"),
            |rows| {
                let row = rows.row::<Interface>(interface).ok().flatten()?;
                let done = row
                    .external_ids
                    .get("ovn-installed")
                    .is_some_and(|v| v == "true");
                row.error.map(Some).or(done.then_some(None))
            },
        )
        .await?;
        match error {
            Some(error) => bail!("Open vSwitch cannot use link {link}: {error}"),
            None => Ok(()),
        }
    }
}
