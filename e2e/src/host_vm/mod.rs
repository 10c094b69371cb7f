//! A host whose NICs and disks come from outside: a QEMU machine under TCG with Debian's kernel and busybox.
//!
//! It is a q35 with shared memory (vhost-user works) and PCIe root ports `fn0`, `fn1`, …: the functions of its card. What
//! is plugged into function *n* is at PCI address `0000:<n + 1 in hex>:00.0` in the guest. It has two QMP monitors, as a
//! monitor serves one client at a time: one for the card, one for the test. Scripts run in the guest through a virtio
//! port; the guest powers itself off when the test's end of that port is gone, even if the test was killed.
//! A program of the guest's that busybox has, too, is called by its path (`/bin/ip`): its shell takes its own first.
//!
//! What surprises (QEMU 10.0, each pinned by `tests/host_vm.rs`): QEMU's NVMe disk has no identity but its serial number
//! (Linux ignores its namespace identifiers) and can't grow; a vhost-user-blk one grows, has no serial of its own, and
//! flushes only with `config-wce: false`. The guest can't refuse an unplug: writers get EIO.

mod cpio;
pub(crate) mod guest;
pub(crate) mod initramfs;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use guest::Channel;
pub use guest::{GuestOutput, GuestTask};
use initramfs::Kernel;

use crate::wait;

/// 5 s of the guest's time; much more where others compile.
const BOOT: Duration = Duration::from_secs(90);
/// For one script of [`HostVm::run`].
const SCRIPT: Duration = Duration::from_secs(60);
/// Of each log at the end of an error.
const LINES: usize = 25;

/// What a host VM is made of.
#[derive(Debug, Clone)]
pub struct HostVmSpec {
    /// An existing directory for monitors and logs; its path must be short (a socket's path has at most 107 bytes).
    pub dir: PathBuf,
    /// Root ports for hot-plug: at most 16.
    pub functions: usize,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory: u32,
    /// Programs of this machine that the guest shall have, too, at the same paths.
    pub programs: Vec<PathBuf>,
    /// Further modules that the kernel shall load, after those for its disks and with what they depend on.
    pub modules: Vec<String>,
    /// Further words of the kernel's command line.
    pub kernel: Vec<String>,
    /// Arguments of QEMU before all devices: an IOMMU is one.
    pub first: Vec<String>,
    /// Further arguments of QEMU.
    pub arguments: Vec<String>,
}

impl HostVmSpec {
    /// Four functions, two CPUs, half a GiB.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            functions: 4,
            cpus: 2,
            memory: 512,
            programs: Vec::new(),
            modules: Vec::new(),
            kernel: Vec::new(),
            first: Vec::new(),
            arguments: Vec::new(),
        }
    }
}

/// A host VM that runs. Its end is that of this value.
#[derive(Debug)]
pub struct HostVm {
    spec: HostVmSpec,
    qemu: Child,
    channel: Channel,
}

impl HostVm {
    /// Starts the machine and waits until it takes scripts.
    ///
    /// # Errors
    /// The kernel was not fetched, QEMU ends, or the guest is not ready in time: the message ends with their logs.
    pub fn boot(spec: HostVmSpec) -> Result<Self> {
        if spec.functions > 16 {
            bail!("{} functions: q35's bus has room for 16", spec.functions);
        }
        let kernel = Kernel::find()?;
        let initramfs = spec.dir.join("initramfs");
        fs::write(&initramfs, kernel.initramfs(&spec.programs, &spec.modules)?)
            .with_context(|| format!("cannot write {}", initramfs.display()))?;
        let log = File::create(spec.dir.join("qemu.log"))
            .with_context(|| format!("cannot write into {}", spec.dir.display()))?;
        let (ours, theirs) = UnixStream::pair().context("a channel into the guest")?;
        let qemu = Command::new("qemu-system-x86_64")
            .args(arguments(&spec, &kernel, &initramfs))
            // It ends with QEMU, so the end of QEMU is an event on it.
            .stdin(OwnedFd::from(theirs))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start qemu-system-x86_64 (make setup installs it)")?;
        let (channel, ready) = Channel::open(ours)?;
        let mut vm = Self {
            spec,
            qemu,
            channel,
        };
        match ready.recv_timeout(BOOT) {
            Ok(()) => Ok(vm),
            Err(RecvTimeoutError::Timeout) => {
                Err(anyhow!("not ready after {BOOT:?}{}", vm.evidence()))
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = vm.qemu.wait().context("QEMU was lost")?;
                Err(anyhow!("QEMU ended: {status}{}", vm.evidence()))
            }
        }
        .context("the host VM does not boot")
    }

    /// QMP monitor for the card.
    pub fn card_monitor(&self) -> PathBuf {
        self.spec.dir.join("card.sock")
    }

    /// QMP monitor for the test.
    pub fn lab_monitor(&self) -> PathBuf {
        self.spec.dir.join("lab.sock")
    }

    /// The root ports' ids by number of function.
    pub fn functions(&self) -> Vec<String> {
        (0..self.spec.functions).map(function).collect()
    }

    /// The PCI address in the guest of what is plugged into a function.
    pub fn address(&self, function: usize) -> String {
        format!("0000:{:02x}:00.0", function + 1)
    }

    /// QEMU's process.
    pub fn pid(&self) -> u32 {
        self.qemu.id()
    }

    /// Runs a script in the guest's shell and returns what it printed, without the last line feed. Lines beyond 4,000
    /// bytes may be mixed with those of other scripts.
    ///
    /// # Errors
    /// It exits with anything but 0, or does not end within a minute, or the machine ends.
    pub fn run(&self, script: &str) -> Result<String> {
        let output = self
            .start(script)?
            .finish(SCRIPT)
            .with_context(|| self.evidence())?;
        if output.code != 0 {
            bail!(
                "in the host VM `{script}`: exit code {}: {}",
                output.code,
                [output.err, output.out].concat()
            );
        }
        Ok(output.out)
    }

    /// Starts a script whose output is read while it runs.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn start(&self, script: &str) -> Result<GuestTask<'_>> {
        self.channel.start(script).with_context(|| self.evidence())
    }

    /// Waits for the NVMe or virtio disk with this serial number; gives its name, such as `nvme0n1`.
    ///
    /// # Errors
    /// There is none within `limit`.
    pub fn disk_with_serial(&self, serial: &str, limit: Duration) -> Result<String> {
        // An NVMe disk's device is its subsystem, or its controller: both have the serial number.
        // NVMe's is filled up with spaces to 20 characters; `read` takes them off.
        let script = format!(
            "cd /sys/block; for disk in *; do
                 [ -b /dev/$disk ] || continue
                 for file in $disk/serial $disk/device/serial; do
                     said=; [ ! -e $file ] || read -r said <$file
                     [ \"$said\" != '{serial}' ] || echo $disk
                 done
             done"
        );
        self.disk(
            &format!("a disk with serial number {serial}"),
            &script,
            limit,
        )
    }

    /// Waits for the virtio disk in a function; gives its name, such as `vda`.
    ///
    /// # Errors
    /// There is none within `limit`.
    pub fn virtio_disk(&self, function: usize, limit: Duration) -> Result<String> {
        let address = self.address(function);
        let script = format!(
            "cd /sys/bus/pci/devices/{address}/virtio*/block 2>/dev/null || exit 0
             for disk in *; do [ -b /dev/$disk ] && echo $disk; done; true"
        );
        self.disk(&format!("a virtio disk at {address}"), &script, limit)
    }

    fn disk(&self, what: &str, script: &str, limit: Duration) -> Result<String> {
        wait::until(&format!("{what} in the host VM"), limit, || {
            Ok(self.run(script)?.lines().next().map(str::to_owned))
        })
    }

    /// The ends of QEMU's log and of the guest's console.
    fn evidence(&self) -> String {
        let mut text = String::new();
        for name in ["qemu.log", "serial.log"] {
            let said = fs::read(self.spec.dir.join(name)).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            let lines: Vec<&str> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES)..];
            text += &format!("\n--- {name}\n{}", last.join("\n"));
        }
        text
    }
}

impl Drop for HostVm {
    fn drop(&mut self) {
        // Nothing of the guest is to be kept.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn function(number: usize) -> String {
    format!("fn{number}")
}

fn arguments(spec: &HostVmSpec, kernel: &Kernel, initramfs: &Path) -> Vec<String> {
    let path = |name: &str| spec.dir.join(name).display().to_string();
    let monitor = |name: &str| format!("unix:{},server=on,wait=off", path(name));
    let memory = format!("{}M", spec.memory);
    // On a machine that is busy the kernel takes QEMU's timer for a broken one.
    let mut words = vec!["console=ttyS0 quiet panic=-1 mitigations=off no_timer_check"];
    words.extend(spec.kernel.iter().map(String::as_str));
    let mut arguments: Vec<String> = [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-machine",
        "q35,accel=tcg,memory-backend=memory",
        "-cpu",
        "max",
        "-smp",
        &spec.cpus.to_string(),
        "-m",
        &memory,
        "-object",
        &format!("memory-backend-memfd,id=memory,size={memory},share=on"),
        "-serial",
        &format!("file:{}", path("serial.log")),
        "-kernel",
        &kernel.image().display().to_string(),
        "-initrd",
        &initramfs.display().to_string(),
        "-append",
        &words.join(" "),
        "-qmp",
        &monitor("card.sock"),
        "-qmp",
        &monitor("lab.sock"),
    ]
    .map(str::to_owned)
    .into();
    arguments.extend(spec.first.iter().cloned());
    // First on the bus: what is behind them gets the bus numbers from 1 on.
    for number in 0..spec.functions {
        let port = function(number);
        let chassis = number + 1;
        arguments.push("-device".into());
        arguments.push(format!("pcie-root-port,id={port},chassis={chassis}"));
    }
    let channel = [
        "-device",
        "virtio-serial-pci",
        "-chardev",
        "socket,id=guest,fd=0",
        "-device",
        "virtserialport,chardev=guest,name=outboard.guest",
    ];
    arguments.extend(channel.map(str::to_owned));
    arguments.extend(spec.arguments.iter().cloned());
    arguments
}
