//! A DPU with its OVN, the emulated card, and a host behind it: a network namespace `h1` with the other ends of the pairs.

use std::sync::Arc;
use std::time::Duration;

use api::{NodeFacts, PortFacts, Role};
use channel::proto::attachment::Subject;
use channel::proto::{self, Wiring};
use channel::{Failure, Ports as _};
use prometheus_client::registry::Registry;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dpu::claims::Claims;
use crate::dpu::metrics::Metrics;
use crate::dpu::ports::HostPorts;
use crate::dpu::representor::{Kind, provider};
use crate::gateway::tests::ovn::NODE;
use crate::gateway::tests::sandbox::sh;
use crate::node::Node;
use crate::tests::world::{TestPod, World};

pub(in crate::dpu) const HOST: &str = "h1";

/// The card of a DPU, and its host.
pub(in crate::dpu) struct Card {
    pub(in crate::dpu) world: World,
}

/// What a host asks for, shortly.
#[derive(Clone, Copy)]
pub(in crate::dpu) struct Ask {
    pub(in crate::dpu) pod: &'static TestPod,
    pub(in crate::dpu) sandbox: &'static str,
    pub(in crate::dpu) ifname: &'static str,
    pub(in crate::dpu) function: u32,
    pub(in crate::dpu) attempt: u64,
}

impl Ask {
    pub(in crate::dpu) fn new(
        pod: &'static TestPod,
        sandbox: &'static str,
        function: u32,
        attempt: u64,
    ) -> Self {
        Self {
            pod,
            sandbox,
            ifname: "eth0",
            function,
            attempt,
        }
    }

    pub(in crate::dpu) fn key(&self) -> proto::AttachmentKey {
        proto::AttachmentKey {
            sandbox: self.sandbox.into(),
            ifname: self.ifname.into(),
        }
    }

    pub(in crate::dpu) fn message(&self) -> proto::Attachment {
        proto::Attachment {
            key: Some(self.key()),
            attempt: self.attempt,
            function: Some(proto::Function {
                physical: 0,
                r#virtual: Some(self.function),
            }),
            subject: Some(Subject::Pod(proto::PodInterface {
                namespace: "default".into(),
                name: self.pod.name.into(),
                uid: self.pod.uid.into(),
                subnet: String::new(),
            })),
        }
    }
}

impl Card {
    /// OVN and a card with `functions` functions.
    pub(in crate::dpu) async fn start(functions: u32) -> Self {
        let world = World::start().await;
        sh(&format!("ip netns add {HOST}; ip -n {HOST} link set lo up"));
        for number in 0..functions {
            pair(number);
        }
        Self { world }
    }

    /// cni-node of the DPU as after a start.
    pub(in crate::dpu) async fn dpu(&self) -> Dpu {
        Dpu::of(self.world.node().await)
    }

    /// The row of a pod's interface, behind that host.
    pub(in crate::dpu) fn allocate(&self, pod: &TestPod, host: &str, last: u8) {
        self.world.allocate(pod, "eth0", "default", last);
        let port = pod.port("eth0", "default");
        self.world.ovn.nbctl(&format!(
            "set Logical_Switch_Port {port} external_ids:{}={host}",
            api::TAG_HOST
        ));
    }

    /// The row of the host's own interface.
    pub(in crate::dpu) fn allocate_gateway(&self, host: &str) {
        let nets = |text: &str| vec![text.parse().unwrap()];
        let last = host.trim_start_matches('h');
        let facts = PortFacts {
            chassis: [NODE.to_owned()].into(),
            host: Some(host.to_owned()),
            role: Role::Node(NodeFacts {
                pod_cidrs: nets("10.244.0.0/16"),
                service_cidrs: nets("10.96.0.0/16"),
                join_cidrs: nets("100.64.0.0/16"),
                nat_cidrs: nets("10.244.0.0/16"),
            }),
            subnet: "join".into(),
            mac: format!("0a:58:64:40:00:0{last}").parse().unwrap(),
            ips: nets(&format!("100.64.0.{last}/16")),
            gateways: vec!["100.64.0.1".parse().unwrap()],
            routes: Vec::new(),
            mtu: None,
            default_route: false,
        };
        let port = api::names::node_port(host);
        self.world.ovn.nbctl(&format!(
            "--may-exist ls-add join -- --may-exist lsp-add join {port} -- lsp-set-addresses {port} '{} 100.64.0.{last}' \
             -- set Logical_Switch_Port {port} options:requested-chassis={NODE}",
            facts.mac
        ));
        self.world.ovn.set_facts(&port, &facts);
    }
}

/// Makes the pair of a function, as the card's other half does.
pub(in crate::dpu) fn pair(number: u32) {
    sh(&format!(
        "ip link add pf0vf{number} type veth peer name vf{number} netns {HOST}
         ip netns exec {HOST} ethtool -K vf{number} tx off >/dev/null"
    ));
}

/// What the host does with a function: into a pod's namespace, as the wiring says.
pub(in crate::dpu) fn place(number: u32, netns: &str, ifname: &str, wiring: &Wiring) {
    let mut script = format!(
        "ip netns add {netns} 2>/dev/null || true
         ip -n {HOST} link set vf{number} netns {netns} name {ifname}
         ip -n {netns} link set {ifname} address {} mtu {}
         ip -n {netns} link set {ifname} up\n",
        wiring.mac, wiring.mtu
    );
    for ip in &wiring.ips {
        script += &format!("ip -n {netns} addr add {ip} dev {ifname} nodad\n");
    }
    for route in &wiring.routes {
        script += &format!(
            "ip -n {netns} route add {} via {} dev {ifname}\n",
            route.destination, route.via
        );
    }
    sh(&script);
}

/// cni-node of the DPU, without the channel.
pub(in crate::dpu) struct Dpu {
    pub(in crate::dpu) node: Arc<Node>,
    pub(in crate::dpu) ports: Arc<HostPorts>,
    pub(in crate::dpu) troubles: watch::Sender<Vec<proto::Trouble>>,
    pub(in crate::dpu) metrics: Metrics,
}

impl Dpu {
    pub(in crate::dpu) fn of(node: Arc<Node>) -> Self {
        let metrics = Metrics::register(&mut Registry::default());
        let (troubles, told) = watch::channel(Vec::new());
        let ports = Arc::new(HostPorts {
            node: Arc::clone(&node),
            representors: provider(Kind::Veth, "/sys".as_ref(), &[]),
            pairing: watch::channel(None).1,
            claims: Claims::of(&node.store.all()),
            troubles: told,
            metrics: metrics.clone(),
        });
        Self {
            node,
            ports,
            troubles,
            metrics,
        }
    }

    /// An Attach with 20 s of patience.
    pub(in crate::dpu) async fn attach(&self, ask: &Ask) -> Result<Wiring, Failure> {
        self.attach_within(HOST, ask.message(), Duration::from_secs(20))
            .await
    }

    pub(in crate::dpu) async fn attach_within(
        &self,
        host: &str,
        attachment: proto::Attachment,
        patience: Duration,
    ) -> Result<Wiring, Failure> {
        let (sender, wiring) = oneshot::channel();
        let never = CancellationToken::new();
        let deadline = Instant::now() + patience;
        self.ports
            .attach(host, attachment, sender, deadline, never)
            .await?;
        Ok(wiring.await.expect("the wiring comes before the end"))
    }

    pub(in crate::dpu) async fn detach(&self, ask: &Ask) -> Result<(), Failure> {
        let deadline = Instant::now() + Duration::from_secs(20);
        self.ports
            .detach(HOST, ask.key(), ask.attempt, deadline)
            .await
    }

    pub(in crate::dpu) async fn check(&self, ask: &Ask) -> Result<Wiring, Failure> {
        let deadline = Instant::now() + Duration::from_secs(20);
        self.ports
            .check(HOST, ask.key(), ask.attempt, deadline)
            .await
    }

    /// A full set; the outcomes by sandbox.
    pub(in crate::dpu) async fn sync(
        &self,
        set: &[&Ask],
    ) -> Vec<(String, Result<Wiring, proto::Failure>)> {
        use proto::synced_attachment::Outcome;
        let set = set.iter().map(|ask| ask.message()).collect();
        let outcomes = self.ports.sync(HOST, set).await.into_iter();
        outcomes
            .map(|one| {
                let outcome = match one.outcome.unwrap() {
                    Outcome::Wiring(wiring) => Ok(wiring),
                    Outcome::Failure(failure) => Err(failure),
                };
                (one.key.unwrap().sandbox, outcome)
            })
            .collect()
    }

    /// Interfaces and records of hosts' attachments.
    pub(in crate::dpu) fn left(&self, card: &Card) -> Vec<String> {
        let interfaces = card.world.ovn.vsctl(
            "--no-headings --columns=name --data=bare find Interface external_ids:outboard=pod",
        );
        let records = self.node.store.all().into_iter();
        let records = records.map(|record| format!("record {}", record.id.container));
        let interfaces = interfaces.split_whitespace().map(str::to_owned);
        interfaces.chain(records).collect()
    }
}

/// Whether the representor is set up.
pub(in crate::dpu) fn is_up(number: u32) -> bool {
    sh(&format!("ip link show pf0vf{number}")).contains(",UP")
}
