//! One node with its OVN, and the requests of a runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{Mac, PodPort, PortFacts, Role, Route};
use cni_bin::wire::{Command, Failure, Reply, Request};
use daemon::keyed::Locks;
use daemon::readiness::Readiness;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::gateway::tests::ovn::{NODE, Ovn};
use crate::gateway::tests::sandbox::{eventually, sh};
use crate::metrics::Metrics;
use crate::netns::Netns;
use crate::node::Node;
use crate::ovn_controller::OvnController;
use crate::rounds::{Pace, Rounds};
use crate::server::Operations;
use crate::southbound::Southbound;
use crate::store::Store;
use crate::vhostuser::{self, Args, VhostUser};
use crate::vswitch::Vswitch;
use crate::{plumb, reconcile, server};

pub(crate) const MTU: u32 = 1342;

/// A node with its OVN, inside a sandbox of the test.
pub(crate) struct World {
    pub(crate) ovn: Ovn,
}

impl World {
    /// OVN with an empty switch `default` and a switch `blue`; ovn-controller runs.
    pub(crate) async fn start() -> Self {
        Self::with(Ovn::start().await)
    }

    /// The same with DPDK.
    pub(crate) async fn start_dpdk() -> Self {
        Self::with(Ovn::start_dpdk(64).await)
    }

    fn with(mut ovn: Ovn) -> Self {
        ovn.join();
        ovn.nbctl("ls-add default -- ls-add blue");
        ovn.sbctl(&format!("wait-until chassis {NODE}"));
        Self { ovn }
    }

    /// cni-node's state as after a start, with what the last one left cleaned up.
    pub(crate) async fn node(&self) -> Arc<Node> {
        let node = self.unrecovered().await;
        assert_eq!(reconcile::round(&node).await, reconcile::Left::default());
        node
    }

    /// The same before the first round of the reconcile loop; its effect on `recovered` is anticipated.
    pub(crate) async fn unrecovered(&self) -> Arc<Node> {
        let databases = self.ovn.databases();
        let node = Arc::new(Node {
            host: Netns::host().unwrap(),
            southbound: Southbound::new(databases.southbound, NODE),
            vswitch: Vswitch::new(databases.vswitch, "netdev"),
            ovn_controller: OvnController::new(self.ovn.home()),
            store: Store::open(&self.ovn.home().join("journal"), "this-boot").unwrap(),
            locks: Locks::default(),
            under_way: crate::under_way::UnderWay::default(),
            mtu: watch::channel(Some(MTU)).1,
            recovered: watch::channel(true).1,
            metrics: Metrics::register(&mut Registry::default()),
            vhost: self.vhost(),
        });
        eventually("both databases are read", || {
            node.southbound.trouble().is_none() && node.vswitch.trouble().is_none()
        })
        .await;
        node
    }

    fn vhost(&self) -> VhostUser {
        vhost(self.ovn.home())
    }

    /// The directory of a pod's volume, as kubelet makes it.
    pub(crate) fn volume(&self, pod: &TestPod, volume: &str) -> PathBuf {
        let path = format!(
            "kubelet/pods/{}/volumes/kubernetes.io~empty-dir/{volume}",
            pod.uid
        );
        let path = self.ovn.home().join(path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// What cni-controller does for a scheduled pod's interface. `host` is the last byte of its addresses.
    pub(crate) fn allocate(&self, pod: &TestPod, ifname: &str, subnet: &str, host: u8) {
        self.write_port(
            &pod.port(ifname, subnet),
            &facts(pod, NODE, ifname, subnet, host),
            &format!("requested-chassis={NODE} iface-id-ver={}", pod.uid),
        );
    }

    /// A pod with its row, its sandbox, which has its name, and its `eth0` in it.
    pub(crate) async fn start_pod(&self, node: &Node, pod: &TestPod, subnet: &str, host: u8) {
        self.allocate(pod, "eth0", subnet, host);
        sandbox(pod.name);
        attach(node, pod, pod.name).await;
    }

    /// Dies at a failpoint, as if the process had been killed there: nothing of it runs on.
    pub(crate) async fn die(&self, point: &str, request: Request) {
        let node = self.node().await;
        fail::cfg(point, "panic").unwrap();
        let task = tokio::spawn({
            let node = Arc::clone(&node);
            async move { ask(&node, &request).await }
        });
        let died = task.await;
        assert!(
            died.is_err_and(|why| why.is_panic()),
            "{point} was not reached"
        );
        fail::remove(point);
        eventually("nothing of it runs on", || Arc::strong_count(&node) == 1).await;
    }

    /// A logical port with these facts and `options`, in the place of what there was of that name.
    pub(crate) fn write_port(&self, port: &str, facts: &PortFacts, options: &str) {
        let ips: Vec<_> = facts.ips.iter().map(|ip| ip.addr().to_string()).collect();
        let addresses = format!("{} {}", facts.mac, ips.join(" "));
        let options = options.split(' ').map(|pair| {
            let (key, value) = pair.split_once('=').unwrap();
            format!("'options:{key}=\"{value}\"'")
        });
        self.ovn.nbctl(&format!(
            "--may-exist lsp-add {subnet} {port} -- lsp-set-addresses {port} '{addresses}' \
             -- lsp-set-port-security {port} '{addresses}' \
             -- clear Logical_Switch_Port {port} options -- set Logical_Switch_Port {port} {options}",
            subnet = facts.subnet,
            options = options.collect::<Vec<_>>().join(" "),
        ));
        self.ovn.set_facts(port, facts);
    }

    /// What is left of attachments on this node: links, OVS interfaces, journal.
    pub(crate) async fn leftovers(&self, node: &Node) -> Vec<String> {
        let links = plumb::host_links(&node.host).await.unwrap().into_iter();
        let interfaces = self.ovn.vsctl(
            "--no-headings --columns=name --data=bare find Interface external_ids:outboard=pod",
        );
        let interfaces = interfaces
            .split_whitespace()
            .map(|name| format!("Interface {name}"));
        let records = node
            .store
            .all()
            .into_iter()
            .map(|record| format!("record {}", record.id));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts: Vec<_> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4)?.strip_prefix("/run/outboard/vhost/"))
            .filter(|name| *name != ".staging")
            .map(|name| format!("mount {name}"))
            .collect();
        let all = links.chain(interfaces).chain(records).chain(mounts);
        all.collect()
    }
}

/// What cni-controller says of a pod's interface on that chassis. `host` is the last byte of its addresses.
pub(crate) fn facts(
    pod: &TestPod,
    chassis: &str,
    ifname: &str,
    subnet: &str,
    host: u8,
) -> PortFacts {
    let third = if subnet == "blue" { 1 } else { 0 };
    PortFacts {
        chassis: BTreeSet::from([chassis.to_owned()]),
        host: None,
        role: Role::Pod(PodPort {
            namespace: "default".into(),
            name: pod.name.into(),
            uid: pod.uid.into(),
            ifname: ifname.into(),
            target: None,
        }),
        subnet: subnet.into(),
        mac: Mac([0x0a, 0x58, 0x0a, 0xf4, third, host]),
        ips: vec![
            format!("10.244.{third}.{host}/24").parse().unwrap(),
            format!("fd00:10:244:{third}::{host:x}/64").parse().unwrap(),
        ],
        gateways: vec![
            format!("10.244.{third}.1").parse().unwrap(),
            format!("fd00:10:244:{third}::1").parse().unwrap(),
        ],
        routes: vec![Route {
            dst: format!("10.{}.0.0/16", 96 + third).parse().unwrap(),
            via: format!("10.244.{third}.1").parse().unwrap(),
        }],
        mtu: None,
        default_route: ifname == "eth0",
    }
}

/// The reconcile loop of a node.
pub(crate) struct Reconciling {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Reconciling {
    /// Starts it; its first round is over.
    pub(crate) async fn start(node: &Arc<Node>) -> Self {
        let rounds = Rounds::register(&mut Registry::default());
        let stop = CancellationToken::new();
        let pace = Pace::new("attachments", &rounds, &Readiness::default(), stop.clone());
        let (recovery, mut recovered) = watch::channel(false);
        let task = tokio::spawn(reconcile::run(Arc::clone(node), recovery, pace));
        recovered.wait_for(|done| *done).await.unwrap();
        Self { stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.task)
            .await
            .unwrap()
            .unwrap();
    }
}

/// Volumes below `home`, mounts below /run.
pub(crate) fn vhost(home: &Path) -> VhostUser {
    vhost_at(home, Path::new("/run/outboard/vhost"))
}

/// Volumes below `home`, mounts below `directory`.
pub(crate) fn vhost_at(home: &Path, directory: &Path) -> VhostUser {
    let args = Args {
        vhost_dir: directory.to_owned(),
        kubelet_root: home.join("kubelet"),
        vhost_uid: 107,
        vhost_gid: 107,
    };
    let metrics = vhostuser::Metrics::register(&mut Registry::default());
    VhostUser::new(args, Path::new("/sys"), metrics)
}

/// A pod; its sandboxes are network namespaces of the test's sandbox.
pub(crate) struct TestPod {
    pub(crate) name: &'static str,
    pub(crate) uid: &'static str,
}

impl TestPod {
    pub(crate) fn port(&self, ifname: &str, subnet: &str) -> String {
        let secondary = (ifname != "eth0").then_some(ifname);
        api::names::pod_port("default", self.name, subnet, secondary)
    }
}

pub(crate) const WEB: TestPod = TestPod {
    name: "web",
    uid: "u-web",
};
pub(crate) const DB: TestPod = TestPod {
    name: "db",
    uid: "u-db",
};

/// Makes an empty sandbox for a pod.
pub(crate) fn sandbox(name: &str) {
    sh(&format!(
        "ip netns add {name} && ip -n {name} link set lo up"
    ));
}

/// A request of a runtime for `ifname` of a sandbox.
pub(crate) fn request(command: Command, pod: &TestPod, sandbox: &str, ifname: &str) -> Request {
    let arguments = format!(
        "IgnoreUnknown=true;K8S_POD_NAMESPACE=default;K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={sandbox};K8S_POD_UID={}",
        pod.name, pod.uid
    );
    let env = BTreeMap::from([
        ("CNI_CONTAINERID".to_owned(), sandbox.to_owned()),
        ("CNI_IFNAME".to_owned(), ifname.to_owned()),
        ("CNI_NETNS".to_owned(), format!("/run/netns/{sandbox}")),
        ("CNI_ARGS".to_owned(), arguments),
    ]);
    let config = json!({"cniVersion": "1.1.0", "name": "pods", "type": "outboard"}).to_string();
    Request {
        version: cni_bin::wire::VERSION,
        command,
        env,
        config,
        deadline_ms: 20_000,
    }
}

/// The same with further keys of the configuration.
pub(crate) fn with(mut request: Request, keys: &Value) -> Request {
    let mut config: Value = serde_json::from_str(&request.config).unwrap();
    config
        .as_object_mut()
        .unwrap()
        .extend(keys.as_object().unwrap().clone());
    request.config = config.to_string();
    request
}

/// The same with less patience.
pub(crate) fn within(mut request: Request, patience: Duration) -> Request {
    request.deadline_ms = u64::try_from(patience.as_millis()).unwrap();
    request
}

/// Gives a sandbox of a pod its `eth0`.
pub(crate) async fn attach(node: &Node, pod: &TestPod, sandbox: &str) {
    attach_any(node, pod, sandbox).await;
}

/// The same on a node of any mode.
pub(crate) async fn attach_any<N: Operations>(node: &N, pod: &TestPod, sandbox: &str) {
    let request = request(Command::Add, pod, sandbox, "eth0");
    ask_any(node, &request).await.unwrap();
}

/// Takes it away.
pub(crate) async fn detach(node: &Node, pod: &TestPod, sandbox: &str) {
    detach_any(node, pod, sandbox).await;
}

/// The same on a node of any mode.
pub(crate) async fn detach_any<N: Operations>(node: &N, pod: &TestPod, sandbox: &str) {
    let request = request(Command::Del, pod, sandbox, "eth0");
    ask_any(node, &request).await.unwrap();
}

/// Serves a request; the document of a success.
pub(crate) async fn ask(node: &Node, request: &Request) -> Result<Value, Failure> {
    ask_any(node, request).await
}

/// The same of a node of any mode.
pub(crate) async fn ask_any<N: Operations>(node: &N, request: &Request) -> Result<Value, Failure> {
    match Box::pin(server::serve(node, request)).await {
        Reply::Result(None) => Ok(Value::Null),
        Reply::Result(Some(document)) => Ok(serde_json::from_str(document.get()).unwrap()),
        Reply::Error(failure) => Err(failure),
    }
}
