//! What cases need of their lab: a namespace, StorageClasses of their own, our programs' containers, and an end that leaves
//! nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Deref;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::volumes::{self, Claim, Mode, User, Volume, Volumes};
use e2e::{Lab, until};
use serde_json::{Value, json};

/// Namespace of Outboard's own pods.
pub(crate) const SYSTEM: &str = "outboard-system";
/// Longest time of anything that the cluster does by itself.
pub(crate) const LONG: Duration = Duration::from_secs(120);
/// Its part of storage that may be restarted at any time.
pub(crate) const PARTS: [&str; 4] = [
    "deployment/csi-controller",
    "deployment/snapshot-controller",
    "daemonset/csi-node-dpu",
    "daemonset/csi-node-host",
];
const DRIVER: &str = "csi.iaas.yusur.io";

/// A lab and the namespace of one case.
pub(crate) struct World<'a> {
    pub(crate) lab: &'a Lab,
    volumes: Volumes<'a>,
}

/// Claims, snapshots and pods of the case's namespace.
impl<'a> Deref for World<'a> {
    type Target = Volumes<'a>;

    fn deref(&self) -> &Volumes<'a> {
        &self.volumes
    }
}

impl<'a> World<'a> {
    /// Makes the namespace.
    pub(crate) fn begin(lab: &'a Lab, case: &str) -> Result<Self> {
        let ns = case.replace('_', "-");
        lab.kubectl(&["create", "namespace", &ns])?;
        lab.wait_for("the service account", LONG, |lab| {
            lab.kubectl(&["get", "-n", &ns, "serviceaccount", "default"])
                .map(|_| true)
        })?;
        Ok(Self {
            lab,
            volumes: Volumes::new(lab, &ns),
        })
    }

    /// Deletes everything of the case, and waits until nothing of its volumes is left, in the cluster or on a node.
    pub(crate) fn end(&self) -> Result<()> {
        let ns = self.ns.as_str();
        let volumes = self.all_volumes()?;
        let delete = |what: &str| {
            self.lab
                .kubectl(&["delete", "-n", ns, what, "--all", "--timeout=120s"])
                .map(drop)
        };
        delete("deployments,statefulsets,pods")?;
        delete("volumegroupsnapshots,volumesnapshots")?;
        delete("persistentvolumeclaims")?;
        let of_case = format!("case={ns}");
        let classes = "storageclasses,volumeattributesclasses,volumesnapshotclasses";
        self.lab.kubectl(&["delete", classes, "-l", &of_case])?;
        self.lab
            .kubectl(&["delete", "namespace", ns, "--wait=false"])?;
        until(
            "the volumes of the case to be gone everywhere",
            LONG,
            || {
                let left = volumes::left_of(self.lab, &volumes)?;
                ensure!(left.is_empty(), "left are:\n  {}", left.join("\n  "));
                Ok(Some(()))
            },
        )
    }

    /// The volumes of the namespace's claims.
    pub(crate) fn all_volumes(&self) -> Result<BTreeSet<Volume>> {
        let list = self.json(&["get", "persistentvolumes"])?;
        let mut found = BTreeSet::new();
        for pv in list["items"].as_array().into_iter().flatten() {
            if pv["spec"]["claimRef"]["namespace"] == self.ns.as_str() {
                found.insert(Volume {
                    pv: text(&pv["metadata"]["name"]),
                    handle: text(&pv["spec"]["csi"]["volumeHandle"]),
                });
            }
        }
        Ok(found)
    }

    /// What kubectl prints as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let printed = self.lab.kubectl(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&printed).context("kubectl printed no JSON")
    }

    /// Makes a StorageClass of the case's own; its name.
    pub(crate) fn class(&self, suffix: &str, parameters: &Value) -> Result<String> {
        let name = format!("{}-{suffix}", self.ns);
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": name, "labels": {"case": self.ns}},
            "provisioner": DRIVER, "parameters": parameters, "allowVolumeExpansion": true,
            "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate",
        });
        self.lab.apply(&class.to_string())?;
        Ok(name)
    }

    /// Makes a VolumeAttributesClass of the case's own; its name.
    pub(crate) fn attributes(&self, suffix: &str, parameters: &Value) -> Result<String> {
        let name = format!("{}-{suffix}", self.ns);
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass",
            "metadata": {"name": name, "labels": {"case": self.ns}},
            "driverName": DRIVER, "parameters": parameters,
        });
        self.lab.apply(&class.to_string())?;
        Ok(name)
    }

    /// Makes a claim and a pod on a node that uses it, and waits until it runs; the volume.
    pub(crate) fn use_new(&self, claim: &Claim<'_>, user: &User<'_>) -> Result<Volume> {
        self.claim(claim)?;
        self.start(user)?;
        self.bound(claim.name)
    }

    /// Waits for an Event whose reason is `reason` and whose sentence has all of `parts`; the sentence.
    pub(crate) fn event(&self, reason: &str, parts: &[&str]) -> Result<String> {
        let selector = format!("--field-selector=reason={reason}");
        let argv = [
            "get",
            "events",
            "-n",
            &self.ns,
            &selector,
            "-o",
            "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}",
        ];
        until(&format!("an Event {reason} with {parts:?}"), LONG, || {
            let said = self.lab.kubectl(&argv)?;
            let found = said
                .lines()
                .find(|line| parts.iter().all(|part| line.contains(part)));
            ensure!(found.is_some(), "the Events are: {said:?}");
            Ok(found.map(str::to_owned))
        })
    }

    /// Name of the one running pod of an app of Outboard's own, on a node or wherever it is.
    pub(crate) fn system_pod(&self, app: &str, node: Option<&str>) -> Result<String> {
        let selector = format!("app.kubernetes.io/name={app}");
        let fields = node.map_or_else(String::new, |node| format!("spec.nodeName={node}"));
        let output = "jsonpath={.items[*].metadata.name}";
        let argv = [
            "get",
            "pods",
            "-n",
            SYSTEM,
            "-l",
            &selector,
            "--field-selector",
            &fields,
            "-o",
            output,
        ];
        let names = self.lab.kubectl(&argv)?;
        ensure!(
            !names.is_empty() && !names.contains(' '),
            "pods of {app}: {names:?}"
        );
        Ok(names)
    }

    /// SIGKILL to a container's process.
    pub(crate) fn kill_container(&self, pod: &str, container: &str) -> Result<()> {
        let object = self.json(&["get", "pod", "-n", SYSTEM, pod])?;
        let statuses = object["status"]["containerStatuses"].as_array();
        let mut statuses = statuses.into_iter().flatten();
        let status = statuses.find(|status| status["name"] == container);
        let status = status.with_context(|| format!("pod {pod} has no container {container}"))?;
        let id = text(&status["containerID"]);
        let id = id.trim_start_matches("containerd://");
        let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
        let kill = [
            "ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id,
        ];
        self.lab.node(node).exec(&kill).map(drop)
    }

    /// Waits until workloads of ours are as their manifests want them.
    pub(crate) fn rolled_out(&self, workloads: &[&str]) -> Result<()> {
        rolled_out(self.lab, workloads)
    }

    /// Pods of the namespace with a label: name and node.
    pub(crate) fn pods(&self, label: &str) -> Result<Vec<(String, String)>> {
        let list = self.json(&["get", "pods", "-n", &self.ns, "-l", label])?;
        let pods = list["items"].as_array().into_iter().flatten();
        Ok(pods
            .map(|pod| {
                (
                    text(&pod["metadata"]["name"]),
                    text(&pod["spec"]["nodeName"]),
                )
            })
            .collect())
    }

    /// What the failed case's namespace says, for the report.
    pub(crate) fn evidence(&self) -> String {
        let mut text = String::new();
        for (title, argv) in [
            ("pods", &["get", "pods", "-A", "-o", "wide"][..]),
            (
                "claims",
                &["get", "-n", &self.ns, "pvc,volumesnapshots", "-o", "wide"],
            ),
        ] {
            let said = self
                .lab
                .kubectl(argv)
                .unwrap_or_else(|error| format!("{error:#}"));
            let _ = writeln!(text, "--- {title}\n{said}");
        }
        text
    }

    /// After a failed phase: every program runs, no node is shut out, our pods are well. What can't be put right shows in the
    /// next case.
    pub(crate) fn heal(lab: &Lab) {
        for node in lab.nodes() {
            let kubelet = node.process("kubelet");
            if !kubelet.alive() {
                let _ = kubelet.restart();
            }
            let _ = lab.kubectl(&["uncordon", node.name()]);
            let _ = lab.kubectl(&[
                "taint",
                "node",
                node.name(),
                "node.kubernetes.io/out-of-service-",
            ]);
        }
        for workload in PARTS {
            let set = ["set", "env", "-n", SYSTEM, workload];
            let unset = ["OUTBOARD_KILL_AT-", "FAILPOINTS-"];
            let _ = lab.kubectl(&[&set[..], &unset].concat());
        }
        let _ = rolled_out(lab, &PARTS);
    }
}

fn rolled_out(lab: &Lab, workloads: &[&str]) -> Result<()> {
    for workload in workloads {
        let status = [
            "rollout",
            "status",
            "-n",
            SYSTEM,
            workload,
            "--timeout=120s",
        ];
        if let Err(error) = lab.kubectl(&status) {
            let pods = lab
                .kubectl(&["get", "pods", "-n", SYSTEM, "-o", "wide"])
                .unwrap_or_default();
            bail!("{error:#}\n{pods}");
        }
    }
    Ok(())
}

/// The name under which a pod has its volume: a directory's file, or the device.
pub(crate) fn file(mode: Mode) -> &'static str {
    match mode {
        Mode::Filesystem => "/data/file",
        Mode::Block => "/dev/disk",
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
