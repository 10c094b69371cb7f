//! One web server on every node behind one Service, and who of them reaches whom.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::standing::Standing;
use crate::checks::Seen;
use crate::evidence;
use crate::lab::Lab;
use crate::pods::Family;
use crate::{site, wait};

/// Namespace of everything in the scene.
pub const NAMESPACE: &str = "pairs";
const MANIFEST: &str = include_str!("../../manifests/scene-pairs.yaml");
const POD: &str = include_str!("../../manifests/scene-pairs-pod.yaml");
const READY: Duration = Duration::from_secs(90);

/// A web server on every node, Ready: kubelet's probes reached it.
pub struct PairScene<'a> {
    lab: &'a Lab,
    standing: Vec<Standing>,
    /// ClusterIPs, IPv4 and IPv6.
    service: [String; 2],
}

impl<'a> PairScene<'a> {
    /// Deploys it and waits until all its pods are Ready.
    ///
    /// # Errors
    /// A pod does not get Ready: the message ends with what the cluster says of itself.
    pub fn deploy(lab: &'a Lab) -> Result<Self> {
        let pod = |name: &str| POD.replace("NODE", name).replace("IMAGE", lab.image());
        let pods: String = lab.nodes().iter().map(|node| pod(node.name())).collect();
        lab.apply(&format!("{MANIFEST}{pods}"))?;
        let mut scene = Self {
            lab,
            standing: Vec::new(),
            service: [String::new(), String::new()],
        };
        scene
            .ready()
            .map_err(|error| anyhow!("{error:#}\n{}", evidence::of_cluster(lab)))?;
        scene.standing = scene.look()?;
        let query = "jsonpath={.spec.clusterIPs[*]}";
        let ips = lab.kubectl(&["get", "service", "-n", NAMESPACE, "web", "-o", query])?;
        let (v4, v6) = ips
            .split_once(' ')
            .with_context(|| format!("Service web is not dual stack: {ips}"))?;
        scene.service = [v4.to_owned(), v6.to_owned()];
        Ok(scene)
    }

    /// Waits until all its pods are Ready.
    ///
    /// # Errors
    /// They are not in time.
    pub fn ready(&self) -> Result<()> {
        let limit = format!("--timeout={}s", READY.as_secs());
        let wait = [
            "wait",
            "-n",
            NAMESPACE,
            "--for=condition=Ready",
            "pods",
            "--all",
            &limit,
        ];
        self.lab.kubectl(&wait).map(drop)
    }

    /// Deletes it, and waits until the API server has forgotten it.
    ///
    /// # Errors
    /// Something stays.
    pub fn remove(self) -> Result<()> {
        let delete = ["delete", "namespace", NAMESPACE, "--wait", "--timeout=90s"];
        self.lab.kubectl(&delete).map(drop)
    }

    /// The lab it stands in.
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// The pod on a node, as it was deployed, or as [`Self::renew`] saw it last.
    ///
    /// # Errors
    /// There is none.
    pub fn on(&self, node: &str) -> Result<&Standing> {
        let found = self.standing.iter().find(|one| one.pod.node == node);
        found.with_context(|| format!("no pod of the scene is on node {node}"))
    }

    /// Takes the pods as they are now for the standing ones.
    ///
    /// # Errors
    /// One is not there.
    pub fn renew(&mut self) -> Result<()> {
        self.standing = self.look()?;
        Ok(())
    }

    /// Whether the pods of a node are still the ones that were deployed: the same sandbox and namespace, the same MAC and
    /// addresses, no container restarted.
    ///
    /// # Errors
    /// One is not: the message has both.
    pub fn unchanged(&self, node: &str) -> Result<()> {
        let (then, now) = (self.on(node)?, self.see(node)?);
        ensure!(
            *then == now,
            "the pod on {node} is not what it was:\n{then:#?}\n{now:#?}"
        );
        Ok(())
    }

    /// Whether the pod of a node has the MAC and the addresses that it had, in whichever sandbox.
    ///
    /// # Errors
    /// It has not: the message has both.
    pub fn addressed_as_before(&self, node: &str) -> Result<()> {
        let (then, now) = (self.on(node)?, self.see(node)?);
        ensure!(
            then.pod.uid == now.pod.uid && then.interface == now.interface,
            "the pod on {node} is addressed otherwise than before:\n{then:#?}\n{now:#?}"
        );
        Ok(())
    }

    /// The pods of all nodes ask all others, each as in [`Self::reaches_all`], until each has got its answers.
    ///
    /// # Errors
    /// One does not in time.
    pub fn all_reach_all(&self, limit: Duration) -> Result<()> {
        site::in_parallel(self.lab.nodes().iter(), |node| {
            let what = format!("the pod on {} to reach all others", node.name());
            wait::until(&what, limit, || self.reaches_all(node.name()).map(Some))
        })
        .map(drop)
    }

    /// Address of the Service.
    pub fn service(&self, family: Family) -> &str {
        &self.service[usize::from(family == Family::V6)]
    }

    /// The pod of a node asks all others, on all their addresses: their web servers' answers are their names.
    ///
    /// # Errors
    /// One does not answer.
    pub fn reaches_all(&self, node: &str) -> Result<Seen> {
        let others = self.standing.iter().filter(|one| one.pod.node != node);
        let wanted: Vec<(String, String)> = others
            .flat_map(|one| {
                let name = one.pod.name.clone();
                one.pod.ips.iter().map(move |ip| (url(ip), name.clone()))
            })
            .collect();
        ensure!(!wanted.is_empty(), "there is nobody to ask");
        let started = Instant::now();
        let said = self.fetch(node, wanted.iter().map(|(url, _)| url.as_str()))?;
        for ((url, name), said) in wanted.iter().zip(&said) {
            ensure!(
                said == name,
                "{url} of {name} answered {said:?} to the pod on {node}"
            );
        }
        let each = started.elapsed().as_secs_f64() * 1e3 / wanted.len() as f64;
        let nodes = wanted.len() / 2;
        Ok(Seen::new(format!("{nodes} pods on both addresses"), each))
    }

    /// The pod of a node pings all others.
    ///
    /// # Errors
    /// One does not answer.
    pub fn pings_all(&self, node: &str) -> Result<Seen> {
        let others = self.standing.iter().filter(|one| one.pod.node != node);
        let ips: Vec<&str> = others
            .flat_map(|one| one.pod.ips.iter())
            .map(String::as_str)
            .collect();
        let script = format!(
            "for ip in {}; do ping -c 1 -W 3 $ip | sed -n 's/.* time=//p'; done",
            ips.join(" ")
        );
        let said = self.exec(node, &["sh", "-ec", &script])?;
        let times = said
            .lines()
            .filter_map(|line| line.split(' ').next()?.parse().ok());
        let times: Vec<f64> = times.collect();
        ensure!(
            times.len() == ips.len(),
            "{} of {ips:?} answered the pod on {node}: {said}",
            times.len()
        );
        let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
        Ok(Seen::new(
            format!("{} pods on both addresses", ips.len() / 2),
            mean,
        ))
    }

    /// The pod of a node asks the Service: all pods answer now and then.
    ///
    /// # Errors
    /// One never does.
    pub fn asks_service(&self, node: &str, family: Family) -> Result<Seen> {
        let url = url(self.service(family));
        // With five endpoints all have answered but for one time in 10,000.
        let started = Instant::now();
        let said = self.fetch(node, std::iter::repeat_n(url.as_str(), OFTEN))?;
        let each = started.elapsed().as_secs_f64() * 1e3 / OFTEN as f64;
        let who: BTreeSet<&str> = said.iter().map(String::as_str).collect();
        let all: BTreeSet<&str> = self
            .standing
            .iter()
            .map(|one| one.pod.name.as_str())
            .collect();
        ensure!(
            who == all,
            "{OFTEN} requests to {url} were answered by {who:?}, not by all of {all:?}"
        );
        Ok(Seen::new(
            format!("all {} endpoints of {}", all.len(), self.service(family)),
            each,
        ))
    }

    /// A node's own processes ask its pod, as kubelet's probes do.
    ///
    /// # Errors
    /// It does not answer.
    pub fn node_reaches(&self, node: &str, pod_on: &str) -> Result<Seen> {
        let there = self.on(pod_on)?;
        let started = Instant::now();
        for ip in &there.pod.ips {
            let url = url(ip);
            let argv = ["curl", "-sS", "--fail", "-g", "-m", "3", url.as_str()];
            let said = self.lab.node(node).exec(&argv)?;
            ensure!(said == there.pod.name, "{said:?} answered on {ip}");
        }
        let each = started.elapsed().as_secs_f64() * 1e3 / 2.0;
        Ok(Seen::new(there.pod.ips.join(" and "), each))
    }

    /// A node's own processes ask the Service.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn node_asks_service(&self, node: &str, family: Family) -> Result<Seen> {
        let url = url(self.service(family));
        let started = Instant::now();
        let argv = ["curl", "-sS", "--fail", "-g", "-m", "3", url.as_str()];
        let said = self.lab.node(node).exec(&argv)?;
        ensure!(
            self.standing.iter().any(|one| one.pod.name == said),
            "{said:?} answered for {url}"
        );
        Ok(Seen::new(said, started.elapsed().as_secs_f64() * 1e3))
    }

    /// The pod of a node fetches a mebibyte from the pod of another one: frames of full size.
    ///
    /// # Errors
    /// It does not come whole.
    pub fn fetches_a_mebibyte(&self, node: &str, from: &str) -> Result<Seen> {
        let started = Instant::now();
        for ip in &self.on(from)?.pod.ips {
            let url = format!("{}big", url(ip));
            let format = "%{size_download}";
            let argv = [
                "curl",
                "-sS",
                "--fail",
                "-g",
                "-m",
                "10",
                "-o",
                "/dev/null",
                "-w",
                format,
                &url,
            ];
            let size = self.exec(node, &argv)?;
            ensure!(size == "1048576", "{size} bytes came from {url}");
        }
        Ok(Seen::new(
            "1048576 bytes",
            started.elapsed().as_secs_f64() * 1e3 / 2.0,
        ))
    }

    /// The pod of a node finds the Service by its name.
    ///
    /// # Errors
    /// It does not.
    pub fn resolves(&self, node: &str) -> Result<Seen> {
        let started = Instant::now();
        let name = format!("http://web.{NAMESPACE}.svc.cluster.local/");
        let said = self.fetch(node, [name.as_str()].into_iter())?;
        Ok(Seen::new(
            said.join(" "),
            started.elapsed().as_secs_f64() * 1e3,
        ))
    }

    /// The pod of a node asks the outside host, which knows no route to pods: the answer came to a node's address.
    ///
    /// # Errors
    /// There is none.
    pub fn reaches_outside(&self, node: &str) -> Result<Seen> {
        let (v4, v6) = self.lab.site.outside();
        let started = Instant::now();
        let said = self.fetch(node, [url(&v4).as_str(), &url(&v6)].into_iter())?;
        ensure!(said == ["outside", "outside"], "the answers were {said:?}");
        Ok(Seen::new(
            format!("{v4} and {v6}"),
            started.elapsed().as_secs_f64() * 1e3 / 2.0,
        ))
    }

    /// Asks by HTTP from the pod of a node; the answers in order.
    fn fetch<'u>(&self, node: &str, urls: impl Iterator<Item = &'u str>) -> Result<Vec<String>> {
        let urls: Vec<String> = urls.map(|url| format!("'{url}'")).collect();
        let script = format!(
            "for url in {}; do curl -sS --fail -g -m 3 \"$url\"; done",
            urls.join(" ")
        );
        let said = self.exec(node, &["sh", "-ec", &script])?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    fn exec(&self, node: &str, argv: &[&str]) -> Result<String> {
        self.lab.pod_exec(NAMESPACE, &self.on(node)?.pod.name, argv)
    }

    fn look(&self) -> Result<Vec<Standing>> {
        Standing::all(self.lab, NAMESPACE)
    }

    fn see(&self, node: &str) -> Result<Standing> {
        Standing::of(self.lab, NAMESPACE, &format!("web-{node}"))
    }
}

/// Requests that find every endpoint of a Service.
const OFTEN: usize = 48;

fn url(address: &str) -> String {
    if address.contains(':') {
        format!("http://[{address}]/")
    } else {
        format!("http://{address}/")
    }
}
