//! libvirt on a node, as virt-launcher has it: its own sockets, QEMU as user 107, and the pod's hook volume at
//! `/var/run/kubevirt-hooks`, so that a domain's XML needs no change to be started here.
//!
//! What surprises (libvirt 9.0): the user that QEMU is to run as must have the name `libvirt-qemu` at the start, whatever
//! qemu.conf says; what libvirt knows of QEMU is asked for anew at every start of a domain where there is a `/dev/kvm` that
//! QEMU's user cannot open, so there is none here; `<mtu>` in a vhost-user interface fails every start; and libvirtd asks for the address
//! of its own host's name, also while a migrated guest stands still: /etc/hosts has it, or that is 5 s of DNS.

mod boot;
mod boot_disk;
mod domain;
mod migration;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

pub use boot::Boot;
pub use domain::Domain;
pub use migration::Migration;

use crate::node::Node;
use crate::process::Process;
use crate::wait;

/// KubeVirt's user of QEMU and owner of a VM's sockets.
pub const QEMU_USER: u32 = 107;
/// In the mount namespace of libvirtd and of all QEMUs: the hook volume, no KVM. What is unmounted on the node goes here, too.
const NAMESPACE: &str = r#"
mkdir -p /run/kubevirt-hooks
mount --rbind "$1" /run/kubevirt-hooks
if [ -e /dev/kvm ]; then
    : >/run/no-kvm
    chmod 0 /run/no-kvm
    mount --bind /run/no-kvm /dev/kvm
fi
exec libvirtd -f /etc/libvirt/libvirtd.conf -p /run/libvirtd.pid
"#;

/// QEMU stays in the node's cgroup, where the lab finds it.
const QEMU_CONF: &str = "security_driver = \"none\"
namespaces = []
cgroup_controllers = []
remember_owner = 0
";

const LIBVIRTD_CONF: &str = "auth_unix_ro = \"none\"
auth_unix_rw = \"none\"
unix_sock_dir = \"/run/libvirt\"
log_outputs = \"3:stderr\"
";
const SOCKET: &str = "/run/libvirt/libvirt-sock";

/// libvirtd and virtlogd of one node. Dropping it ends both; domains of it are to be gone before.
pub struct Libvirt<'n> {
    node: &'n Node,
    daemons: [Process; 2],
}

impl<'n> Libvirt<'n> {
    /// Starts both on a node, with the directory `hooks` of the node as the hook volume; waits until libvirtd answers.
    ///
    /// # Errors
    /// A program is missing or does not come up: the message names its log.
    pub fn start(node: &'n Node, hooks: &str) -> Result<Self> {
        Self::start_by(node, hooks, &[])
    }

    /// The same in a network namespace of the node, which is a pod's: domains find the pod's links.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn inside(node: &'n Node, hooks: &str, netns: &str) -> Result<Self> {
        Self::start_by(node, hooks, &["nsenter", &format!("--net={netns}"), "--"])
    }

    fn start_by(node: &'n Node, hooks: &str, prefix: &[&str]) -> Result<Self> {
        node.write("/etc/libvirt/qemu.conf", QEMU_CONF)?;
        // Nobody migrates to the host that it is on; all nodes have the machine's own UUID.
        let host = format!(
            "host_uuid = \"{:08}-0000-4000-8000-{:012}\"\n",
            node.lab(),
            node.index()
        );
        node.write(
            "/etc/libvirt/libvirtd.conf",
            &(LIBVIRTD_CONF.to_owned() + &host),
        )?;
        let name = node.name();
        node.script(&format!(
            "grep -q ' {name}$' /etc/hosts || echo '127.0.0.1 {name}' >>/etc/hosts\n"
        ))?;
        node.script(&format!(
            "for file in passwd group; do sed -i /^libvirt-qemu:/d /etc/$file; done\n\
             echo 'libvirt-qemu:x:{QEMU_USER}:{QEMU_USER}::/:/usr/sbin/nologin' >>/etc/passwd\n\
             echo 'libvirt-qemu:x:{QEMU_USER}:' >>/etc/group\n"
        ))?;
        let virtlogd = node.start("virtlogd", &["virtlogd", "-p", "/run/virtlogd.pid"])?;
        let argv = ["unshare", "-m", "--propagation", "slave", "sh", "-ec"];
        let libvirtd = node.start(
            "libvirtd",
            &[prefix, &argv[..], &[NAMESPACE, "sh", hooks]].concat(),
        )?;
        let libvirt = Self {
            node,
            daemons: [libvirtd, virtlogd],
        };
        wait::until_true(
            &format!(
                "libvirtd on node {} (its log: {}/libvirtd.log)",
                node.name(),
                node.dir().display()
            ),
            Duration::from_secs(60),
            || libvirt.virsh(&["list"]).map(|_| true),
        )?;
        Ok(libvirt)
    }

    /// The hook volume as virt-launcher has it, by a path of this machine that is short enough for sockets.
    ///
    /// # Errors
    /// libvirtd was not started.
    pub fn hooks(&self) -> Result<PathBuf> {
        let pid = self.daemons[0].pid()?;
        Ok(PathBuf::from(format!(
            "/proc/{pid}/root/run/kubevirt-hooks"
        )))
    }

    /// Runs virsh.
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn virsh(&self, arguments: &[&str]) -> Result<String> {
        let head = ["virsh", "-c", "qemu:///system", "--quiet"];
        self.node.exec(&[&head[..], arguments].concat())
    }
}

impl Drop for Libvirt<'_> {
    fn drop(&mut self) {
        for daemon in &self.daemons {
            if let Err(error) = daemon.terminate() {
                eprintln!("on node {}: {error:#}", self.node.name());
            }
        }
    }
}
