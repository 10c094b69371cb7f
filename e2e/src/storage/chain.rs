//! The chain: starts, kills and ends its programs.

mod look;

use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::csi::v1::ProbeRequest;
use proto::node::v1::CapacityRequest;
use proto::node::v1::host_volumes_client::HostVolumesClient;
use tempfile::TempDir;
use tonic::transport::Channel;

use super::calls::{Calls, Node};
use super::configuration::{self, Tls};
use super::daemons;
use super::host::Host;
use super::loops::Loops;
use super::place::Place;
use super::program::Program;
use super::runtime::Runtime;
use crate::{images, wait};

/// Until a program serves.
const START: Duration = Duration::from_secs(30);
/// Until a program that shall end by itself has ended.
const END: Duration = Duration::from_secs(60);
/// Everything that is ours, so that the search of the logs for secrets is worth something.
const LOG: &str = "debug,h2=info,hyper=info,hyper_util=info,tower=info,tonic=info";

/// What a chain is made of.
#[derive(Debug, Clone)]
pub struct ChainConfig {
    /// Names of the hosts. The first one is the target's: volumes that it uses go without NBD, unless they are shared.
    pub hosts: Vec<&'static str>,
    /// Volumes go to the other hosts over TCP on loopback with TLS, csi-controller calls csi-node-dpu over mTLS; else all
    /// over unix sockets.
    pub tls: bool,
    /// Variables of every program, such as `OUTBOARD_LOG` (debug, unless given).
    pub env: Vec<(String, String)>,
    /// Where images and catalogue of the back end lie, at most 60 bytes long; `None`: in the chain's directory.
    pub backend_dir: Option<PathBuf>,
}

impl Default for ChainConfig {
    /// One host, `n1`, over unix sockets.
    fn default() -> Self {
        Self {
            hosts: vec!["n1"],
            tls: false,
            env: Vec::new(),
            backend_dir: None,
        }
    }
}

/// A running chain. Its end ends every process that it started, the volumes' daemons too, and frees their loop devices.
#[derive(Debug)]
pub struct Chain {
    hosts: Vec<Host>,
    tls: Option<Tls>,
    env: Vec<(String, String)>,
    runtime: Runtime,
    calls: Calls,
    dpus: Vec<HostVolumesClient<Channel>>,
    loops: Loops,
    place: Place,
    home: TempDir,
}

impl Chain {
    /// Starts everything, and returns when each host's chain answers from end to end.
    ///
    /// # Errors
    /// A program was not built, or does not serve in time: the message has the end of its log.
    pub fn start(config: ChainConfig) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("ost").tempdir_in("/tmp")?;
        let volumes = config.backend_dir.unwrap_or_else(|| home.path().join("v"));
        let place = Place {
            dir: home.path().to_owned(),
            volumes,
        };
        for dir in [place.logs(), home.path().join("c"), place.volumes.clone()] {
            std::fs::create_dir_all(&dir)?;
        }
        ensure!(!config.hosts.is_empty(), "a chain has at least one host");
        let hosts = config.hosts.iter();
        let hosts: Vec<Host> = hosts
            .map(|name| Host::new(&place, name, config.tls))
            .collect::<Result<_>>()?;
        let tls = config.tls.then(|| Tls::new(&place, &hosts)).transpose()?;
        let runtime = Runtime::new()?;
        let node = |host: &Host| Node {
            name: host.name,
            channel: proto::uds::channel(host.place.csi_socket()),
            kubelet: host.place.kubelet(),
            root: host.namespace.seen(Path::new("/")),
        };
        let calls = runtime.make(|| {
            let controller = proto::uds::channel(place.csi_socket());
            Calls::new(controller, hosts.iter().map(node).collect())
        });
        let dpu = |host: &Host| proto::uds::channel(host.place.dpu_controller_socket());
        let dpus = runtime.make(|| hosts.iter().map(dpu).map(HostVolumesClient::new).collect());
        let bin = images::tool("qemu-storage-daemon")?;
        let bin = Path::new(&bin).parent().unwrap_or(Path::new("/")).display();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut env = vec![
            ("PATH".to_owned(), format!("{bin}:{path}")),
            ("OUTBOARD_LOG".to_owned(), LOG.to_owned()),
            (
                "OUTBOARD_ADMIN_ADDRESS".to_owned(),
                "127.0.0.1:0".to_owned(),
            ),
        ];
        env.extend(config.env);
        let mut chain = Self {
            hosts,
            tls,
            env,
            runtime,
            calls,
            dpus,
            loops: Loops::below(home.path()),
            place,
            home,
        };
        configuration::write_backends(&chain.place, &chain.hosts[0], chain.tls.as_ref())?;
        configuration::write_nodes(&chain.place, &chain.hosts)?;
        for host in 0..chain.hosts.len() {
            for program in Program::OF_HOST {
                chain.spawn(host, program, &[])?;
            }
        }
        chain.spawn(0, Program::Controller, &[])?;
        for host in 0..chain.hosts.len() {
            chain.answers(host)?;
        }
        Ok(chain)
    }

    /// Starts a program (again), with further variables for it alone, such as `OUTBOARD_KILL_AT`. Returns when it serves, or
    /// when it died at the step that `OUTBOARD_KILL_AT` names.
    ///
    /// # Errors
    /// It runs already, was not built, ended otherwise, or does not serve in time.
    pub fn spawn(&mut self, host: usize, program: Program, env: &[(&str, &str)]) -> Result<()> {
        let index = of(host, program);
        ensure!(
            !self.is_up(host, program),
            "{} runs already: kill it first",
            program.name()
        );
        self.kill(host, program)?;
        let path = images::program(program.name()).context(
            "build the chain: cargo build --all-features -p engine -p bridge -p attacher -p csi-node -p csi-controller",
        )?;
        let it = &mut self.hosts[index];
        let mut command = it.namespace.command(path);
        command.args(program.arguments(&self.place, &it.place, it.name, it.listen, it.limit));
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command.envs(env.iter().copied());
        it.start(&self.place, program, &mut command)?;
        let may_die = env.iter().any(|(name, _)| *name == "OUTBOARD_KILL_AT");
        let socket = program.socket(&self.place, &it.place);
        let what = format!("{} of {}", program.name(), it.name);
        let mut died = None;
        let served = wait::until_true(&what, START, || {
            died = self.hosts[index].ended(program)?;
            Ok(died.is_some() || self.serves(host, program, &socket))
        });
        match died {
            Some(status) if may_die && status.signal() == Some(Signal::SIGKILL as i32) => Ok(()),
            Some(status) => bail!("{what}: {status}\n{}", self.tail(host, program)),
            None => served.with_context(|| self.tail(host, program)),
        }
    }

    fn serves(&self, host: usize, program: Program, socket: &Path) -> bool {
        match program {
            Program::Controller => self.ready(None),
            Program::NodeHost => self.ready(Some(host)),
            _ => UnixStream::connect(socket).is_ok(),
        }
    }

    fn ready(&self, node: Option<usize>) -> bool {
        let mut client = self.calls.identity(node);
        let probe = async move { client.probe(ProbeRequest {}).await };
        let answer = self.runtime.run(probe);
        answer.is_ok_and(|answer| answer.into_inner().ready == Some(true))
    }

    /// Waits until csi-node-dpu reaches volume-attacher, and that opi-bridge, and that the engine.
    ///
    /// # Errors
    /// It does not in time.
    pub fn answers(&self, host: usize) -> Result<()> {
        let name = self.hosts[host].name;
        wait::until_true(&format!("the chain of {name}"), START, || {
            let mut dpu = self.dpus[host].clone();
            let ask = CapacityRequest {
                host: name.to_owned(),
            };
            self.runtime.run(async move { dpu.capacity(ask).await })?;
            Ok(true)
        })
        .with_context(|| self.tail(host, Program::NodeDpu))
    }

    /// SIGKILL, and waits for its end. Not running: nothing.
    ///
    /// # Errors
    /// The kernel can't say how it ended.
    pub fn kill(&mut self, host: usize, program: Program) -> Result<()> {
        self.loops.look();
        self.hosts[of(host, program)].kill(program)
    }

    /// Whether it was started and has not ended.
    pub fn is_up(&mut self, host: usize, program: Program) -> bool {
        matches!(self.hosts[of(host, program)].ended(program), Ok(None))
    }

    /// Its process.
    ///
    /// # Errors
    /// It was not started, or was killed.
    pub fn pid(&self, host: usize, program: Program) -> Result<u32> {
        self.hosts[of(host, program)].pid(program)
    }

    /// Waits until it has ended by itself, by `OUTBOARD_KILL_AT`.
    ///
    /// # Errors
    /// It lives on, or ended otherwise than by SIGKILL.
    pub fn exited(&mut self, host: usize, program: Program) -> Result<()> {
        let index = of(host, program);
        let what = format!(
            "the end of {} of {}",
            program.name(),
            self.hosts[index].name
        );
        let status = wait::until(&what, END, || self.hosts[index].ended(program))?;
        self.hosts[index].kill(program)?;
        let tail = || self.tail(host, program);
        ensure!(
            status.signal() == Some(Signal::SIGKILL as i32),
            "{what}: {status}\n{}",
            tail()
        );
        Ok(())
    }

    /// How many volumes csi-node-host says that it takes, and csi-controller holds it to; 0: any number. csi-node-host is
    /// started again.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn limit(&mut self, host: usize, volumes: usize) -> Result<()> {
        self.hosts[host].limit = volumes;
        configuration::write_nodes(&self.place, &self.hosts)?;
        self.kill(host, Program::NodeHost)?;
        self.spawn(host, Program::NodeHost, &[])
    }

    /// Says that the host is dead or given up, or that it is back: as the taint `out-of-service` does.
    ///
    /// # Errors
    /// The file of nodes can't be written.
    pub fn set_out_of_service(&mut self, host: usize, yes: bool) -> Result<()> {
        self.hosts[host].out_of_service = yes;
        configuration::write_nodes(&self.place, &self.hosts)
    }
}

/// csi-controller runs on the target's host.
fn of(host: usize, program: Program) -> usize {
    if program == Program::Controller {
        0
    } else {
        host
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (n, host) in self.hosts.iter().enumerate() {
                for program in Program::OF_HOST.into_iter().chain([Program::Controller]) {
                    if host.has(program) {
                        let (name, tail) = (host.name, self.tail(n, program));
                        eprintln!("--- {} of {name}\n{tail}", program.name());
                    }
                }
            }
        }
        self.loops.look();
        self.hosts.iter_mut().for_each(Host::kill_all);
        let daemons = daemons::below(self.home.path());
        for pid in &daemons {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        // Before the namespaces' keepers: a daemon that is the last in its namespace unmounts what lies on its own export, and waits for
        // itself for ever.
        let gone = wait::until_true("the daemons to end", Duration::from_secs(10), || {
            Ok(daemons.iter().all(|pid| daemons::has_ended(*pid)))
        });
        if let Err(why) = gone {
            eprintln!("{}: {why:#}", self.home.path().display());
        }
        // What is mounted on them goes with the namespaces, and they with it.
        for device in self.loops.left() {
            let _ = Command::new("losetup")
                .arg("--detach")
                .arg(device.path)
                .output();
        }
    }
}
