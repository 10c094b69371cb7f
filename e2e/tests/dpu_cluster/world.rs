//! What cases need of their lab: a namespace, pods in it, the daemons of a pair and the wire between them.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::pairs::{self, Pair, PairScene, Watch};
use e2e::{Lab, Node, leaks, run, until};
use serde_json::Value;

/// Longest time that a pod may take to be Ready.
pub(crate) const START: Duration = Duration::from_secs(90);
/// Longest time that pings may take to come back.
pub(crate) const RETURN: Duration = Duration::from_secs(60);
/// Namespace of Outboard's own pods.
pub(crate) const SYSTEM: &str = "outboard-system";

/// A lab with its standing pods, and the namespace of one case.
pub(crate) struct World<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) scene: &'a PairScene<'a>,
    /// Namespace of the case.
    pub(crate) ns: String,
    pairs: Vec<Pair>,
}

impl<'a> World<'a> {
    pub(crate) fn new(scene: &'a PairScene<'a>, case: &str) -> Self {
        Self {
            lab: scene.lab(),
            scene,
            ns: case.replace('_', "-"),
            pairs: pairs::of(scene.lab()),
        }
    }

    /// The pair that things are done to.
    pub(crate) fn pair(&self) -> &Pair {
        &self.pairs[0]
    }

    /// Another one.
    pub(crate) fn other_pair(&self) -> &Pair {
        &self.pairs[1]
    }

    /// Its host.
    pub(crate) fn host(&self) -> &'a Node {
        self.lab.node(&self.pair().host)
    }

    /// Its DPU.
    pub(crate) fn dpu(&self) -> &'a Node {
        self.lab.node(&self.pair().dpu)
    }

    /// Pings from and to the pod of its host.
    pub(crate) fn watch(&self) -> Result<Watch<'a>> {
        Watch::begin(self.scene, self.pair())
    }

    /// The whole cluster works: the pair is one, all pods reach each other, nobody lacks anything.
    pub(crate) fn whole(&self) -> Result<()> {
        for pair in &self.pairs {
            pair.wait(self.lab, RETURN)?;
        }
        self.scene.ready()?;
        self.scene.all_reach_all(RETURN)
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
        let (ns, all) = (self.ns.as_str(), "deployments,pods");
        self.lab
            .kubectl(&["delete", "-n", ns, all, "--all", "--timeout=90s"])?;
        let delete = [
            "delete",
            "namespace",
            ns,
            "--wait=false",
            "--ignore-not-found",
        ];
        self.lab.kubectl(&delete).map(drop)
    }

    /// Manifest of a pod that serves its name over HTTP on port 80.
    pub(crate) fn pod(&self, name: &str, node: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {}}}\nspec:\n  nodeName: {node}\n  \
             automountServiceAccountToken: false\n  enableServiceLinks: false\n  terminationGracePeriodSeconds: 1\n  \
             containers:\n  - name: c\n    image: {}\n    imagePullPolicy: Never\n    \
             command: [sh, -c, 'mkdir -p /www; hostname >/www/index.html; exec httpd -f -p \"[::]:80\" -h /www']\n---\n",
            self.ns,
            self.lab.image()
        )
    }

    /// Starts pods (name, node) and waits until all are Ready.
    pub(crate) fn start(&self, pods: &[(&str, &str)]) -> Result<()> {
        self.create(pods)?;
        for (name, _) in pods {
            self.lab.wait_ready(&self.ns, name, START)?;
        }
        Ok(())
    }

    /// Creates pods (name, node).
    pub(crate) fn create(&self, pods: &[(&str, &str)]) -> Result<()> {
        let manifest = |(name, node): &(&str, &str)| self.pod(name, node);
        let text: String = pods.iter().map(manifest).collect();
        self.lab.apply(&text).map(drop)
    }

    /// Deletes a pod and waits for its end.
    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        let delete = ["delete", "pod", "-n", &self.ns, name, "--timeout=90s"];
        self.lab.kubectl(&delete).map(drop)
    }

    /// Waits until a pod answers, with its name, on all its addresses, seen from a node's host.
    pub(crate) fn serves(&self, from: &str, name: &str) -> Result<()> {
        let pod = e2e::pods::one(self.lab, &self.ns, name)?;
        ensure!(!pod.ips.is_empty(), "pod {name} has no address");
        for ip in &pod.ips {
            let url = if ip.contains(':') {
                format!("http://[{ip}]/")
            } else {
                format!("http://{ip}/")
            };
            let argv = ["curl", "-sS", "--fail", "-g", "-m", "3", url.as_str()];
            let what = format!("pod {name} to answer on {ip} from node {from}");
            until(&what, RETURN, || {
                let said = self.lab.node(from).exec(&argv)?;
                ensure!(said == name, "{said:?} answered");
                Ok(Some(()))
            })?;
        }
        Ok(())
    }

    /// What kubectl prints as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.lab.kubectl(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// Name of cni-node's pod on a node.
    pub(crate) fn daemon(&self, node: &Node) -> Result<String> {
        let pods = e2e::pods::all(self.lab)?;
        let found = pods.into_iter().find(|pod| {
            pod.namespace == SYSTEM && pod.node == node.name() && pod.name.starts_with("cni-node-")
        });
        let pod = found.with_context(|| format!("no cni-node is on {}", node.name()))?;
        Ok(pod.name)
    }

    /// Pid of cni-node on a node; none while it does not run. As the kernel has it: kubelet says it seconds later.
    pub(crate) fn daemon_pid(&self, node: &Node) -> Result<Option<String>> {
        let daemon = |words: &[String]| matches!(words, [program, verb, ..] if program.ends_with("/cni-node") && verb == "run");
        let running = pairs::processes(node)?;
        let found = running.into_iter().find(|(_, words)| daemon(words));
        Ok(found.map(|(pid, _)| pid))
    }

    /// Kills cni-node of a node with SIGKILL.
    pub(crate) fn kill_daemon(&self, node: &Node) -> Result<()> {
        let pid = until("cni-node to run", START, || self.daemon_pid(node))?;
        run(&["kill", "-KILL", &pid])?;
        self.replaced(node, &pid)
    }

    /// Waits until cni-node of a node is another process than `pid`.
    pub(crate) fn replaced(&self, node: &Node, pid: &str) -> Result<()> {
        let what = format!("cni-node on {} to run again", node.name());
        until(&what, START, || {
            let now = self.daemon_pid(node)?;
            Ok(now.filter(|now| now != pid).map(drop))
        })
    }

    /// Waits until cni-node of a node is ready, by its own word: kubelet asks for it every few seconds only.
    pub(crate) fn daemon_ready(&self, node: &Node) -> Result<()> {
        until(
            &format!("cni-node on {} to be ready", node.name()),
            RETURN,
            || self.admin(node, "readyz").map(Some),
        )
        .map(drop)
    }

    /// What cni-node of a node answers on its admin address.
    pub(crate) fn admin(&self, node: &Node, path: &str) -> Result<String> {
        let url = format!("http://{}:9476/{path}", node.addresses().0);
        node.exec(&["curl", "-sS", "--fail-with-body", "-m", "3", &url])
    }

    /// CNI's STATUS on a node: nothing, or the code and the sentences of the error.
    pub(crate) fn status(&self, node: &Node) -> Result<Option<(u64, String)>> {
        let config = r#"{"cniVersion":"1.1.0","name":"outboard","type":"outboard"}"#;
        let script = format!(
            "printf %s '{config}' | CNI_COMMAND=STATUS CNI_PATH=/opt/cni/bin /opt/cni/bin/outboard || true"
        );
        let said = node.script(&script)?;
        if said.trim().is_empty() {
            return Ok(None);
        }
        let error: Value =
            serde_json::from_str(&said).with_context(|| format!("STATUS printed {said}"))?;
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        let code = error["code"]
            .as_u64()
            .with_context(|| format!("no code in {said}"))?;
        Ok(Some((code, format!("{} {}", text("msg"), text("details")))))
    }

    /// Waits until STATUS on a node has this code (none: all is well); its sentences.
    pub(crate) fn status_is(
        &self,
        node: &Node,
        code: Option<u64>,
        limit: Duration,
    ) -> Result<String> {
        let what = format!("STATUS {code:?} on {}", node.name());
        until(&what, limit, || {
            let now = self.status(node)?;
            ensure!(now.as_ref().map(|(code, _)| *code) == code, "it is {now:?}");
            Ok(Some(now.map(|(_, text)| text).unwrap_or_default()))
        })
    }

    /// What the failed case's namespace and the daemons say, for the report.
    pub(crate) fn evidence(&self) -> String {
        let mut text = self.dead();
        let mut part = |title: &str, arguments: &[&str]| {
            let said = self.lab.kubectl(arguments);
            let said = said.unwrap_or_else(|error| format!("{error:#}"));
            let _ = writeln!(text, "--- {title}\n{said}");
        };
        part("pods", &["get", "pods", "-A", "-o", "wide"]);
        part("dpus", &["get", "dpus.iaas.yusur.io", "-o", "yaml"]);
        part("events", &["events", "-n", &self.ns]);
        part(
            "events on cluster objects",
            &["events", "-n", "default", "--types=Warning"],
        );
        for node in [self.host(), self.dpu()] {
            if let Ok(pod) = self.daemon(node) {
                let logs = [
                    "logs",
                    "-n",
                    SYSTEM,
                    &pod,
                    "--all-containers",
                    "--prefix",
                    "--tail=60",
                ];
                part(&pod, &logs);
                part("before", &[&logs[..], &["--previous"]].concat());
            }
        }
        part(
            "cni-controller",
            &[
                "logs",
                "-n",
                SYSTEM,
                "deployment/cni-controller",
                "--tail=40",
            ],
        );
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
                    let _ = writeln!(text, "--- {name} on {} has ended: {last:?}", node.name());
                }
            }
        }
        text
    }

    /// After a failed case: everything runs again, its namespace is empty, nothing is left over.
    pub(crate) fn heal(&self) -> Result<()> {
        self.heal_channel()?;
        for node in self.lab.nodes() {
            for name in node.process_names()? {
                let process = node.process(&name);
                let _ = run(&["kill", "-CONT", &process.pid()?.to_string()]);
                if !process.alive() {
                    process.restart()?;
                }
            }
        }
        for faults in ["outboard-faults-host", "outboard-faults-dpu"] {
            let delete = [
                "delete",
                "configmap",
                "-n",
                SYSTEM,
                faults,
                "--ignore-not-found",
            ];
            self.lab.kubectl(&delete)?;
        }
        for pair in &self.pairs {
            self.lab.apply(&pair.manifest(self.lab))?;
        }
        self.end()?;
        for node in self.lab.nodes() {
            self.daemon_ready(node)?;
        }
        self.whole()?;
        leaks::wait_for_none(self.lab, START)
    }

    /// No packet of the channel passes between the host and its DPU any more.
    pub(crate) fn cut_channel(&self) -> Result<()> {
        self.host()
            .script(
                "nft -f - <<'RULES'\n\
                 table inet cut {\n\
                   chain arriving { type filter hook input priority -400; tcp sport 9478 drop; }\n\
                   chain leaving { type filter hook output priority -400; tcp dport 9478 drop; }\n\
                 }\n\
                 RULES\n",
            )
            .map(drop)
    }

    /// They pass again.
    pub(crate) fn heal_channel(&self) -> Result<()> {
        let script = "nft list table inet cut >/dev/null 2>&1 || exit 0; nft delete table inet cut";
        self.host().script(script).map(drop)
    }
}
