//! What is asked of the cluster: claims, and pods that use them.

use serde_json::{Value, json};

use super::data::{Log, WRITER};
use crate::lab::Lab;

/// What pods do that only wait to be told.
const IDLE: &str = "trap 'exit 0' TERM; sleep infinity & wait";

/// How a pod sees a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A directory.
    Filesystem,
    /// A device.
    Block,
}

/// What a new volume contains.
#[derive(Debug, Clone, Copy)]
pub enum From<'a> {
    /// A snapshot's contents, by its name.
    Snapshot(&'a str),
    /// What another claim's volume contains now.
    Claim(&'a str),
}

/// A PersistentVolumeClaim to make.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// Its name.
    pub name: &'a str,
    /// `64Mi`.
    pub size: &'a str,
    /// Name of its StorageClass.
    pub class: &'a str,
    /// Directory or device.
    pub mode: Mode,
    /// `ReadWriteOnce`, …
    pub access: &'a str,
    /// Blank if there is none.
    pub from: Option<From<'a>>,
    /// Labels.
    pub labels: Value,
}

impl<'a> Claim<'a> {
    /// A blank one of class `outboard` that one node may write.
    pub fn new(name: &'a str, size: &'a str, mode: Mode) -> Self {
        Self {
            name,
            size,
            class: "outboard",
            mode,
            access: "ReadWriteOnce",
            from: None,
            labels: json!({}),
        }
    }

    /// The `spec`, which templates have, too.
    pub fn spec(&self) -> Value {
        let mut spec = json!({
            "accessModes": [self.access],
            "storageClassName": self.class,
            "volumeMode": if self.mode == Mode::Block { "Block" } else { "Filesystem" },
            "resources": {"requests": {"storage": self.size}},
        });
        match self.from {
            Some(From::Snapshot(name)) => {
                spec["dataSource"] = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name});
            }
            Some(From::Claim(name)) => {
                spec["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": name});
            }
            None => {}
        }
        spec
    }
}

/// A pod that uses claims.
#[derive(Debug, Clone)]
pub struct User<'a> {
    /// Its name.
    pub name: &'a str,
    /// The node it has to be on.
    pub node: Option<&'a str>,
    /// Name of a claim, how and where (`/data`, `/dev/disk`) the pod sees it.
    pub uses: Vec<(&'a str, Mode, &'a str)>,
    command: Vec<String>,
}

impl<'a> User<'a> {
    /// It has one claim, a directory at `/data` or a device at `/dev/disk`, and waits to be told what to do ([`Volumes::sh`]).
    pub fn new(name: &'a str, claim: &'a str, mode: Mode) -> Self {
        Self {
            name,
            node: None,
            uses: vec![(
                claim,
                mode,
                if mode == Mode::Block {
                    "/dev/disk"
                } else {
                    "/data"
                },
            )],
            command: ["sh", "-c", IDLE].map(str::to_owned).to_vec(),
        }
    }

    /// The same on a certain node.
    pub fn on(mut self, node: &'a str) -> Self {
        self.node = Some(node);
        self
    }

    /// The same, but it writes from its start until [`Volumes::stop_writer`]: to a file that grows, or round and round on the
    /// first `ring` blocks of a device.
    pub fn writing(mut self, log: Log<'_>) -> Self {
        let ring = log.ring.to_string();
        self.command = ["sh", "-c", WRITER, "writer", log.path, &ring]
            .map(str::to_owned)
            .to_vec();
        self
    }

    /// It does `script` (sh).
    pub fn doing(mut self, script: &str) -> Self {
        self.command = ["sh", "-c", script].map(str::to_owned).to_vec();
        self
    }

    /// The pod's `spec`.
    pub fn spec(&self, lab: &Lab) -> Value {
        let of = |mode: Mode| self.uses.iter().filter(move |used| used.1 == mode);
        let mounts: Vec<Value> = of(Mode::Filesystem)
            .map(|(claim, _, at)| json!({"name": claim, "mountPath": at}))
            .collect();
        let devices: Vec<Value> = of(Mode::Block)
            .map(|(claim, _, at)| json!({"name": claim, "devicePath": at}))
            .collect();
        let volumes: Vec<Value> = self
            .uses
            .iter()
            .map(
                |(claim, ..)| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}),
            )
            .collect();
        let mut spec = json!({
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 2,
            "containers": [{
                "name": "c", "image": lab.image(), "imagePullPolicy": "Never", "command": self.command,
                "volumeMounts": mounts, "volumeDevices": devices,
            }],
            "volumes": volumes,
        });
        // Not by nodeName: the scheduler has a say in where volumes are used.
        if let Some(node) = self.node {
            spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        }
        spec
    }
}
