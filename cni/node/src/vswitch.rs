//! The local Open vSwitch database: ports of attachments on the integration bridge, and whether OVN has taken them up.
//!
//! One transaction plugs a port and removes every other Interface of ours with the same iface-id: two would both report
//! `ovn-installed` while one of them is deaf (design, §2.3). Rows are removed by UUID, which is compare-and-delete: a
//! younger sandbox's port is another row.

mod abilities;
mod claim;
mod refusal;

use std::collections::BTreeMap;
use std::time::Duration;

use cni_bin::code;
use ovsdb::{Client, Condition, Datum, MonitorSpec, Mutation, Replica, Row, Transaction, Uuid};
use tokio::time::Instant;
use tracing::warn;

use crate::attachment::{AttachmentId, Record};
use crate::error::Error;
use crate::reconcile::plan::ObservedPort;
use crate::rows::{external_id, select, text};
use crate::vacancies::{LookedAt, Vacancies};
pub(crate) use abilities::Abilities;
use claim::{OWNER_KEY, OWNER_POD};
use daemon::keyed::Locks;

/// The integration bridge; ovn-controller makes it.
pub(crate) const BRIDGE: &str = "br-int";
/// The datapath type of a bridge that ovs-vswitchd forwards for by itself.
const USERSPACE: &str = "netdev";

ovsdb::table! {
    /// An interface of Open vSwitch.
    pub(crate) struct Interface in "Interface" {
        name: String,
        r#type: String,
        options: BTreeMap<String, String>,
        status: BTreeMap<String, String>,
        mtu: Option<i64>,
        mtu_request: Option<i64>,
        ofport: Option<i64>,
        error: Option<String>,
        external_ids: BTreeMap<String, String>,
    }
}

ovsdb::table! {
    /// A port of Open vSwitch.
    struct Port in "Port" {
        name: String,
        interfaces: Vec<Uuid>,
    }
}

ovsdb::table! {
    /// A bridge of Open vSwitch.
    struct Bridge in "Bridge" {
        name: String,
        ports: Vec<Uuid>,
        datapath_type: String,
    }
}

ovsdb::table! {
    /// The root row: numbers of the newest change, and of the newest one that ovs-vswitchd has looked at; what it can do.
    struct Root in "Open_vSwitch" {
        next_cfg: i64,
        cur_cfg: i64,
        dpdk_initialized: bool,
        dpdk_version: Option<String>,
        iface_types: Vec<String>,
        other_config: BTreeMap<String, String>,
    }
}

/// A handle of the local database.
pub(crate) struct Vswitch {
    client: Client,
    replica: Replica,
    /// Two plugs of one iface-id must see each other's rows.
    plugs: Locks,
    vacancies: Vacancies,
    /// What --datapath-type says of br-int.
    userspace: bool,
    begun: Instant,
}

/// The first contents come within milliseconds of the start: a DEL that comes before them waits this long, no longer.
const FIRST_CONTENTS: Duration = Duration::from_secs(1);

/// The integration bridge as far as attachments need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IntegrationBridge {
    uuid: Uuid,
    /// Packets are switched in user space: interfaces must compute their own checksums.
    pub(crate) userspace: bool,
}

impl Vswitch {
    /// `datapath` is the datapath type that br-int is to have.
    pub(crate) fn new(client: Client, datapath: &str) -> Self {
        let replica = client.monitor(
            MonitorSpec::new()
                .table::<Interface>()
                .table::<Port>()
                .table::<Bridge>()
                .table::<Root>(),
        );
        Self {
            client,
            replica,
            plugs: Locks::default(),
            vacancies: Vacancies::default(),
            userspace: datapath == USERSPACE,
            begun: Instant::now(),
        }
    }

    /// Changes whenever the database does.
    pub(crate) fn changed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.replica.changed()
    }

    /// The client, to share its connection.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Why the database cannot be relied on now.
    pub(crate) fn trouble(&self) -> Option<String> {
        crate::chassis::trouble(&self.client, &self.replica)
    }

    /// The integration bridge; waits for it until the deadline.
    ///
    /// ovn-controller makes it before it knows of which datapath type: what is plugged then would have wrong checksums.
    pub(crate) async fn bridge(&self, deadline: Instant) -> Result<IntegrationBridge, Error> {
        let mut changed = self.replica.changed();
        loop {
            let found = self
                .replica
                .read(|rows| select::<Bridge>(rows, |row| text(row, "name") == Some(BRIDGE)).pop());
            let found = found.filter(|_| self.replica.synced());
            let exists = found.is_some();
            if let Some(bridge) =
                found.filter(|bridge| (bridge.datapath_type == USERSPACE) == self.userspace)
            {
                return Ok(IntegrationBridge {
                    uuid: bridge.uuid,
                    userspace: self.userspace,
                });
            }
            if !crate::wait::change(&mut changed, deadline).await {
                return Err(self
                    .unavailable()
                    .unwrap_or_else(|| refusal::no_bridge(exists)));
            }
        }
    }

    /// Plugs the port of an attachment, in one transaction; returns the new Interface. `link` is the index of a representor.
    pub(crate) async fn plug(
        &self,
        bridge: IntegrationBridge,
        record: &Record,
        link: Option<u32>,
        deadline: Instant,
    ) -> Result<Uuid, Error> {
        let port = &record.port;
        let name = record.link();
        let _alone = self.plugs.lock(&port.iface_id).await;
        let old = self.ports_that(|row| {
            text(row, "name") == Some(&name) || claim::is_for(row, &port.iface_id)
        });
        let mut transaction = Transaction::new();
        self.unplug_ops(&mut transaction, &old);
        let interface = transaction.insert("Interface", claim::columns(record, link));
        let row = transaction.insert(
            "Port",
            [
                ("name", Datum::from(name.as_str())),
                ("interfaces", Datum::from(interface.clone())),
                // ovs-ctl removes such ports after a reboot, before ovs-vswitchd looks for their links.
                ("other_config", Datum::map([("transient", "true")])),
                ("external_ids", Datum::map([(OWNER_KEY, OWNER_POD)])),
            ],
        );
        let joins = transaction.len();
        transaction.mutate(
            "Bridge",
            [Condition::uuid(bridge.uuid)],
            [Mutation::insert("ports", Datum::from(row))],
        );
        transaction.comment(format!("outboard cni-node: plug {}", port.iface_id));
        let outcome = self
            .client
            .transact(transaction, deadline)
            .await
            .map_err(|error| refusal::refused(&error))?;
        // Rows that no bridge refers to are gone again at once.
        match (outcome.count(joins), outcome.inserted(&interface)) {
            (Some(1), Some(interface)) => {
                // Before the next one may take it over: who does not find the row from now on knows that it was removed.
                let mut changed = self.replica.changed();
                while self.row(interface).is_none()
                    && crate::wait::change(&mut changed, deadline).await
                {}
                Ok(interface)
            }
            _ => Err(Error::new(
                code::TRY_AGAIN_LATER,
                format!("The integration bridge {BRIDGE} was replaced while a port was plugged."),
                "The runtime tries again by itself; look who removes bridges on this node.",
            )),
        }
    }

    /// Removes what an attachment has in OVS; nothing is fine.
    pub(crate) async fn unplug(&self, id: &AttachmentId, deadline: Instant) -> Result<(), Error> {
        let first = deadline.min(self.begun + FIRST_CONTENTS);
        let mut changed = self.replica.changed();
        while self.trouble().is_some() && crate::wait::change(&mut changed, first).await {}
        if let Some(error) = self.unavailable() {
            return Err(error);
        }
        self.remove(&self.ports_of(id), deadline).await
    }

    /// Removes exactly these rows, as far as they are still there.
    pub(crate) async fn remove(
        &self,
        ports: &[ObservedPort],
        deadline: Instant,
    ) -> Result<(), Error> {
        let mut transaction = Transaction::new();
        self.unplug_ops(&mut transaction, ports);
        if transaction.is_empty() {
            return Ok(());
        }
        transaction.mutate("Open_vSwitch", [], [Mutation::add("next_cfg", 1)]);
        let numbered = transaction.len();
        transaction.select("Open_vSwitch", [], ["next_cfg"]);
        transaction.comment("outboard cni-node: unplug");
        let outcome = self
            .client
            .transact(transaction, deadline)
            .await
            .map_err(|error| refusal::refused(&error))?;
        let number = outcome
            .rows(numbered)
            .first()
            .and_then(|row| row.get("next_cfg")?.one()?.as_integer());
        let names = ports.iter().map(|port| port.name.clone());
        if let Some(looked_at) = self.looked_at() {
            self.vacancies
                .note(names, number.unwrap_or_default(), looked_at);
        }
        Ok(())
    }

    /// Waits until ovs-vswitchd holds no former link of that name ([`crate::vacancies`]): before there is a new one, for it
    /// writes the flags of the one that it lets go of by name.
    pub(crate) async fn vacate(&self, name: &str, deadline: Instant) -> Result<(), Error> {
        let former: Vec<_> = self.port(name).into_iter().collect();
        self.remove(&former, deadline).await?;
        let mut changed = self.replica.changed();
        let free = |at| self.vacancies.is_free(name, at);
        while !self.looked_at().is_some_and(free) {
            if !crate::wait::change(&mut changed, deadline).await {
                return Err(Error::new(
                    code::TRY_AGAIN_LATER,
                    format!("ovs-vswitchd has not let go of the former link {name}."),
                    "See that ovs-vswitchd runs on this node, and its log.",
                ));
            }
        }
        Ok(())
    }

    /// The newest change that ovs-vswitchd has looked at; none while the database is read.
    fn looked_at(&self) -> Option<LookedAt> {
        let root = self
            .replica
            .read(|rows| select::<Root>(rows, |_| true).pop());
        root.map(|root| LookedAt {
            database: root.uuid,
            change: root.cur_cfg,
        })
    }

    /// All Interfaces of attachments.
    pub(crate) fn interfaces(&self) -> Vec<Interface> {
        self.replica
            .read(|rows| select(rows, |row| external_id(row, OWNER_KEY) == Some(OWNER_POD)))
    }

    /// What they say of their attachments.
    pub(crate) fn ports(&self) -> Vec<ObservedPort> {
        self.interfaces().into_iter().map(claim::observed).collect()
    }

    /// Those of one attachment.
    pub(crate) fn ports_of(&self, id: &AttachmentId) -> Vec<ObservedPort> {
        self.ports_that(|row| claim::is_of(row, id))
    }

    /// The one of that name.
    pub(crate) fn port(&self, name: &str) -> Option<ObservedPort> {
        self.ports_that(|row| text(row, "name") == Some(name)).pop()
    }

    /// A node has hundreds: they are chosen before they are decoded.
    fn ports_that(&self, wanted: impl Fn(&Row) -> bool) -> Vec<ObservedPort> {
        let ours = |row: &Row| wanted(row) && external_id(row, OWNER_KEY) == Some(OWNER_POD);
        let rows: Vec<Interface> = self.replica.read(|rows| select(rows, ours));
        rows.into_iter().map(claim::observed).collect()
    }

    /// The Interface of that name, whosever it is.
    pub(crate) fn interface(&self, name: &str) -> Option<Interface> {
        self.replica
            .read(|rows| select(rows, |row| text(row, "name") == Some(name)).pop())
    }

    /// An Interface by its row.
    pub(crate) fn row(&self, interface: Uuid) -> Option<Interface> {
        self.replica
            .read(|rows| rows.row(interface))
            .unwrap_or_else(|error| {
                warn!("a row is ignored: {error}");
                None
            })
    }

    /// The error of a call that cannot be served while the database is away.
    pub(crate) fn unavailable(&self) -> Option<Error> {
        self.trouble().map(|trouble| {
            Error::new(
                code::TRY_AGAIN_LATER,
                format!("The local Open vSwitch database cannot be used: {trouble}."),
                "See that ovsdb-server runs on this node and that its socket is mounted into cni-node's pod.",
            )
        })
    }

    /// Ports and Interfaces are no root rows: unreferenced, they go.
    fn unplug_ops(&self, transaction: &mut Transaction, old: &[ObservedPort]) {
        if old.is_empty() {
            return;
        }
        self.replica.read(|rows| {
            // A port has the name of its one interface.
            let ports: Vec<Uuid> = select::<Port>(rows, |row| {
                old.iter().any(|old| text(row, "name") == Some(&old.name))
            })
            .into_iter()
            .filter(|port| {
                old.iter()
                    .any(|old| port.interfaces.contains(&old.interface))
            })
            .map(|port| port.uuid)
            .collect();
            for bridge in select::<Bridge>(rows, |_| true) {
                let here: Vec<Uuid> = ports
                    .iter()
                    .copied()
                    .filter(|port| bridge.ports.contains(port))
                    .collect();
                if !here.is_empty() {
                    transaction.mutate(
                        "Bridge",
                        [Condition::uuid(bridge.uuid)],
                        [Mutation::delete("ports", Datum::set(here))],
                    );
                }
            }
        });
    }
}
