//! Claims, what becomes of them, and pods that use them: what checks of storage do again and again.
//!
//! All calls block until what they ask for is so, or their deadline has passed: then the error ends with what the cluster
//! says of it.

mod ask;
mod data;
mod sweep;

use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

pub use ask::{Claim, From, Mode, User};
pub use data::{Log, Written};
pub use sweep::{left_of, wait_for_none};

use crate::lab::Lab;

const SYSTEM: &str = "outboard-system";
/// Longest time of one step of the cluster, on a machine that does other things, too.
const STEP: Duration = Duration::from_secs(120);

/// The volume of a claim.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Volume {
    /// Name of the PersistentVolume.
    pub pv: String,
    /// `v1.local.<uuid>`.
    pub handle: String,
}

impl Volume {
    /// Its UUID, as all of our programs call it.
    pub fn uuid(&self) -> &str {
        self.handle.rsplit('.').next().unwrap_or_default()
    }
}

/// Claims, snapshots and pods of one namespace.
#[derive(Clone)]
pub struct Volumes<'a> {
    lab: &'a Lab,
    /// The namespace, which exists.
    pub ns: String,
}

impl<'a> Volumes<'a> {
    /// In namespace `ns`.
    pub fn new(lab: &'a Lab, ns: &str) -> Self {
        Self {
            lab,
            ns: ns.to_owned(),
        }
    }

    /// Makes or changes an object of the namespace.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn apply(
        &self,
        kind: (&str, &str),
        name: &str,
        labels: &Value,
        spec: &Value,
    ) -> Result<()> {
        let meta = json!({"name": name, "namespace": self.ns, "labels": labels});
        let object = json!({"apiVersion": kind.0, "kind": kind.1, "metadata": meta, "spec": spec});
        self.lab.apply(&object.to_string()).map(drop)
    }

    /// Makes a claim; does not wait.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn claim(&self, claim: &Claim<'_>) -> Result<()> {
        self.apply(
            ("v1", "PersistentVolumeClaim"),
            claim.name,
            &claim.labels,
            &claim.spec(),
        )
    }

    /// Waits until a claim has its volume. A class that waits for a first user needs a pod before.
    ///
    /// # Errors
    /// It has none in time.
    pub fn bound(&self, claim: &str) -> Result<Volume> {
        self.wait(
            &format!("pvc/{claim}"),
            "jsonpath={.status.phase}=Bound",
            STEP,
        )?;
        let pv = self.get(&["pvc", claim], "{.spec.volumeName}")?;
        let handle = self.get(&["pv", &pv], "{.spec.csi.volumeHandle}")?;
        Ok(Volume { pv, handle })
    }

    /// Makes a snapshot and waits until it can be used.
    ///
    /// # Errors
    /// It can't in time.
    pub fn snapshot(&self, name: &str, claim: &str) -> Result<()> {
        let spec = json!({
            "volumeSnapshotClassName": "outboard", "source": {"persistentVolumeClaimName": claim},
        });
        self.apply(
            ("snapshot.storage.k8s.io/v1", "VolumeSnapshot"),
            name,
            &json!({}),
            &spec,
        )?;
        self.wait(
            &format!("volumesnapshot/{name}"),
            "jsonpath={.status.readyToUse}=true",
            STEP,
        )
    }

    /// Asks for more, and waits until the claim says that it is there, file system and all.
    ///
    /// # Errors
    /// It is not in time.
    pub fn grow(&self, claim: &str, size: &str) -> Result<()> {
        self.patch(
            claim,
            &json!({"spec": {"resources": {"requests": {"storage": size}}}}),
        )?;
        self.wait(
            &format!("pvc/{claim}"),
            &format!("jsonpath={{.status.capacity.storage}}={size}"),
            STEP,
        )
    }

    /// Gives a claim another VolumeAttributesClass, and waits until it holds.
    ///
    /// # Errors
    /// It does not in time.
    pub fn modify(&self, claim: &str, class: &str) -> Result<()> {
        self.patch(
            claim,
            &json!({"spec": {"volumeAttributesClassName": class}}),
        )?;
        let holds = format!("jsonpath={{.status.currentVolumeAttributesClassName}}={class}");
        self.wait(&format!("pvc/{claim}"), &holds, STEP)
    }

    fn patch(&self, claim: &str, change: &Value) -> Result<()> {
        self.lab
            .kubectl(&[
                "patch",
                "-n",
                &self.ns,
                "pvc",
                claim,
                "-p",
                &change.to_string(),
            ])
            .map(drop)
    }

    /// Makes a pod; does not wait.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn create(&self, user: &User<'_>) -> Result<()> {
        self.apply(
            ("v1", "Pod"),
            user.name,
            &json!({"app": user.name}),
            &user.spec(self.lab),
        )
    }

    /// Makes a pod and waits until it runs.
    ///
    /// # Errors
    /// It does not in time.
    pub fn start(&self, user: &User<'_>) -> Result<()> {
        self.create(user)?;
        self.ready(user.name)
    }

    /// Waits until a pod runs.
    ///
    /// # Errors
    /// It does not in time.
    pub fn ready(&self, pod: &str) -> Result<()> {
        self.wait(&format!("pod/{pod}"), "condition=Ready", STEP)
    }

    /// Deletes objects (`pod/a`, `pvc/b`) and waits until they are gone.
    ///
    /// # Errors
    /// They are not in time.
    pub fn delete(&self, objects: &[&str]) -> Result<()> {
        let argv = [&["delete", "-n", &self.ns, "--timeout=120s"], objects].concat();
        self.explained(
            objects.first().copied().unwrap_or_default(),
            self.lab.kubectl(&argv).map(drop),
        )
    }

    /// Ends a pod and starts another one after it.
    ///
    /// # Errors
    /// The first does not end, or the second does not run in time.
    pub fn replace(&self, pod: &str, user: &User<'_>) -> Result<()> {
        self.delete(&[&format!("pod/{pod}")])?;
        self.start(user)
    }

    /// A field of an object (kind, name), by its path.
    ///
    /// # Errors
    /// There is no such object.
    pub fn get(&self, object: &[&str], path: &str) -> Result<String> {
        let output = format!("jsonpath={path}");
        self.lab
            .kubectl(&[&["get", "-n", &self.ns], object, &["-o", &output]].concat())
    }

    /// Waits for a condition as `kubectl wait --for` has it.
    ///
    /// # Errors
    /// It is not met in time.
    pub fn wait(&self, object: &str, condition: &str, limit: Duration) -> Result<()> {
        let (condition, limit) = (
            format!("--for={condition}"),
            format!("--timeout={}s", limit.as_secs()),
        );
        let waited = self
            .lab
            .kubectl(&["wait", "-n", &self.ns, object, &condition, &limit]);
        self.explained(object, waited.map(drop))
    }

    /// An error with what the cluster says of `object`, of its namespace, and of our programs.
    fn explained<T>(&self, object: &str, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| {
            let mut text = format!("{error:#}");
            let mut part = |title: &str, lines: usize, argv: &[&str]| {
                let said = self
                    .lab
                    .kubectl(argv)
                    .unwrap_or_else(|error| format!("{error:#}"));
                let said: Vec<&str> = said.lines().collect();
                let last = &said[said.len().saturating_sub(lines)..];
                text += &format!("\n--- {title}\n{}", last.join("\n"));
            };
            part(object, 60, &["describe", "-n", &self.ns, object]);
            part("events", 40, &["events", "-n", &self.ns]);
            part(
                "attachments",
                40,
                &["get", "volumeattachments", "-o", "wide"],
            );
            for app in ["csi-controller", "csi-node-dpu", "csi-node-host"] {
                let of_app = format!("app.kubernetes.io/name={app}");
                let argv = [
                    "logs",
                    "-n",
                    SYSTEM,
                    "-l",
                    &of_app,
                    "--all-containers",
                    "--prefix",
                    "--tail=8",
                ];
                part(app, 60, &argv);
            }
            anyhow!(text)
        })
    }
}
