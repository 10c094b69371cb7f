//! The pods and Services that the checks look at.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use crate::evidence;
use crate::lab::Lab;
use crate::pods::{self, Family, Pod};

/// Namespace of everything in the scene.
pub const NAMESPACE: &str = "demo";
const MANIFEST: &str = include_str!("../../manifests/scene.yaml");
const READY: Duration = Duration::from_secs(90);

/// The scene, deployed.
pub struct Scene<'a> {
    pub(super) lab: &'a Lab,
    pods: Vec<Pod>,
    /// ClusterIPs of Service `web`, IPv4 and IPv6.
    service: [String; 2],
}

impl<'a> Scene<'a> {
    /// Deploys it, and waits until all its pods are Ready, so that kubelet's probes reach the web servers.
    ///
    /// # Errors
    /// A pod does not get Ready: the message ends with what the cluster says of itself.
    pub fn deploy(lab: &'a Lab) -> Result<Self> {
        lab.apply(&MANIFEST.replace("IMAGE", lab.image()))?;
        let ready = || -> Result<()> {
            let limit = format!("--timeout={}s", READY.as_secs());
            lab.kubectl(&[
                "rollout",
                "status",
                "-n",
                NAMESPACE,
                "deployment/web",
                &limit,
            ])?;
            lab.kubectl(&[
                "wait",
                "-n",
                NAMESPACE,
                "--for=condition=Ready",
                "pods",
                "--all",
                &limit,
            ])?;
            Ok(())
        };
        ready().map_err(|error| anyhow!("{error:#}\n{}", evidence::of_cluster(lab)))?;
        let pods = pods::all(lab)?
            .into_iter()
            .filter(|pod| pod.namespace == NAMESPACE)
            .collect();
        let ips = lab.kubectl(&[
            "get",
            "service",
            "-n",
            NAMESPACE,
            "web",
            "-o",
            "jsonpath={.spec.clusterIPs[*]}",
        ])?;
        let (v4, v6) = ips
            .split_once(' ')
            .with_context(|| format!("Service web is not dual stack: {ips}"))?;
        Ok(Self {
            lab,
            pods,
            service: [v4.to_owned(), v6.to_owned()],
        })
    }

    /// Deletes it, and waits until the API server has forgotten it.
    ///
    /// # Errors
    /// Something stays.
    pub fn remove(self) -> Result<()> {
        let delete = |what: &[&str]| {
            self.lab.kubectl(
                &[
                    &["delete", "--wait", "--timeout=90s", "--ignore-not-found"],
                    what,
                ]
                .concat(),
            )
        };
        delete(&["namespace", NAMESPACE])?;
        delete(&["subnets.iaas.yusur.io", "demo-storage"])?;
        delete(&["vpcs.iaas.yusur.io", "demo-storage"])?;
        Ok(())
    }

    /// The lab it stands in.
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// The web server's pod on a node.
    pub(super) fn web(&self, node: &str) -> Result<&Pod> {
        let found = self
            .pods
            .iter()
            .find(|pod| pod.app == "web" && pod.node == node);
        found.with_context(|| {
            format!(
                "no pod of Deployment web is on node {node}: {:?}",
                self.pods
            )
        })
    }

    /// Address of the Service.
    pub(super) fn service(&self, family: Family) -> &str {
        &self.service[usize::from(family == Family::V6)]
    }
}
