//! A domain goes to another node's libvirt while its guest runs, as virt-launchers do it: peer to peer, over unix sockets.

use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Domain, Libvirt, QEMU_USER, SOCKET};
use crate::host_vm::guest::Channel;
use crate::wait;

/// MiB/s, until the target's end of the channel is held: a guest's memory has many times more.
const SLOW: &str = "1";
const FAST: &str = "10000";
/// Seconds that virsh is given; much more than it needs.
const LIMIT: &str = "120";
const APPEARS: Duration = Duration::from_secs(60);

/// A migration under way. It does not come to its end before [`Self::finish`].
pub struct Migration<'d, 't> {
    from: &'d Domain<'d>,
    to: Domain<'t>,
    virsh: Child,
}

impl Domain<'_> {
    /// Begins to send the domain to another node, which has the files of its [`super::Boot`]; returns when the machine is there and takes
    /// memory.
    ///
    /// # Errors
    /// One of the two libvirts refuses: the message is its own.
    pub fn migrate<'d, 't>(&'d self, to: &'t Libvirt<'t>) -> Result<Migration<'d, 't>> {
        let (here, there) = (self.libvirt.node, to.node);
        // The nodes' /run are their own; a lab's state is in the same place on all of them.
        let meeting = format!("{}/migration", there.dir().display());
        there.script(&format!(
            "mkdir -p {meeting} && chown {QEMU_USER}:{QEMU_USER} {meeting}"
        ))?;
        let other = format!(
            "qemu+unix:///system?socket={}",
            there.path(SOCKET).display()
        );
        let by = format!("unix://{meeting}/memory.sock");
        let what = ["migrate", "--live", "--p2p", "--bandwidth", SLOW];
        let mut virsh = here
            .command("timeout")
            .args([LIMIT, "virsh", "-c", "qemu:///system", "--quiet"])
            .args(what)
            .args([&self.name, &other, &by])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("virsh cannot be started")?;
        let channel = wait::until("the machine at the target", APPEARS, || {
            if virsh.try_wait()?.is_some() {
                return Ok(Some(None));
            }
            // Before the guest's devices arrive, or it would see nobody at the other end.
            let stream = UnixStream::connect(there.path(&self.port))?;
            Ok(Some(Some(Channel::open(stream)?.0)))
        })?;
        let Some(channel) = channel else {
            bail!("the migration ended at once: {}", said(virsh)?.1);
        };
        wait::until_true("the first of the guest's memory", APPEARS, || {
            // Ended: `finish` says why. Another speed before this one's use would be forgotten.
            Ok(virsh.try_wait()?.is_some()
                || self
                    .libvirt
                    .virsh(&["domjobinfo", &self.name])?
                    .contains("Memory processed"))
        })?;
        Ok(Migration {
            from: self,
            to: Domain {
                libvirt: to,
                name: self.name.clone(),
                port: self.port.clone(),
                console: self.console.clone(),
                channel: Some(channel),
            },
            virsh,
        })
    }
}

impl<'t> Migration<'_, 't> {
    /// Lets it go as fast as it can; returns when the guest runs at the target, and nothing of the domain is at the source.
    ///
    /// # Errors
    /// It fails: the message is libvirt's.
    pub fn finish(self) -> Result<Domain<'t>> {
        let name = self.from.name.as_str();
        self.from.libvirt.virsh(&["migrate-setspeed", name, FAST])?;
        let (success, text) = said(self.virsh)?;
        ensure!(
            success,
            "the migration failed: {text}{}",
            self.to.evidence()
        );
        self.from.gone()?;
        Ok(self.to)
    }

    /// Ends it; the guest goes on where it was, and nothing of the domain is at the target.
    ///
    /// # Errors
    /// It was over already, or libvirt keeps something.
    pub fn abort(self) -> Result<()> {
        let name = self.from.name.as_str();
        self.from.libvirt.virsh(&["domjobabort", name])?;
        let (success, text) = said(self.virsh)?;
        ensure!(!success, "the migration was over already: {text}");
        self.to.gone()?;
        let state = self.from.libvirt.virsh(&["domstate", name])?;
        ensure!(state.trim() == "running", "the domain is {state}");
        Ok(())
    }
}

fn said(virsh: Child) -> Result<(bool, String)> {
    let output = virsh.wait_with_output().context("virsh")?;
    let text = [output.stdout, output.stderr].concat();
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}
