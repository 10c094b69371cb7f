//! A cluster without an API server: objects go into the index as the watchers would put them.

use crate::server::Server;
use api::PortFacts;
use cni_controller::engine::{Engine, Parts};
use cni_controller::index::{Index, Indexed, Settings};
use cni_controller::metrics::Metrics;
use cni_controller::report::{Board, Notice, Reports, SubnetState};
use cni_controller::shared::Shared;
use cni_controller::{Chassis, Turn, nb};
use daemon::readiness::Readiness;
use k8s_openapi::api::core::v1::{Node, Pod};
use ovsdb::{Client, Replica, Row};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Nothing here takes this long.
const DEADLINE: Duration = Duration::from_secs(20);

/// A controller with its own view of Kubernetes.
pub(crate) struct Controller {
    pub(crate) shared: Arc<Shared>,
    pub(crate) notices: mpsc::Receiver<Notice>,
    pub(crate) board: Arc<Board>,
    pub(crate) readiness: Readiness,
    pub(crate) turn: watch::Sender<Turn>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// Settings of the tests' cluster.
pub(crate) fn settings() -> Settings {
    let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect();
    Settings {
        pod_cidrs: nets(&["10.244.0.0/16"]),
        join_cidrs: nets(&["100.64.0.0/16"]),
        service_cidrs: nets(&["10.96.0.0/16"]),
        keep_reports: false,
    }
}

impl Controller {
    /// One that has the default objects and node n1, and is the leader.
    pub(crate) fn start(server: &Server, identity: &str) -> Self {
        Self::with(server.client("OVN_Northbound"), None, identity, settings())
    }

    /// One with other settings.
    pub(crate) fn with(
        nb: Client,
        chassis: Option<Chassis>,
        identity: &str,
        settings: Settings,
    ) -> Self {
        let controller = Self::standby(nb, chassis, identity, settings);
        controller.lead();
        controller
    }

    /// One that waits for its turn.
    pub(crate) fn standby(
        nb: Client,
        chassis: Option<Chassis>,
        identity: &str,
        settings: Settings,
    ) -> Self {
        let pods: Vec<String> = settings.pod_cidrs.iter().map(ToString::to_string).collect();
        let join: Vec<String> = settings
            .join_cidrs
            .iter()
            .map(ToString::to_string)
            .collect();
        let shared = Arc::new(Shared::new(Index::new(settings), ["Pods"]));
        let (reports, notices) = Reports::new();
        let board = reports.board.clone();
        let readiness = Readiness::default();
        let engine = Engine::new(Parts {
            shared: shared.clone(),
            nb,
            chassis,
            identity: identity.to_owned(),
            reports,
            metrics: Metrics::new(&mut Registry::default()),
            readiness: readiness.clone(),
        });
        let (turn, confirmed) = watch::channel(None);
        let stop = CancellationToken::new();
        let task = Some(tokio::spawn(engine.run(confirmed, stop.clone())));
        let controller = Self {
            shared,
            notices,
            board,
            readiness,
            turn,
            stop,
            task,
        };
        controller.put::<api::Vpc>(json!({"metadata": {"name": "default"}, "spec": {}}));
        controller.subnet("default", &json!({"cidrs": pods}));
        controller.subnet("join", &json!({"cidrs": join}));
        controller.put::<Node>(json!({"metadata": {"name": "n1", "uid": "node-1"}}));
        controller
    }

    /// The lists are complete and it is its turn.
    pub(crate) fn lead(&self) {
        self.shared.listed("Pods");
        self.turn.send_replace(Some(Instant::now()));
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap();
    }

    pub(crate) fn put<K: Indexed + serde::de::DeserializeOwned>(&self, object: Value) {
        let object: K = serde_json::from_value(object).unwrap();
        self.shared.change(|index, dirty| object.put(index, dirty));
    }

    pub(crate) fn remove<K: Indexed>(&self, ns: &str, name: &str) {
        let key = (ns.to_owned(), name.to_owned());
        self.shared
            .change(|index, dirty| K::remove(key, index, dirty));
    }

    pub(crate) fn subnet(&self, name: &str, spec: &Value) {
        self.put::<api::Subnet>(json!({"metadata": {"name": name}, "spec": spec}));
    }

    /// A scheduled pod.
    pub(crate) fn pod(&self, name: &str, uid: &str) {
        self.pod_with(name, uid, &json!({}), &json!({}));
    }

    pub(crate) fn pod_with(&self, name: &str, uid: &str, annotations: &Value, status: &Value) {
        self.put::<Pod>(json!({
            "metadata": {"name": name, "namespace": "ns", "uid": uid, "annotations": annotations},
            "spec": {"nodeName": "n1", "containers": []},
            "status": status,
        }));
    }

    /// The state of a subnet, once it is so.
    pub(crate) async fn subnet_state(
        &self,
        name: &str,
        is_so: impl Fn(&SubnetState) -> bool,
    ) -> SubnetState {
        let wait = async {
            loop {
                let state = self.board.take().subnets.remove(name);
                if let Some(state) = state.filter(&is_so) {
                    return state;
                }
                self.board.changed().await;
            }
        };
        tokio::time::timeout(DEADLINE, wait)
            .await
            .expect("no such state came")
    }

    /// The next notice.
    pub(crate) async fn notice(&mut self) -> Notice {
        let notice = tokio::time::timeout(DEADLINE, self.notices.recv());
        notice.await.expect("no notice came").unwrap()
    }
}

/// What the tests see of the database.
pub(crate) struct View(pub(crate) Replica);

impl View {
    pub(crate) async fn of(server: &Server) -> Self {
        Self(server.replica("OVN_Northbound", nb::monitor_spec()).await)
    }

    /// Waits until the condition holds.
    pub(crate) async fn until<T>(&self, what: &str, condition: impl Fn(&Self) -> Option<T>) -> T {
        let mut changed = self.0.changed();
        let end = Instant::now() + DEADLINE;
        loop {
            changed.borrow_and_update();
            if let Some(found) = condition(self) {
                return found;
            }
            let wait = tokio::time::timeout_at(end, changed.changed()).await;
            assert!(wait.is_ok(), "{what}; there is {:#?}", self.ports());
        }
    }

    pub(crate) fn rows(&self, table: &str) -> Vec<Row> {
        self.0.read(|snapshot| snapshot.raw(table).collect())
    }

    /// All pod ports by name, with their facts.
    pub(crate) fn ports(&self) -> BTreeMap<String, PortFacts> {
        let facts = |row: &Row| {
            let name = row.get("name")?.as_str()?.to_owned();
            let ids = row.get("external_ids")?.pairs();
            let text = |atom: &ovsdb::Atom| atom.as_str().unwrap().to_owned();
            let ids = ids.map(|(key, value)| (text(key), text(value))).collect();
            let facts = PortFacts::decode(&ids).ok()?;
            facts.pod().is_some().then_some((name, facts))
        };
        self.rows("Logical_Switch_Port")
            .iter()
            .filter_map(facts)
            .collect()
    }

    /// The addresses of the pod's eth0 in the default subnet.
    pub(crate) fn address(&self, pod: &str) -> Option<String> {
        let ports = self.ports();
        let facts = ports.get(&format!("ns/{pod}/default"))?;
        Some(facts.ips[0].addr().to_string())
    }

    /// Waits for that address.
    pub(crate) async fn addressed(&self, pod: &str) -> String {
        self.until(&format!("{pod} has an address"), |view| view.address(pod))
            .await
    }

    /// The switch port names of a switch.
    pub(crate) fn members(&self, switch: &str) -> Vec<String> {
        let switches = self.rows("Logical_Switch");
        let switch = switches
            .iter()
            .find(|row| row.get("name").unwrap().as_str() == Some(switch));
        let ports = switch
            .and_then(|row| row.get("ports"))
            .cloned()
            .unwrap_or_default();
        let rows = self.rows("Logical_Switch_Port");
        let row = |atom: &ovsdb::Atom| rows.iter().find(|row| Some(row.uuid()) == atom.as_uuid());
        let name = |row: &Row| row.get("name").unwrap().as_str().unwrap().to_owned();
        let mut names: Vec<String> = ports.atoms().iter().filter_map(row).map(name).collect();
        names.sort();
        names
    }

    /// A key of NB_Global.external_ids.
    pub(crate) fn global(&self, key: &str) -> Option<String> {
        let rows = self.rows("NB_Global");
        rows.first()?
            .get("external_ids")?
            .get_str(key)
            .map(str::to_owned)
    }
}
