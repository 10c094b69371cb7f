//! The four programs in a directory of their own, and certificates.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use proto::attacher::v1::AttachmentId;
use proto::node::v1::host_agent_client::HostAgentClient;
use proto::node::v1::host_volumes_client::HostVolumesClient;
use proto::node::v1::{AttachRequest, HealthRequest, Volume};
use proto::volume::v1::file_source::Format;
use proto::volume::v1::{FileSource, Source, source};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const UUID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd43001";

pub(crate) struct World {
    pub(crate) home: TempDir,
    port: u16,
    issuer: Issuer<'static, KeyPair>,
    ca: String,
    children: Vec<(&'static str, Child)>,
}

impl World {
    /// n1 is served.
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// n1 is a QEMU machine with two functions, and firmware alone.
    pub(crate) async fn with_machine() -> Self {
        Self::with(&["machine"]).await
    }

    async fn with(before: &[&'static str]) -> Self {
        let home = tempfile::Builder::new()
            .prefix("odpu")
            .tempdir_in("/tmp")
            .unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut world = World {
            port: free.local_addr().unwrap().port(),
            issuer: Issuer::new(params, key),
            ca,
            home,
            children: Vec::new(),
        };
        drop(free);
        let tls = world.path("tls");
        std::fs::create_dir(&tls).unwrap();
        let (certificate, key) = world.certificate("dpu-of-n1", "127.0.0.1");
        std::fs::write(tls.join("ca-cert.pem"), &world.ca).unwrap();
        std::fs::write(tls.join("server-cert.pem"), certificate).unwrap();
        std::fs::write(tls.join("server-key.pem"), key).unwrap();
        std::fs::create_dir(world.path("exports")).unwrap();
        for program in before {
            world.machine(program);
            let monitor = async |world: &World| world.path("vm.sock").exists();
            world.until("the machine runs", monitor).await;
        }
        for program in [
            "outboard-engine",
            "opi-bridge",
            "volume-attacher",
            "csi-node-dpu",
        ] {
            world.start(program);
        }
        world
            .until("the chain answers", async |world| {
                let capacity = proto::node::v1::CapacityRequest {
                    host: "n1".to_owned(),
                };
                world.controller().await.capacity(capacity).await.is_ok()
            })
            .await;
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn start(&mut self, program: &'static str) {
        let path = Path::new(env!("CARGO_BIN_EXE_csi-node-dpu")).with_file_name(program);
        assert!(
            path.exists(),
            "{}: run `cargo build --all-features -p engine -p bridge -p attacher` first",
            path.display()
        );
        let at = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let listen = format!("127.0.0.1:{}", self.port);
        let (exports, dpu) = (at("exports"), at("d/controller.sock"));
        let host = at("d/host.sock");
        let (engine, bridge, attacher) = (at("e/e.sock"), at("b/b.sock"), at("a/a.sock"));
        let (engine_state, bridge_state, attacher_state) = (at("es"), at("bs"), at("as"));
        let (credentials, tls) = (at("credentials"), at("tls"));
        let flags: Vec<&str> = match program {
            "outboard-engine" => vec![
                "run",
                "--cgroup",
                "",
                "--state",
                &engine_state,
                "--socket",
                &engine,
            ],
            "opi-bridge" => vec![
                "linux",
                "--node-name",
                "n1",
                "--engine",
                &engine,
                "--state",
                &bridge_state,
                "--socket",
                &bridge,
                "--exports-dir",
                &exports,
                "--credentials-dir",
                &credentials,
                "--aio",
                "threads",
            ],
            "volume-attacher" => vec![
                "run",
                "--host",
                "n1",
                "--bridge",
                &bridge,
                "--state",
                &attacher_state,
                "--socket",
                &attacher,
            ],
            _ => vec![
                "run",
                "--serves-node",
                "n1",
                "--attacher",
                &attacher,
                "--controller-socket",
                &dpu,
                "--host-socket",
                &host,
                "--listen",
                &listen,
                "--tls",
                &tls,
            ],
        };
        let monitor = at("vm.sock");
        let machine: &[&str] = if program == "opi-bridge" && Path::new(&monitor).exists() {
            &["--vm-monitor", &monitor, "--vm-ports", "rp0,rp1"]
        } else {
            &[]
        };
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.path("log"))
            .unwrap();
        let child = Command::new(path)
            .args(flags)
            .args(machine)
            .args(["--admin-address", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children.push((program, child));
    }

    fn machine(&mut self, name: &'static str) {
        let memory = "memory-backend-memfd,id=m,size=64M,share=on";
        let monitor = format!("unix:{},server=on,wait=off", self.path("vm.sock").display());
        let mut command = Command::new("qemu-system-x86_64");
        command.args(
            "-machine q35,accel=tcg -nodefaults -display none -m 64 -numa node,memdev=m".split(' '),
        );
        command.args(["-object", memory, "-qmp", &monitor]);
        for n in 0..2 {
            command.args([
                "-device",
                &format!("pcie-root-port,id=rp{n},chassis={n},slot={n}"),
            ]);
        }
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.expect("qemu-system-x86 is missing: run `make setup`");
        self.children.push((name, child));
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, program: &str) {
        let at = self
            .children
            .iter()
            .position(|(name, _)| *name == program)
            .unwrap();
        let (_, mut child) = self.children.remove(at);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn certificate(&self, name: &str, address: &str) -> (String, String) {
        let mut params = CertificateParams::new([address.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Over mTLS, as `name`.
    pub(crate) fn channel(&self, name: &str) -> Channel {
        let (certificate, key) = self.certificate(name, "127.0.0.1");
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca))
            .identity(Identity::from_pem(certificate, key));
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{}", self.port)).unwrap();
        endpoint.tls_config(tls).unwrap().connect_lazy()
    }

    pub(crate) async fn controller(&self) -> HostVolumesClient<Channel> {
        HostVolumesClient::new(self.channel("system:csi-controller"))
    }

    /// As csi-node-host of the same machine.
    pub(crate) fn host(&self) -> HostAgentClient<Channel> {
        HostAgentClient::new(proto::uds::channel(self.path("d/host.sock")))
    }

    /// Asks until it holds, for twenty seconds.
    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn(&World) -> bool) {
        for _ in 0..400 {
            if holds(self).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        panic!("not in twenty seconds: {what}\n{log}");
    }

    pub(crate) async fn health(&self) -> Result<Volume, Status> {
        let mut tries = 0;
        loop {
            let request = HealthRequest { id: id("n1") };
            match self.controller().await.health(request).await {
                Err(status) if status.code() == Code::Unavailable && tries < 50 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                health => return Ok(health?.into_inner().volume.unwrap()),
            }
        }
    }

    /// An image, and what attaches it.
    pub(crate) fn volume(&self) -> AttachRequest {
        let path = self.path("image");
        std::fs::File::create(&path)
            .unwrap()
            .set_len(4 * MIB)
            .unwrap();
        let file = FileSource {
            path: path.to_str().unwrap().to_owned(),
            format: Format::Raw.into(),
        };
        AttachRequest {
            id: id("n1"),
            volume_id: "v1.local.x".to_owned(),
            source: Some(Source {
                kind: Some(source::Kind::File(file)),
            }),
            size_bytes: 4 * MIB,
            ..AttachRequest::default()
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The engine's daemons outlive it: they are found by their lock files' directory in their command line.
        for (_, child) in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.daemons() {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        let loops = Command::new("losetup")
            .arg("--list")
            .arg("--noheadings")
            .args(["-O", "NAME,BACK-FILE"])
            .output();
        let home = self.home.path().to_str().unwrap().to_owned();
        for line in String::from_utf8_lossy(&loops.unwrap().stdout)
            .lines()
            .filter(|l| l.contains(&home))
        {
            let name = line.split_whitespace().next().unwrap();
            let _ = Command::new("losetup").args(["--detach", name]).status();
        }
        for entry in std::fs::read_dir(self.path("exports"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = nix::mount::umount2(&entry.path(), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

impl World {
    /// Processes of qemu-storage-daemon that belong to this test.
    pub(crate) fn daemons(&self) -> Vec<i32> {
        let home = self.home.path().to_str().unwrap().to_owned();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            (line.contains("qemu-storage-daemon") && line.contains(&home)).then_some(pid)
        })
        .collect()
    }
}

pub(crate) fn id(host: &str) -> Option<AttachmentId> {
    Some(AttachmentId {
        host: host.to_owned(),
        volume_uuid: UUID.to_owned(),
    })
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, says: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(says), "{status}");
}
