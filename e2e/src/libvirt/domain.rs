//! A domain that runs, and scripts in its guest.

use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::Libvirt;
use crate::host_vm::guest::Channel;
use crate::wait;

/// Of the guest; much more than it needs, for machines where others compile.
const BOOT: Duration = Duration::from_secs(240);
/// For one script.
const SCRIPT: Duration = Duration::from_secs(60);
/// Of the console's log at the end of an error.
const LINES: usize = 25;

/// A running domain, made from [`super::Boot`]'s files. Dropping it destroys it.
pub struct Domain<'l> {
    pub(super) libvirt: &'l Libvirt<'l>,
    pub(super) name: String,
    pub(super) port: String,
    pub(super) console: String,
    pub(super) channel: Option<Channel>,
}

impl<'l> Domain<'l> {
    /// Creates the domain `name` from its XML and waits until its guest takes scripts, over the virtio port whose socket on the
    /// node is `port`. `console` is the node's file that its serial console writes.
    ///
    /// # Errors
    /// libvirt refuses it, or the guest is not ready in time: the message ends with its console's last lines.
    pub fn create(
        libvirt: &'l Libvirt<'l>,
        name: &str,
        xml: &str,
        port: &str,
        console: &str,
    ) -> Result<Self> {
        let file = format!("/run/{name}.xml");
        libvirt.node.write(&file, xml)?;
        let mut domain = Self {
            libvirt,
            name: name.into(),
            port: port.into(),
            console: console.into(),
            channel: None,
        };
        // What a guest writes into a port to which nobody is connected is lost.
        libvirt.virsh(&["create", "--paused", &file])?;
        let stream = UnixStream::connect(libvirt.node.path(port))
            .with_context(|| format!("cannot connect to {port}, a port of domain {name}"))?;
        let (channel, ready) = Channel::open(stream)?;
        domain.channel = Some(channel);
        libvirt.virsh(&["resume", name])?;
        match ready.recv_timeout(BOOT) {
            Ok(()) => Ok(domain),
            Err(RecvTimeoutError::Timeout) => Err(anyhow!(
                "domain {name} is not ready after {BOOT:?}{}",
                domain.evidence()
            )),
            Err(RecvTimeoutError::Disconnected) => {
                Err(anyhow!("domain {name} ended{}", domain.evidence()))
            }
        }
    }

    /// Runs a script in the guest's shell and returns what it printed, without the last line feed.
    ///
    /// # Errors
    /// It exits with anything but 0, or does not end within a minute, or the domain ends.
    pub fn run(&self, script: &str) -> Result<String> {
        let channel = self.channel.as_ref().context("a domain has a channel")?;
        let output = channel
            .start(script)
            .and_then(|task| task.finish(SCRIPT))
            .with_context(|| self.evidence())?;
        if output.code != 0 {
            bail!(
                "in domain {} `{script}`: exit code {}: {}",
                self.name,
                output.code,
                [output.err, output.out].concat()
            );
        }
        Ok(output.out)
    }

    /// Ends it at once and waits until libvirt has forgotten it, as virt-launcher does at the end of a VM's grace period.
    ///
    /// # Errors
    /// libvirt does not answer, or keeps it.
    pub fn destroy(&self) -> Result<()> {
        self.libvirt.virsh(&["destroy", &self.name])?;
        self.gone()
    }

    /// Waits until libvirt has forgotten it.
    pub(super) fn gone(&self) -> Result<()> {
        wait::until_true(
            &format!("the end of domain {}", self.name),
            Duration::from_secs(20),
            || {
                let names = self.libvirt.virsh(&["list", "--all", "--name"])?;
                Ok(!names.lines().any(|line| line.trim() == self.name))
            },
        )
    }

    pub(super) fn evidence(&self) -> String {
        let said = fs::read(self.libvirt.node.path(&self.console)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        let last = &lines[lines.len().saturating_sub(LINES)..];
        format!("\n--- {}\n{}", self.console, last.join("\n"))
    }
}

impl Drop for Domain<'_> {
    fn drop(&mut self) {
        // It may never have been made, or be gone.
        let _ = self.libvirt.virsh(&["destroy", &self.name]);
    }
}
