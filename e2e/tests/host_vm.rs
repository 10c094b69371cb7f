//! Disks come into a host from outside, grow and go while the host writes: what a card has to know of a QEMU host.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::host_vm::{GuestTask, HostVm, HostVmSpec};
use e2e::{run, until};
use qemu::commands::{
    Address, BlockExportAdd, BlockResize, BlockdevAdd, BlockdevDel, ChardevAdd, ChardevRemove,
    ChardevSocket, DeviceAdd, DeviceDel, Driver, Export, NbdServerStart, Node, QueryPci,
};
use qemu::{Event, Qmp};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(30);

/// A monitor, for tests that block.
struct Monitor {
    runtime: Runtime,
    qmp: Qmp,
}

impl Monitor {
    fn connect(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let qmp = until("the monitor", LIMIT, || {
            Ok(Some(runtime.block_on(Qmp::connect(socket, soon()))?))
        })?;
        Ok(Self { runtime, qmp })
    }

    fn execute<C: qemu::Command + Sync>(&self, command: &C) -> Result<C::Reply, qemu::Error> {
        self.runtime.block_on(self.qmp.execute(command, soon()))
    }

    fn plug(
        &self,
        driver: &str,
        id: &str,
        bus: &str,
        properties: Value,
    ) -> Result<(), qemu::Error> {
        let properties: Map<String, Value> =
            serde_json::from_value(properties).expect("properties are an object");
        let (driver, id, bus) = (driver.into(), id.into(), Some(bus.into()));
        self.execute(&DeviceAdd {
            driver,
            id,
            bus,
            properties,
        })?;
        Ok(())
    }

    /// Unplugs a device; gives the events until it is gone.
    fn unplug(&self, id: &str) -> Result<Vec<Event>> {
        let mut events = self.qmp.events();
        self.execute(&DeviceDel { id: id.into() })?;
        let mut seen = Vec::new();
        self.runtime.block_on(async {
            while !seen
                .last()
                .is_some_and(|e: &Event| e.is("DEVICE_DELETED", "device", id))
            {
                seen.push(tokio::time::timeout_at(soon(), events.next()).await??);
            }
            anyhow::Ok(seen)
        })
    }
}

fn soon() -> Instant {
    Instant::now() + LIMIT
}

/// The card's side: a qemu-storage-daemon that serves the file `n` by NBD and `v` by vhost-user-blk.
struct Target {
    daemon: Child,
    monitor: Monitor,
}

impl Target {
    fn start(dir: &Path) -> Result<Self> {
        let socket = dir.join("target.sock");
        let chardev = format!("socket,id=m,path={},server=on,wait=off", socket.display());
        let daemon = Command::new("qemu-storage-daemon")
            .args(["--chardev", &chardev, "--monitor", "chardev=m"])
            .stdin(Stdio::null())
            .stderr(
                File::options()
                    .create(true)
                    .append(true)
                    .open(dir.join("target.log"))?,
            )
            .spawn()
            .context("qemu-storage-daemon (make setup installs it)")?;
        let target = Self {
            monitor: Monitor::connect(&socket)?,
            daemon,
        };
        let addr = Address::Unix {
            path: dir.join("nbd.sock"),
        };
        target.monitor.execute(&NbdServerStart {
            addr,
            tls_creds: None,
            tls_authz: None,
            max_connections: None,
        })?;
        target.serve(dir, "n", Export::Nbd { name: None })?;
        let addr = Address::Unix {
            path: dir.join("vhost.sock"),
        };
        let (logical_block_size, num_queues) = (None, None);
        target.serve(
            dir,
            "v",
            Export::VhostUserBlk {
                addr,
                logical_block_size,
                num_queues,
            },
        )?;
        Ok(target)
    }

    fn serve(&self, dir: &Path, name: &str, kind: Export) -> Result<()> {
        self.monitor
            .execute(&BlockdevAdd(Node::file(name, dir.join(name))))?;
        self.monitor.execute(&BlockExportAdd {
            id: name.into(),
            node_name: name.into(),
            kind,
            writable: Some(true),
            writethrough: None,
            iothread: None,
        })?;
        Ok(())
    }

    fn resize(&self, name: &str, size: u64) -> Result<()> {
        self.monitor.execute(&BlockResize {
            node_name: name.into(),
            size,
        })?;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

struct Scene {
    dir: tempfile::TempDir,
    vm: HostVm,
    card: Monitor,
}

impl Scene {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes 8 MiB of noise in the guest, reads them back there past its cache, and from the file under the disk.
    fn write_and_read_back(&self, disk: &str, file: &str) -> Result<()> {
        let sums = self.vm.run(&format!(
            "dd if=/dev/urandom of=/run/noise bs=1M count=8 2>/dev/null; sha256sum </run/noise
             dd if=/run/noise of=/dev/{disk} bs=1M conv=fsync 2>/dev/null || exit 1
             echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/{disk} bs=1M count=8 2>/dev/null | sha256sum"
        ))?;
        let mut bytes = vec![0; 8 << 20];
        File::open(self.path(file))?.read_exact(&mut bytes)?;
        std::fs::write(self.path("read"), bytes)?;
        let outside = run(&["sha256sum", &self.path("read").display().to_string()])?;
        let outside = outside.split(' ').next().unwrap_or_default();
        let inside: Vec<&str> = sums
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        ensure!(
            inside == [outside, outside],
            "{disk}: {inside:?} inside, {outside} outside"
        );
        Ok(())
    }

    /// A writer in the guest: a line per write, at its end why it ended.
    fn writer(&self, disk: &str) -> Result<GuestTask<'_>> {
        // Without the test for a block device dd would make a file in /dev once the disk has gone.
        let mut writer = self.vm.start(&format!(
            "dd if=/dev/urandom of=/run/w bs=64k count=1 2>/dev/null
             i=0; while [ -b /dev/{disk} ]; do
                 dd if=/run/w of=/dev/{disk} bs=64k seek=$((i % 500)) oflag=direct 2>/run/why || break
                 i=$((i + 1)); echo $i
             done; grep dd: /run/why"
        ))?;
        goes_on(&mut writer)?;
        Ok(writer)
    }

    /// Flushes that the guest has sent since it has the disk (Documentation/block/stat.rst: field 16).
    fn flushes(&self, disk: &str) -> Result<u64> {
        let script = format!("awk '{{ print $16 }}' /sys/block/{disk}/stat");
        Ok(self.vm.run(&script)?.parse()?)
    }

    fn sectors(&self, disk: &str) -> Result<u64> {
        Ok(self
            .vm
            .run(&format!("cat /sys/block/{disk}/size"))?
            .parse()?)
    }
}

fn image(path: &Path, size: u64) -> Result<()> {
    Ok(File::create(path)?.set_len(size)?)
}

/// Five more writes.
fn goes_on(writer: &mut GuestTask<'_>) -> Result<()> {
    for _ in 0..5 {
        let line = writer.line(LIMIT)?.context("the writer has ended")?;
        line.parse::<u32>()
            .with_context(|| format!("the writer says {line:?}"))?;
    }
    Ok(())
}

#[test]
fn disks_come_grow_and_go_while_the_host_writes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for name in ["f", "n", "v"] {
        image(&dir.path().join(name), 64 * MIB)?;
    }
    let mut spec = HostVmSpec::new(dir.path());
    spec.programs = vec!["/usr/sbin/mkfs.ext4".into(), "/usr/sbin/resize2fs".into()];
    let vm = HostVm::boot(spec)?;
    let card = Monitor::connect(&vm.card_monitor())?;
    let target = Target::start(dir.path())?;
    let scene = Scene { dir, vm, card };
    commands(&scene.vm).context("commands in the guest")?;
    nvme_over_a_file(&scene).context("NVMe over a file")?;
    let target = nvme_over_nbd(&scene, target).context("NVMe over NBD")?;
    vhost_user_blk(&scene, target).context("vhost-user-blk")
}

fn commands(vm: &HostVm) -> Result<()> {
    ensure!(vm.run("echo 'a  b'; printf '\\\\n c'")? == "a  b\n\\n c");
    let failed = vm.start("echo out; echo err >&2; exit 3")?.finish(LIMIT)?;
    ensure!(
        (failed.code, &*failed.out, &*failed.err) == (3, "out", "err"),
        "{failed:?}"
    );
    let error = vm.run("echo why >&2; false").map_err(|e| e.to_string());
    ensure!(error.is_err_and(|e| e.contains("exit code 1: why")));
    let mut endless = vm.start("yes | head -n 3; sleep 1000 & sleep 1000")?;
    ensure!(
        endless.line(LIMIT)?.as_deref() == Some("y"),
        "output comes while it runs"
    );
    endless.kill()?;
    ensure!(endless.finish(LIMIT)?.code == 137);
    ensure!(
        vm.run("ps | grep -c '[s]leep 1000' || true")? == "0",
        "children end with it"
    );
    Ok(())
}

/// A node of QEMU itself. It is told by its serial number alone, can't grow, and goes under a writer.
fn nvme_over_a_file(scene: &Scene) -> Result<()> {
    let Scene { vm, card, .. } = scene;
    card.execute(&BlockdevAdd(Node::file("f", scene.path("f"))))?;
    card.plug(
        "nvme",
        "f",
        "fn0",
        json!({"drive": "f", "serial": "NOT3QEE5VUI5DAFUADAE"}),
    )?;
    let disk = vm.disk_with_serial("NOT3QEE5VUI5DAFUADAE", LIMIT)?;
    ensure!(scene.sectors(&disk)? == 64 * MIB / 512);
    let identities = vm.run(&format!(
        "cd /sys/block/{disk}; ls | grep -E '^(nguid|uuid|eui)$'; true"
    ))?;
    ensure!(
        identities.is_empty(),
        "the guest knows more than the serial number: {identities}"
    );
    let address = vm.run("cat /sys/class/nvme/nvme*/address")?;
    ensure!(address == vm.address(0), "{address}");
    let buses = card.execute(&QueryPci {})?;
    let plugged = buses
        .iter()
        .find_map(|bus| bus.find("f"))
        .context("query-pci lists it")?;
    ensure!((plugged.bus, plugged.slot) == (1, 0), "{plugged:?}");
    scene.write_and_read_back(&disk, "f")?;

    let refused = card.execute(&BlockResize {
        node_name: "f".into(),
        size: 128 * MIB,
    });
    ensure!(
        refused.is_err_and(|e| e.says("unshared by block device 'f'")),
        "QEMU's NVMe grows now"
    );
    let writer = scene.writer(&disk)?;
    card.unplug("f")?;
    let last = writer.finish(LIMIT)?;
    ensure!(last.out.contains("Input/output error"), "{last:?}");
    card.execute(&BlockdevDel {
        node_name: "f".into(),
    })?;
    // Larger only as another device.
    File::options()
        .write(true)
        .open(scene.path("f"))?
        .set_len(128 * MIB)?;
    card.execute(&BlockdevAdd(Node::file("f", scene.path("f"))))?;
    card.plug(
        "nvme",
        "f",
        "fn0",
        json!({"drive": "f", "serial": "NOT3QEE5VUI5DAFUADAE"}),
    )?;
    let disk = vm.disk_with_serial("NOT3QEE5VUI5DAFUADAE", LIMIT)?;
    ensure!(scene.sectors(&disk)? == 128 * MIB / 512);
    card.unplug("f")?;
    card.execute(&BlockdevDel {
        node_name: "f".into(),
    })?;
    Ok(())
}

/// A node behind an NBD export: the death of the export's daemon is a pause.
fn nvme_over_nbd(scene: &Scene, target: Target) -> Result<Target> {
    let Scene { vm, card, .. } = scene;
    let driver = Driver::Nbd {
        server: Address::Unix {
            path: scene.path("nbd.sock"),
        },
        export: Some("n".into()),
        tls_creds: None,
        tls_hostname: None,
        reconnect_delay: Some(60),
        open_timeout: Some(2),
    };
    card.execute(&BlockdevAdd(Node::new("n", driver)))?;
    card.plug(
        "nvme",
        "n",
        "fn1",
        json!({"drive": "n", "serial": "over-nbd"}),
    )?;
    let disk = vm.disk_with_serial("over-nbd", LIMIT)?;
    scene.write_and_read_back(&disk, "n")?;
    let mut writer = scene.writer(&disk)?;
    drop(target);
    let target = Target::start(scene.dir.path())?;
    goes_on(&mut writer)?;
    let early = card.execute(&BlockdevDel {
        node_name: "n".into(),
    });
    ensure!(early.is_err_and(|e| e.says("in use")));
    card.unplug("n")?;
    let last = writer.finish(LIMIT)?;
    ensure!(last.out.contains("Input/output error"), "{last:?}");
    card.execute(&BlockdevDel {
        node_name: "n".into(),
    })?;
    Ok(target)
}

/// A daemon's export without QEMU's block layer between: grows under a writer, and its daemon's death is a pause.
fn vhost_user_blk(scene: &Scene, target: Target) -> Result<()> {
    let Scene { vm, card, .. } = scene;
    let chardev = || ChardevAdd {
        id: "v".into(),
        backend: ChardevSocket {
            path: scene.path("vhost.sock"),
            server: false,
            reconnect_ms: 100,
        },
    };
    card.execute(&chardev())?;
    // By default a queue per CPU, and the export has one.
    let refused = card.plug("vhost-user-blk-pci", "v", "fn2", json!({"chardev": "v"}));
    ensure!(
        refused.is_err_and(|e| e.says("maximum number of queues supported by the backend is 1"))
    );

    // By default, too, the guest believes that there is no cache to flush.
    let unsafe_one = json!({"chardev": "v", "num-queues": 1});
    card.plug("vhost-user-blk-pci", "v", "fn2", unsafe_one)?;
    let disk = vm.virtio_disk(2, LIMIT)?;
    scene.write_and_read_back(&disk, "v")?;
    ensure!(
        scene.flushes(&disk)? == 0,
        "the guest flushes without config-wce=false now"
    );
    card.unplug("v")?;

    let safe = json!({"chardev": "v", "num-queues": 1, "config-wce": false});
    card.plug("vhost-user-blk-pci", "v", "fn2", safe)?;
    let disk = vm.virtio_disk(2, LIMIT)?;
    ensure!(
        vm.disk_with_serial("vhost_user_blk", LIMIT)? == disk,
        "its serial number is everybody's"
    );
    scene.write_and_read_back(&disk, "v")?;
    ensure!(
        scene.flushes(&disk)? > 0,
        "an fsync in the guest is a flush of the disk"
    );

    let mut writer = scene.writer(&disk)?;
    target.resize("v", 128 * MIB)?;
    until("the guest to see the new size", LIMIT, || {
        Ok((scene.sectors(&disk)? == 128 * MIB / 512).then_some(()))
    })?;
    goes_on(&mut writer)?;
    drop(target);
    let target = Target::start(scene.dir.path())?;
    goes_on(&mut writer)?;
    writer.kill()?;
    writer.finish(LIMIT)?;

    vm.run(&format!(
        "mkfs.ext4 -q -F /dev/{disk} && mount -t ext4 /dev/{disk} /mnt"
    ))?;
    let blocks = |vm: &HostVm| -> Result<u64> { Ok(vm.run("stat -f -c %b /mnt")?.parse()?) };
    let small = blocks(vm)?;
    let mut writer = vm.start(
        "i=0; while :; do i=$((i + 1)); echo $i >/mnt/a || exit 1; sync /mnt/a; echo $i; done",
    )?;
    goes_on(&mut writer)?;
    target.resize("v", 256 * MIB)?;
    until("the guest to see the new size", LIMIT, || {
        Ok((scene.sectors(&disk)? == 256 * MIB / 512).then_some(()))
    })?;
    vm.run(&format!("resize2fs /dev/{disk}"))?;
    ensure!(
        blocks(vm)? > small + small / 2,
        "the mounted file system has grown"
    );
    goes_on(&mut writer)?;

    // A mounted disk, too, goes at once. One event is for a part of the device.
    let events = card.unplug("v")?;
    let deleted = events
        .iter()
        .filter(|event| event.name == "DEVICE_DELETED")
        .count();
    ensure!(deleted == 2, "{events:?}");
    let last = writer.finish(LIMIT)?;
    ensure!(last.code == 1 && last.err.contains("rror"), "{last:?}");
    vm.run("umount /mnt")?;
    card.execute(&ChardevRemove { id: "v".into() })?;
    Ok(())
}

#[test]
fn a_machine_that_does_not_start_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spec = HostVmSpec::new(dir.path());
    spec.arguments = ["-device", "flux-capacitor"].map(str::to_owned).into();
    let error = HostVm::boot(spec).expect_err("there is no such device");
    let text = format!("{error:#}");
    assert!(
        text.contains("the host VM does not boot: QEMU ended"),
        "{text}"
    );
    assert!(
        text.contains("'flux-capacitor' is not a valid device"),
        "{text}"
    );
}
