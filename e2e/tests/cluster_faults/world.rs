//! What cases need of their lab: a namespace, pods in it, their identity, connectivity of the standing pods.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::checks::{self, Scene};
use e2e::{Lab, Process, leaks, run, until};
use serde_json::Value;

/// Longest time that a pod may take to be Ready.
pub(crate) const START: Duration = Duration::from_secs(90);
/// Longest time that connectivity may take to come back.
pub(crate) const RETURN: Duration = Duration::from_secs(60);
/// Namespace of Outboard's own pods.
pub(crate) const SYSTEM: &str = "outboard-system";

/// The checks that see whether traffic flows at all: inside a node's fabric, through Services, through `ob0`, both families.
const FLOWS: [&str; 5] = [
    "pod → pod, across nodes",
    "pod → Service",
    "node → pod, across nodes",
    "IPv6 pod → pod, across nodes",
    "pod → outside",
];

/// A lab, and the namespace of one case.
pub(crate) struct World<'a> {
    pub(crate) lab: &'a Lab,
    scene: &'a Scene<'a>,
    /// Namespace of the case.
    pub(crate) ns: String,
}

/// What changes when a pod is made anew: its UID, addresses, container and number of restarts.
pub(crate) type Identities = BTreeMap<String, String>;

impl<'a> World<'a> {
    pub(crate) fn new(lab: &'a Lab, scene: &'a Scene<'a>, case: &str) -> Self {
        Self {
            lab,
            scene,
            ns: case.replace('_', "-"),
        }
    }

    /// Makes the namespace.
    pub(crate) fn begin(&self) -> Result<()> {
        self.lab.kubectl(&["create", "namespace", &self.ns])?;
        self.lab.wait_for("the service account", START, |lab| {
            lab.kubectl(&["get", "-n", &self.ns, "serviceaccount", "default"])
                .map(|_| true)
        })
    }

    /// Deletes everything in the namespace, and waits until the API server has forgotten the pods.
    pub(crate) fn end(&self) -> Result<()> {
        let ns = self.ns.as_str();
        let all = "deployments,statefulsets,jobs,pods";
        self.lab
            .kubectl(&["delete", "-n", ns, all, "--all", "--timeout=90s"])?;
        self.lab
            .kubectl(&[
                "delete",
                "namespace",
                ns,
                "--wait=false",
                "--ignore-not-found",
            ])
            .map(drop)
    }

    /// Manifest of a pod that serves its name over HTTP on port 80.
    pub(crate) fn pod(&self, name: &str, node: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {}, labels: {{app: {name}}}}}\nspec:\n  \
             nodeName: {node}\n  {}\n---\n",
            self.ns,
            self.pod_spec().replace('\n', "\n  ").trim_end()
        )
    }

    /// The lines of a pod's spec that all test pods share.
    pub(crate) fn pod_spec(&self) -> String {
        format!(
            "automountServiceAccountToken: false\nenableServiceLinks: false\nterminationGracePeriodSeconds: 1\n\
             containers:\n- name: c\n  image: {}\n  imagePullPolicy: Never\n  \
             command: [sh, -c, 'mkdir -p /www; hostname >/www/index.html; exec httpd -f -p 80 -h /www']\n",
            self.lab.image()
        )
    }

    /// Starts pods and waits until all are Ready.
    pub(crate) fn start(&self, pods: &[(&str, &str)]) -> Result<()> {
        self.create(pods)?;
        for (name, _) in pods {
            self.lab.wait_ready(&self.ns, name, START)?;
        }
        Ok(())
    }

    /// Creates pods (name, node).
    pub(crate) fn create(&self, pods: &[(&str, &str)]) -> Result<()> {
        let text: String = pods
            .iter()
            .map(|(name, node)| self.pod(name, node))
            .collect();
        self.lab.apply(&text).map(drop)
    }

    /// The case's pods as the API server has them.
    pub(crate) fn pods(&self) -> Result<Vec<e2e::pods::Pod>> {
        let mut pods = e2e::pods::all(self.lab)?;
        pods.retain(|pod| pod.namespace == self.ns);
        Ok(pods)
    }

    /// Identities of a namespace's pods.
    pub(crate) fn identities(&self, namespace: &str) -> Result<Identities> {
        let list = self.json(&["get", "pods", "-n", namespace])?;
        let pods = list["items"].as_array().into_iter().flatten();
        Ok(pods
            .map(|pod| {
                let containers = pod["status"]["containerStatuses"]
                    .as_array()
                    .into_iter()
                    .flatten();
                let containers: Vec<String> = containers
                    .map(|c| format!("{} restarted {}", c["containerID"], c["restartCount"]))
                    .collect();
                let name = pod["metadata"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                let (uid, ips) = (&pod["metadata"]["uid"], &pod["status"]["podIPs"]);
                (name, format!("{uid} {ips} {}", containers.join(" ")))
            })
            .collect())
    }

    /// What kubectl prints as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.lab.kubectl(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// Waits until traffic of the standing pods flows; how long that took.
    pub(crate) fn connected(&self) -> Result<Duration> {
        let started = Instant::now();
        for check in checks::all()
            .iter()
            .filter(|check| FLOWS.contains(&check.what))
        {
            until(check.what, RETURN, || check.run(self.scene).map(Some))?;
        }
        Ok(started.elapsed())
    }

    /// HTTP from the host of a node to an address; the answer.
    pub(crate) fn fetch(&self, node: &str, address: &str) -> Result<String> {
        let url = if address.contains(':') {
            format!("http://[{address}]/")
        } else {
            format!("http://{address}/")
        };
        self.lab
            .node(node)
            .exec(&["curl", "-sS", "--fail", "-g", "-m", "3", &url])
    }

    /// Waits until a pod answers, with its name, on all its addresses, seen from a node's host.
    pub(crate) fn serves(&self, from: &str, name: &str) -> Result<()> {
        let pod = e2e::pods::one(self.lab, &self.ns, name)?;
        ensure!(!pod.ips.is_empty(), "pod {name} has no address");
        for ip in &pod.ips {
            let what = format!("pod {name} to answer on {ip} from node {from}");
            until(&what, RETURN, || {
                let said = self.fetch(from, ip)?;
                ensure!(said == name, "{said:?} answered");
                Ok(Some(()))
            })?;
        }
        Ok(())
    }

    /// Names of the logical switch ports of the namespace's pods.
    pub(crate) fn ports(&self) -> Result<Vec<String>> {
        let list = ["--bare", "--columns=name", "list", "Logical_Switch_Port"];
        let text = self.lab.nbctl(&list)?;
        let prefix = format!("{}/", self.ns);
        Ok(text
            .lines()
            .filter(|line| line.starts_with(&prefix))
            .map(str::to_owned)
            .collect())
    }

    /// Waits for an Event of a reason in the case's namespace; its sentence.
    pub(crate) fn event(&self, reason: &str) -> Result<String> {
        let selector = format!("--field-selector=reason={reason}");
        let argv = [
            "get",
            "events",
            "-n",
            &self.ns,
            &selector,
            "-o",
            "jsonpath={.items[*].message}",
        ];
        until(&format!("an Event {reason} in {}", self.ns), START, || {
            let text = self.lab.kubectl(&argv)?;
            Ok((!text.is_empty()).then_some(text))
        })
    }

    /// Name of the one pod of an app of Outboard's own on a node.
    pub(crate) fn system_pod(&self, app: &str, node: &str) -> Result<String> {
        let selector = format!("app.kubernetes.io/name={app}");
        let on = format!("spec.nodeName={node},status.phase=Running");
        let argv = [
            "get",
            "pods",
            "-n",
            SYSTEM,
            "-l",
            &selector,
            "--field-selector",
            &on,
        ];
        let names = self
            .lab
            .kubectl(&[&argv[..], &["-o", "jsonpath={.items[*].metadata.name}"]].concat())?;
        ensure!(
            !names.is_empty() && !names.contains(' '),
            "pods of {app} on {node}: {names:?}"
        );
        Ok(names)
    }

    /// Pid of a container, as its node sees it.
    pub(crate) fn container_pid(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<String> {
        let object = self.json(&["get", "pod", "-n", namespace, pod])?;
        let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
        let statuses = |key: &str| {
            object["status"][key]
                .as_array()
                .cloned()
                .unwrap_or_default()
        };
        let all = [
            statuses("containerStatuses"),
            statuses("initContainerStatuses"),
        ]
        .concat();
        let found = all.iter().find(|c| c["name"] == container);
        let id = found
            .and_then(|c| c["containerID"].as_str())
            .unwrap_or_default();
        let id = id.trim_start_matches("containerd://");
        let tasks = self
            .lab
            .node(node)
            .exec(&["ctr", "-n", "k8s.io", "tasks", "list"])?;
        let line = tasks
            .lines()
            .find(|line| !id.is_empty() && line.starts_with(id));
        let pid = line.and_then(|line| line.split_whitespace().nth(1));
        pid.map(str::to_owned)
            .with_context(|| format!("{pod}/{container} does not run: {tasks}"))
    }

    /// Kills a container's process with SIGKILL and waits until kubelet has started it again and finds it ready.
    pub(crate) fn kill_container(&self, pod: &str, container: &str) -> Result<()> {
        let pid = self.container_pid(SYSTEM, pod, container)?;
        run(&["kill", "-KILL", &pid])?;
        until(&format!("{pod}/{container} to run again"), START, || {
            let now = self.container_pid(SYSTEM, pod, container)?;
            ensure!(now != pid, "it is still the one that was killed");
            Ok(Some(()))
        })?;
        let ready = [
            "wait",
            "-n",
            SYSTEM,
            "--for=condition=Ready",
            "--timeout=60s",
        ];
        self.lab
            .kubectl(&[&ready[..], &[&format!("pod/{pod}")]].concat())
            .map(drop)
    }

    /// Waits until Outboard's own pods are as its manifests want them.
    pub(crate) fn outboard_ready(&self) -> Result<()> {
        for workload in ["daemonset/cni-node", "deployment/cni-controller"] {
            self.lab
                .kubectl(&["rollout", "status", "-n", SYSTEM, workload, "--timeout=90s"])?;
        }
        Ok(())
    }

    /// What the failed case's namespace says, for the report.
    pub(crate) fn evidence(&self) -> String {
        let mut text = self.dead();
        let mut part = |title: &str, arguments: &[&str]| {
            let said = self
                .lab
                .kubectl(arguments)
                .unwrap_or_else(|error| format!("{error:#}"));
            let _ = writeln!(text, "--- {title}\n{said}");
        };
        part("pods", &["get", "pods", "-A", "-o", "wide"]);
        part("events", &["events", "-n", &self.ns]);
        for app in ["cni-controller", "cni-node"] {
            let selector = format!("app.kubernetes.io/name={app}");
            let argv = [
                "logs",
                "-n",
                SYSTEM,
                "-l",
                &selector,
                "--tail=40",
                "--prefix",
            ];
            part(app, &argv);
        }
        text
    }

    /// Programs of the nodes that have ended, and their last words.
    fn dead(&self) -> String {
        let mut text = String::new();
        for node in self.lab.nodes() {
            for name in node.process_names().unwrap_or_default() {
                let process = node.process(&name);
                if !process.alive() {
                    let log = process.log().and_then(|log| Ok(fs::read_to_string(log)?));
                    let log = log.unwrap_or_default();
                    let last: Vec<&str> = log.lines().rev().take(3).collect();
                    let _ = writeln!(text, "--- {} on {} has ended: {last:?}", name, node.name());
                }
            }
        }
        text
    }

    /// After a failed case: everything runs again, its namespace is empty, nothing is left over.
    pub(crate) fn heal(&self) -> Result<()> {
        for node in self.lab.nodes() {
            for name in node.process_names()? {
                let process = node.process(&name);
                let _ = run(&["kill", "-CONT", &process.pid()?.to_string()]);
                if !process.alive() {
                    process.restart()?;
                }
            }
        }
        self.lab.wait_for("the API server", START, |lab| {
            lab.kubectl(&["get", "--raw", "/readyz"]).map(|_| true)
        })?;
        let _ = self.lab.kubectl(&["uncordon", "n1", "n2"]);
        self.end()?;
        self.outboard_ready()?;
        leaks::wait_for_none(self.lab, START)
    }
}

/// Stops a program in its tracks until the value is dropped.
pub(crate) struct Paused(String);

impl Paused {
    pub(crate) fn process(process: &Process) -> Result<Self> {
        Self::pid(process.pid()?.to_string())
    }

    pub(crate) fn pid(pid: String) -> Result<Self> {
        run(&["kill", "-STOP", &pid])?;
        Ok(Self(pid))
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It may have been ended meanwhile.
        let _ = run(&["kill", "-CONT", &self.0]);
    }
}
