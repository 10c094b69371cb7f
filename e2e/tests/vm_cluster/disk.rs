//! The VM's data disk: a claim whose volume is a socket of its storage daemon, written while what serves it dies.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::libvirt::Domain;
use e2e::{Lab, until, volumes};

use crate::{MINUTE, NODE};

/// Of the example.
pub(crate) const CLAIM: &str = "data-disk";
const SYSTEM: &str = "outboard-system";
/// As pods of storage's tests do it: numbered blocks with checksums, each synced before the next.
const WRITER: &str = include_str!("../../src/volumes/writer.sh");
const VERIFY: &str = include_str!("../../src/volumes/verify.sh");
/// The writer never begins anew at the front.
const RING: u64 = 0;
const DEVICE: &str = "/dev/vda";

/// The volume behind the disk.
pub(crate) struct Disk<'a> {
    lab: &'a Lab,
    uuid: String,
}

/// The disk of KubeVirt's converter, before any sidecar: the claim's block device, as the VM's volume `name`.
pub(crate) fn xml(name: &str, boot: &str) -> String {
    format!(
        r#"<disk device="disk" type="block" model="virtio-non-transitional">
			<source dev="/dev/{name}"></source>
			<target bus="virtio" dev="vda"></target>
			<driver cache="none" error_policy="stop" io="native" name="qemu" type="raw" discard="unmap"></driver>
			{boot}<alias name="ua-{name}"></alias>
		</disk>"#
    )
}

/// The domain has the claim's socket in its place.
pub(crate) fn is_bound(xml: &str, name: &str, claim: &str) -> Result<()> {
    let socket = format!("/var/run/kubevirt-hooks/outboard/blk/{claim}/disk.sock");
    for part in [
        "<disk type='vhostuser'",
        &socket,
        "name='config-wce' type='bool' value='false'",
    ] {
        ensure!(xml.contains(part), "no {part} in the domain:\n{xml}");
    }
    ensure!(
        !xml.contains(&format!("/dev/{name}")),
        "two disks of one volume: {xml}"
    );
    Ok(())
}

impl<'a> Disk<'a> {
    /// The claim's volume.
    pub(crate) fn of(lab: &'a Lab) -> Result<Self> {
        let volume = volumes::Volumes::new(lab, "default").bound(CLAIM)?;
        Ok(Self {
            lab,
            uuid: volume.uuid().to_owned(),
        })
    }

    /// A guest that writes sees nothing of a restart of the engine: the storage daemon goes on.
    pub(crate) fn outlives_the_engine(&self, domain: &Domain<'_>) -> Result<String> {
        domain.run(&format!(
            "set -e\ncat >/run/writer.sh <<'END'\n{WRITER}\nEND\n\
             read -r how </sys/block/vda/queue/write_cache\n[ \"$how\" = 'write back' ]\n\
             setsid sh /run/writer.sh {DEVICE} {RING} </dev/null >/dev/null 2>&1 &"
        ))?;
        advance(domain, 5)?;
        let pid = self.daemon()?;
        self.restart_engine()?;
        advance(domain, 5).context("after a restart of outboard-engine")?;
        ensure!(
            self.daemon()? == pid,
            "the storage daemon did not outlive outboard-engine"
        );
        let longest = domain.run("cat /tmp/longest")?;
        let longest = Duration::from_millis(longest.parse::<u64>()? * 10);
        Ok(format!("the slowest block took {longest:.1?}"))
    }

    /// The storage daemon dies under the writer, and another one takes its place. The disk waits, the guest goes on. Gives the last block
    /// that the guest had synced.
    pub(crate) fn dies(&self, domain: &Domain<'_>) -> Result<u64> {
        let pid = self.daemon()?;
        self.lab.node(NODE).script(&format!("kill -9 {pid}"))?;
        until("the next storage daemon", MINUTE, || {
            Ok(self.daemon().ok().filter(|next| *next != pid))
        })?;
        acked(domain)
    }

    /// The next machine reads all that the first one had synced.
    pub(crate) fn holds(&self, domain: &Domain<'_>, last: u64) -> Result<String> {
        let blocks = domain.run(&format!(
            "cat >/run/verify.sh <<'END'\n{VERIFY}\nEND\nsh /run/verify.sh {DEVICE} {RING} {last}"
        ))?;
        Ok(format!(
            "{blocks} synced blocks are there after the end of the storage daemon"
        ))
    }

    /// The process that serves the socket.
    fn daemon(&self) -> Result<i32> {
        // The card's own daemon: the volume's target is on the other node.
        let found = self.lab.node(NODE).script(&format!(
            "for pid in /proc/[0-9]*; do\ntr '\\0' ' ' <$pid/cmdline 2>/dev/null | grep -q '[q]emu-storage-daemon.*c-{}' && echo ${{pid#/proc/}}\ndone; true",
            self.uuid
        ))?;
        let pids: Vec<&str> = found.lines().collect();
        let [pid] = pids[..] else {
            anyhow::bail!("storage daemons of volume {}: {pids:?}", self.uuid);
        };
        Ok(pid.parse()?)
    }

    fn restart_engine(&self) -> Result<()> {
        let of = "app.kubernetes.io/name=outboard-engine";
        let here = format!("--field-selector=spec.nodeName={NODE}");
        let delete = [
            "delete",
            "pod",
            "-n",
            SYSTEM,
            "-l",
            of,
            &here,
            "--timeout=60s",
        ];
        self.lab.kubectl(&delete)?;
        until("the next outboard-engine", MINUTE, || {
            let wait = [
                "wait",
                "pod",
                "-n",
                SYSTEM,
                "-l",
                of,
                &here,
                "--for=condition=Ready",
                "--timeout=60s",
            ];
            self.lab.kubectl(&wait).map(Some)
        })
        .map(drop)
    }
}

/// The last block that the guest has synced.
fn acked(domain: &Domain<'_>) -> Result<u64> {
    let said = domain.run("set -e\ncat /tmp/errors >&2\n[ ! -s /tmp/errors ]\ncat /tmp/acked")?;
    said.parse()
        .with_context(|| format!("the writer says {said:?}"))
}

/// Waits until the guest has so many blocks more on its disk.
fn advance(domain: &Domain<'_>, blocks: u64) -> Result<()> {
    // The writer makes its files a moment after its start.
    let from = until("the writer's first block", MINUTE, || {
        acked(domain).map(Some)
    })?;
    until(&format!("{blocks} blocks of the guest"), MINUTE, || {
        Ok((acked(domain)? >= from + blocks).then_some(()))
    })
}

/// Claims and class of the examples are deleted; no volume is anywhere.
pub(crate) fn leaves_nothing(lab: &Lab) -> Result<()> {
    let claims = ["delete", "-n", "default", "pvc", "--all", "--timeout=60s"];
    lab.kubectl(&claims)?;
    lab.kubectl(&["delete", "storageclass", "outboard-vm"])?;
    volumes::wait_for_none(lab)
}
