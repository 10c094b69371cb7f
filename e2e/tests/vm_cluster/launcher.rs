//! The pod of a VM, as virt-controller renders it, and what Multus, virt-controller and virt-launcher do with it.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::libvirt::{Libvirt, QEMU_USER};
use e2e::{Delegate, Lab, Node, pods, until};
use serde_json::{Value, json};

use crate::MINUTE;
use crate::manager::Manager;
use crate::migration::Order;

pub(crate) const SIDECAR: &str = "hook-sidecar-0";
pub(crate) const NAMESPACE: &str = "default";
/// `pod` and the first 11 digits of SHA-256 of the network's name, `net1`.
pub(crate) const IFNAME: &str = "pod6c270ef2f25";
/// Where the socket is in container `compute`.
const SOCKET: &str = "/var/run/kubevirt-hooks/outboard/net/pod6c270ef2f25.sock";

/// What a VM's interface is on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plug {
    /// Where Open vSwitch has DPDK.
    Socket,
    /// Where it has not.
    Tap,
}

/// Which pod is wanted.
#[derive(Clone, Copy)]
pub(crate) struct Spec<'s> {
    /// `virt-launcher-<VM>-<five characters>`.
    pub(crate) name: &'s str,
    pub(crate) node: &'s str,
    pub(crate) plug: Plug,
    /// Whose target it is.
    pub(crate) migration: Option<&'s Order<'s>>,
}

/// The pod, running.
pub(crate) struct Launcher<'a> {
    lab: &'a Lab,
    node: &'a Node,
    name: String,
    pub(crate) uid: String,
    plug: Plug,
    delegate: Delegate<'a>,
}

/// What the plugin gave the VM's interface.
pub(crate) struct Nic {
    pub(crate) result: Value,
    pub(crate) mac: String,
    pub(crate) mtu: u64,
    /// With prefix lengths.
    pub(crate) addresses: Vec<String>,
}

impl Nic {
    /// Its address of a family, without prefix length.
    pub(crate) fn ip(&self, v6: bool) -> Result<&str> {
        let ip = self.addresses.iter().find(|ip| ip.contains(':') == v6);
        let (ip, _) = ip
            .and_then(|ip| ip.split_once('/'))
            .with_context(|| format!("no such address: {:?}", self.addresses))?;
        Ok(ip)
    }

    fn of(result: Value, plug: Plug) -> Result<Self> {
        let interfaces = result["interfaces"].as_array().context("no interfaces")?;
        let (interface, socket) = match (plug, interfaces.as_slice()) {
            (Plug::Socket, [interface]) => (interface, json!(SOCKET)),
            // The other one is the node's end of the pair.
            (Plug::Tap, [_, interface]) => (interface, Value::Null),
            _ => anyhow::bail!("not the interfaces of a {plug:?}: {result}"),
        };
        ensure!(
            interface["name"] == IFNAME && interface["socketPath"] == socket,
            "the interface is another one: {result}"
        );
        ensure!(
            interface["sandbox"]
                .as_str()
                .is_some_and(|at| !at.is_empty()),
            "Multus reports interfaces of a sandbox alone: {result}"
        );
        let ips = result["ips"].as_array().context("no addresses")?;
        let text = |ip: &Value, key: &str| ip[key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            mac: text(interface, "mac"),
            mtu: interface["mtu"].as_u64().context("no MTU")?,
            addresses: ips.iter().map(|ip| text(ip, "address")).collect(),
            result,
        })
    }
}

impl<'a> Launcher<'a> {
    /// Makes the pod and waits until it is Ready.
    pub(crate) fn start(lab: &'a Lab, vm: &Value, spec: &Spec<'_>) -> Result<Self> {
        let network = &vm["spec"]["networks"][0];
        let name = network["multus"]["networkName"].as_str();
        let (namespace, name) = name
            .and_then(|name| name.split_once('/'))
            .context("the VM's network has a namespace")?;
        let networks =
            json!([{"name": name, "namespace": namespace, "interface": IFNAME}]).to_string();
        let binding = vm["spec"]["domain"]["devices"]["interfaces"][0]["binding"]["name"].clone();
        // KubeVirt gives a block volume to the container as a device, by the volume's name.
        let claimed = vm["spec"]["volumes"].as_array().into_iter().flatten();
        let claimed = claimed.filter(|volume| volume["persistentVolumeClaim"].is_object());
        let claimed: Vec<Value> = claimed.cloned().collect();
        let devices: Vec<Value> = claimed
            .iter()
            .filter_map(|volume| volume["name"].as_str())
            .map(|name| json!({"name": name, "devicePath": format!("/dev/{name}")}))
            .collect();
        let mut volumes = claimed;
        volumes.extend([
            json!({"name": "hook-sidecar-sockets", "emptyDir": {}}),
            json!({"name": "network-info-annotation", "downwardAPI": {"items": [{
                "path": "network-info",
                "fieldRef": {"fieldPath": "metadata.annotations['kubevirt.io/network-info']"},
            }]}}),
        ]);
        let secure = json!({
            "allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": QEMU_USER,
            "runAsGroup": QEMU_USER, "capabilities": {"drop": ["ALL"]},
        });
        let hooks = "/var/run/kubevirt-hooks";
        let machine = &vm["metadata"]["name"];
        let mut labels = json!({
            "kubevirt.io": "virt-launcher", "kubevirt.io/created-by": vm["metadata"]["uid"], "vm.kubevirt.io/name": machine,
        });
        let mut annotations =
            json!({"k8s.v1.cni.cncf.io/networks": networks, "kubevirt.io/domain": machine});
        if let Some(migration) = spec.migration {
            labels["kubevirt.io/migrationJobUID"] = json!(migration.uid);
            annotations["kubevirt.io/migrationJobName"] = json!(migration.name);
        }
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": spec.name, "namespace": NAMESPACE, "labels": labels, "annotations": annotations,
                "ownerReferences": [{
                    "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "controller": true,
                    "name": machine, "uid": vm["metadata"]["uid"],
                }],
            },
            "spec": {
                "nodeName": spec.node, "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
                "restartPolicy": "Never",
                "securityContext": {"fsGroup": QEMU_USER},
                "volumes": volumes,
                "containers": [
                    {
                        "name": "compute", "image": lab.pause_image(), "imagePullPolicy": "Never",
                        "securityContext": secure,
                        "volumeMounts": [{"name": "hook-sidecar-sockets", "mountPath": hooks}],
                        "volumeDevices": devices,
                    },
                    {
                        "name": SIDECAR, "image": lab.shim_image(), "imagePullPolicy": "Never",
                        "securityContext": secure,
                        "env": [
                            {"name": "CONTAINER_NAME", "value": SIDECAR},
                            {"name": "NETWORK_BINDING_PLUGIN_NAME", "value": binding},
                        ],
                        "volumeMounts": [
                            {"name": "hook-sidecar-sockets", "mountPath": hooks, "subPath": SIDECAR},
                            {"name": "network-info-annotation", "mountPath": "/etc/podinfo"},
                        ],
                    },
                ],
            },
        });
        lab.apply(&pod.to_string())?;
        lab.wait_ready(NAMESPACE, spec.name, MINUTE)?;
        Ok(Self {
            lab,
            node: lab.node(spec.node),
            name: spec.name.to_owned(),
            uid: pods::one(lab, NAMESPACE, spec.name)?.uid,
            plug: spec.plug,
            delegate: Delegate::new(lab, NAMESPACE, spec.name, IFNAME, name)?,
        })
    }

    /// libvirt of this pod. A tap is a link of the pod's.
    pub(crate) fn libvirt(&self) -> Result<Libvirt<'a>> {
        match self.plug {
            Plug::Socket => Libvirt::start(self.node, &self.volume()),
            Plug::Tap => {
                let sandbox = e2e::sandbox(self.node, &self.uid)?;
                Libvirt::inside(self.node, &self.volume(), &sandbox.netns)
            }
        }
    }

    /// The pod's hook volume, as its node has it.
    fn volume(&self) -> String {
        format!(
            "/var/lib/kubelet/pods/{}/volumes/kubernetes.io~empty-dir/hook-sidecar-sockets",
            self.uid
        )
    }

    /// Multus' ADD; and virt-controller's annotation, made of its result.
    pub(crate) fn plug(&self) -> Result<Nic> {
        let nic = Nic::of(self.delegate.add()?, self.plug)?;
        let info = self.delegate.device_info()?;
        let info = info.context("the plugin said nothing of the device")?;
        let good = match self.plug {
            Plug::Socket => {
                info["type"] == "vhost-user"
                    && info["vhost-user"] == json!({"mode": "server", "path": SOCKET})
            }
            Plug::Tap => info["type"] == "tap",
        };
        ensure!(good, "device-info: {info}");
        let network =
            json!({"network": "net1", "deviceInfo": info, "mac": nic.mac, "mtu": nic.mtu});
        let note = json!({"interfaces": [network]});
        let note = format!("kubevirt.io/network-info={note}");
        self.lab
            .kubectl(&["annotate", "pod", "-n", NAMESPACE, &self.name, &note])?;
        Ok(nic)
    }

    /// CHECK of what ADD gave.
    pub(crate) fn check(&self, nic: &Nic) -> Result<()> {
        self.delegate.check(&nic.result)
    }

    /// virt-launcher's hook manager: the domain's XML after the sidecar. Asked twice, as on q35.
    pub(crate) fn define(&self, libvirt: &Libvirt<'_>, xml: &str, vm: &Value) -> Result<String> {
        let vm = vm.to_string();
        let hooks = libvirt.hooks()?;
        block_on(async {
            let manager = Manager::collect(&hooks, 1, Duration::from_secs(20))
                .await
                .map_err(|why| anyhow!(why))?;
            let first = manager.on_define_domain(xml, &vm).await?;
            let second = manager.on_define_domain(&first, &vm).await?;
            ensure!(
                first == second,
                "the second answer differs:\n{first}\n{second}"
            );
            Ok(first)
        })
    }

    /// The VM has ended: the sidecar is told, and ends by itself; then the pod is deleted, as Multus and virt-controller do it.
    pub(crate) fn end(&self, libvirt: &Libvirt<'_>) -> Result<()> {
        let hooks = libvirt.hooks()?;
        block_on(async {
            let manager = Manager::collect(&hooks, 1, Duration::from_secs(20))
                .await
                .map_err(|why| anyhow!(why))?;
            manager.shutdown().await?;
            Ok(())
        })?;
        until("the sidecar's end", MINUTE, || {
            let query = format!(
                "-o=jsonpath={{.status.containerStatuses[?(@.name==\"{SIDECAR}\")].state.terminated.exitCode}}"
            );
            let code = self
                .lab
                .kubectl(&["get", "pod", "-n", NAMESPACE, &self.name, &query])?;
            ensure!(code.is_empty() || code == "0", "it ended with {code}");
            Ok((!code.is_empty()).then_some(()))
        })?;
        self.delegate.del(None)?;
        // A second one, as after a restart of kubelet.
        self.delegate.del(None)?;
        ensure!(
            self.delegate.device_info()?.is_none(),
            "what was said of the device is still there after DEL"
        );
        self.lab
            .kubectl(&["delete", "pod", "-n", NAMESPACE, &self.name])
            .map(drop)
    }
}

/// No mount, port or process of the VM is on the node.
pub(crate) fn leaves_nothing(lab: &Lab, node: &str) -> Result<()> {
    let node = lab.node(node);
    until("the node to be as before", MINUTE, || {
        // cni-node's own place, in which it makes mounts, stays.
        let mounts = node.script(
            "grep -F /run/outboard/vhost/ /proc/self/mountinfo | grep -vF /vhost/.staging || true",
        )?;
        ensure!(mounts.is_empty(), "mounts: {mounts}");
        let sockets = node.script("ls /run/outboard/vhost 2>/dev/null || true")?;
        ensure!(sockets.is_empty(), "in /run/outboard/vhost: {sockets}");
        let ports = node.exec(&[
            "ovs-vsctl",
            "--bare",
            "--columns=name",
            "find",
            "interface",
            "type=dpdkvhostuserclient",
        ])?;
        ensure!(ports.is_empty(), "ports: {ports}");
        Ok(Some(()))
    })
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?
        .block_on(work)
}
