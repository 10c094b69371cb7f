//! Publishes what the API server does not know of the pods on this chassis (its own, and on a DPU its host's): the addresses of all
//! interfaces but the first; and how a virtual machine's interfaces are plugged, for the node that it may migrate to (`vhostuser::pair`).
//!
//! For `cni-controller --rebuild` alone, when the northbound database was lost ([`api::PluggedPort`]). The place is
//! external_ids of this node's row in the southbound Chassis_Private. Not in Chassis: every other node's ovn-controller
//! is sent that column, nobody is sent this one but ovn-northd. Of OVN 23.03 each change makes northd compute
//! everything again, as each new port does (later versions: nothing); so changes are gathered, and are few.
//!
//! The row grows by about 200 bytes for each such interface: kubelet's limit of pods bounds it (250 pods with two
//! interfaces more: 100 kB). Nobody but cni-controller reads it, and a change sends and logs the changed keys alone.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::names::PRIMARY_IFNAME;
use api::{
    PLUGGED_FORMAT, PLUGGED_KEY, PluggedPort, is_plugged_key, plugged_key, plugged_kind_key,
};
use ovsdb::{Client, Condition, MonitorSpec, Mutation, Replica, Transaction, Uuid};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::attachment::Record;
use crate::chassis::{deadline, rows, trouble};
use crate::rounds::Pace;
use crate::store::Store;

const TABLE: &str = "Chassis_Private";
/// Changes within this time are one transaction.
const WINDOW: Duration = Duration::from_secs(1);

ovsdb::table! {
    /// This node's row. ovn-controller makes it, and makes it again when it was deleted.
    struct ChassisPrivate in "Chassis_Private" {
        name: String,
        external_ids: BTreeMap<String, String>,
    }
}

/// Keys and values as they should be: of keys that are ours ([`is_plugged_key`]) these and no others.
type Entries = BTreeMap<String, String>;

/// The difference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Plan {
    set: Entries,
    remove: BTreeSet<String>,
}

/// Keeps the entries until the pace says stop.
pub(crate) async fn run(
    store: Store,
    chassis: String,
    southbound: Client,
    mut pace: Pace,
    stop: CancellationToken,
) {
    let replica = southbound.monitor(
        MonitorSpec::new()
            .table::<ChassisPrivate>()
            .where_([Condition::eq("name", chassis.as_str())]),
    );
    pace.wake_on(store.changed());
    pace.wake_on(replica.changed());
    pace.wake_on(southbound.status());
    loop {
        let started = Instant::now();
        let problems = match round(&store, &chassis, &southbound, &replica).await {
            Ok(()) => Vec::new(),
            Err(sentence) => vec![sentence],
        };
        pace.finish(started, &problems);
        if pace.next().await.is_none() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(started + WINDOW) => {}
        }
    }
}

async fn round(
    store: &Store,
    chassis: &str,
    southbound: &Client,
    replica: &Replica,
) -> Result<(), String> {
    if let Some(trouble) = trouble(southbound, replica) {
        return Err(format!(
            "the southbound database cannot be used ({trouble}): see the check \"chassis\""
        ));
    }
    let Some(row) = rows::<ChassisPrivate>(replica)?.pop() else {
        return Err(format!(
            "chassis {chassis} has no row in the southbound {TABLE}: ovn-controller makes it; is it running on this node?"
        ));
    };
    let plan = plan(&desired(&store.all()), &row.external_ids);
    if plan == Plan::default() {
        return Ok(());
    }
    let written = southbound.transact(transaction(&plan, row.uuid), deadline());
    written.await.map_err(|error| {
        format!(
            "cannot write to this chassis's row of the southbound {TABLE}: {error}; only `cni-controller --rebuild` would miss it; see that the listener's role is ovn-controller and the certificate's CN {chassis}"
        )
    })?;
    info!(
        set = plan.set.len(),
        removed = plan.remove.len(),
        "secondary interfaces published"
    );
    Ok(())
}

/// What the journal says. Of two sandboxes of one pod the younger one's interface holds the port.
fn desired(records: &[Record]) -> Entries {
    let mut holders: BTreeMap<(&str, &str), &Record> = BTreeMap::new();
    // A host's own interface is no pod's.
    let of_pods = records.iter().filter(|r| !r.pod.uid.is_empty());
    for record in of_pods.filter(|r| r.id.ifname != PRIMARY_IFNAME) {
        let key = (record.pod.uid.as_str(), record.id.ifname.as_str());
        let holder = holders.entry(key).or_insert(record);
        if record.ordinal > holder.ordinal {
            *holder = record;
        }
    }
    let entry = |record: &Record| {
        let port = PluggedPort {
            lsp: record.port.iface_id.clone(),
            mac: record.port.mac.parse().ok()?,
            ips: record.port.ips.clone(),
        };
        // A record of an earlier version does not know its addresses.
        (!port.ips.is_empty()).then(|| port.to_string())
    };
    let kinds: Vec<_> = holders
        .iter()
        .filter_map(|((uid, ifname), record)| {
            let kind = record.end.machine_kind()?;
            Some((plugged_kind_key(uid, ifname), kind.to_owned()))
        })
        .collect();
    let entries = holders
        .into_iter()
        .filter_map(|((uid, ifname), record)| Some((plugged_key(uid, ifname), entry(record)?)));
    let format = (PLUGGED_KEY.to_owned(), PLUGGED_FORMAT.to_owned());
    entries.chain(kinds).chain([format]).collect()
}

fn plan(desired: &Entries, observed: &Entries) -> Plan {
    let differs = |(key, value): &(&String, &String)| observed.get(*key) != Some(*value);
    let gone = |key: &&String| is_plugged_key(key) && !desired.contains_key(*key);
    Plan {
        set: desired
            .iter()
            .filter(differs)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        remove: observed.keys().filter(gone).cloned().collect(),
    }
}

fn transaction(plan: &Plan, row: Uuid) -> Transaction {
    // A map insert keeps an old value silently, so all keys go first.
    let keys: Vec<String> = plan.set.keys().chain(&plan.remove).cloned().collect();
    let mut transaction = Transaction::new();
    transaction.mutate(
        TABLE,
        [Condition::uuid(row)],
        [
            Mutation::delete("external_ids", keys),
            Mutation::insert("external_ids", &plan.set),
        ],
    );
    transaction
}
