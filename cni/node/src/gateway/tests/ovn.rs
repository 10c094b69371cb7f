//! A real OVN of one node inside a sandbox: databases, northd, ovs-vswitchd with the userspace datapath, ovn-controller.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use api::PortFacts;
use ovsdb::{Client, Config, Remote};

use super::sandbox::{eventually, sh};
use crate::chassis::{Databases, Place};

/// The name of the one node.
pub(crate) const NODE: &str = "n1";

/// Listeners and TLS files are taken from the database, as on a real master.
const SOUTHBOUND_TLS: [&str; 4] = [
    "--remote=db:OVN_Southbound,SB_Global,connections",
    "--private-key=db:OVN_Southbound,SSL,private_key",
    "--certificate=db:OVN_Southbound,SSL,certificate",
    "--ca-cert=db:OVN_Southbound,SSL,ca_cert",
];

pub(crate) struct Ovn {
    home: tempfile::TempDir,
    children: Vec<Child>,
    programs: Vec<String>,
    vswitchd: String,
}

/// Debian's ovs-vswitchd with DPDK; the alternative of that name stays the one without.
const WITH_DPDK: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";

impl Ovn {
    /// Everything but ovn-controller.
    pub(crate) async fn start() -> Self {
        Self::start_with("ovs-vswitchd", None).await
    }

    /// The same with DPDK in ovs-vswitchd, of which `memory` MiB of huge pages.
    pub(crate) async fn start_dpdk(memory: u32) -> Self {
        hugepages(u64::from(memory) / 2 + 64);
        sh("mkdir -p /run/huge && mount -t hugetlbfs none /run/huge");
        let extra = format!(
            "--no-pci --huge-dir=/run/huge --file-prefix=obt{}",
            lab_number()
        );
        let config = format!(
            "other_config:dpdk-init=true 'other_config:dpdk-extra=\"{extra}\"' other_config:dpdk-socket-mem={memory} \
             other_config:per-port-memory=true other_config:pmd-cpu-mask=0x1"
        );
        let ovn = Self::start_with(WITH_DPDK, Some(&config)).await;
        let initialized = || {
            let said = ovn.vsctl("get Open_vSwitch . dpdk_initialized");
            said.trim() == "true"
        };
        eventually("DPDK is initialised", initialized).await;
        ovn
    }

    async fn start_with(vswitchd: &str, config: Option<&str>) -> Self {
        let mut ovn = Self {
            home: tempfile::tempdir().unwrap(),
            children: Vec::new(),
            programs: Vec::new(),
            vswitchd: vswitchd.to_owned(),
        };
        for (name, schema) in [
            ("ovs", "/usr/share/openvswitch/vswitch.ovsschema"),
            ("nb", "/usr/share/ovn/ovn-nb.ovsschema"),
            ("sb", "/usr/share/ovn/ovn-sb.ovsschema"),
        ] {
            let home = ovn.home().display();
            sh(&format!("ovsdb-tool create {home}/{name}.db {schema}"));
            let remote = format!("--remote=punix:{}", ovn.socket(name).display());
            let database = format!("{home}/{name}.db");
            let mut arguments = vec![remote.as_str(), &database];
            if name == "sb" {
                arguments.extend(SOUTHBOUND_TLS);
            }
            ovn.spawn("ovsdb-server", &arguments);
            let socket = ovn.socket(name);
            eventually("ovsdb-server's socket", || socket.exists()).await;
        }
        ovn.vsctl("--no-wait init");
        if let Some(config) = config {
            ovn.vsctl(&format!("--no-wait set Open_vSwitch . {config}"));
        }
        ovn.start_vswitchd();
        let (nb, sb) = (ovn.remote("nb"), ovn.remote("sb"));
        ovn.spawn(
            "ovn-northd",
            &[&format!("--ovnnb-db={nb}"), &format!("--ovnsb-db={sb}")],
        );
        ovn
    }

    /// Starts ovs-vswitchd (again).
    pub(crate) fn start_vswitchd(&mut self) {
        let (program, vswitch) = (self.vswitchd.clone(), self.remote("ovs"));
        self.spawn(&program, &[&vswitch, "--disable-system"]);
    }

    /// Kills ovs-vswitchd.
    pub(crate) fn kill_vswitchd(&mut self) {
        let program = self.vswitchd.clone();
        let at = self.programs.iter().rposition(|name| *name == program);
        let child = &mut self.children[at.expect("it was started")];
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Names the chassis [`NODE`], and starts ovn-controller.
    pub(crate) fn join(&mut self) {
        let sb = self.place().southbound;
        self.vsctl(&format!(
            "set Open_vSwitch . external_ids:system-id={NODE} external_ids:ovn-remote={sb} \
             external_ids:ovn-encap-type=geneve external_ids:ovn-encap-ip=127.0.0.1 \
             external_ids:ovn-bridge-datapath-type=netdev"
        ));
        self.start_controller();
    }

    pub(crate) fn start_controller(&mut self) {
        let vswitch = self.remote("ovs");
        self.spawn("ovn-controller", &[&vswitch]);
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn databases(&self) -> Databases {
        let client = |name: &str, database: &str| {
            let remote: Remote = self.remote(name).parse().unwrap();
            Client::start(Config::new(database, vec![remote]))
        };
        Databases {
            vswitch: client("ovs", "Open_vSwitch"),
            southbound: client("sb", "OVN_Southbound"),
        }
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            node: NODE.to_owned(),
            chassis: NODE.to_owned(),
            southbound: self.remote("sb"),
            identity: self.home().to_owned(),
        }
    }

    pub(crate) fn vsctl(&self, arguments: &str) -> String {
        sh(&format!(
            "ovs-vsctl --timeout=20 --db={} {arguments}",
            self.remote("ovs")
        ))
    }

    pub(crate) fn nbctl(&self, arguments: &str) -> String {
        sh(&format!(
            "ovn-nbctl --timeout=20 --db={} {arguments}",
            self.remote("nb")
        ))
    }

    pub(crate) fn sbctl(&self, arguments: &str) -> String {
        sh(&format!(
            "ovn-sbctl --timeout=20 --db={} {arguments}",
            self.remote("sb")
        ))
    }

    /// Writes the facts to a logical switch port, as cni-controller does.
    pub(crate) fn set_facts(&self, port: &str, facts: &PortFacts) {
        let pairs: Vec<String> = facts
            .encode()
            .into_iter()
            .map(|(key, value)| format!("'external_ids:\"{key}\"=\"{value}\"'"))
            .collect();
        self.nbctl(&format!(
            "clear Logical_Switch_Port {port} external_ids -- set Logical_Switch_Port {port} {}",
            pairs.join(" ")
        ));
    }

    fn remote(&self, name: &str) -> String {
        format!("unix:{}", self.socket(name).display())
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.home().join(format!("{name}.sock"))
    }

    /// Everything that the program says goes to a file in the sandbox's directory.
    fn spawn(&mut self, program: &str, arguments: &[&str]) {
        let number = self.children.len();
        let name = Path::new(program).file_name().unwrap().to_string_lossy();
        let log = self.home().join(format!("{name}.{number}.log"));
        let log = std::fs::File::create(log).unwrap();
        self.programs.push(program.to_owned());
        let mut command = Command::new(if program == WITH_DPDK {
            "nice"
        } else {
            program
        });
        if program == WITH_DPDK {
            // It has a thread that never sleeps: the rest of the test goes first.
            command.args(["-n", "19", program]);
        }
        command
            .args(arguments)
            .env("OVS_RUNDIR", self.home())
            .env("OVN_RUNDIR", self.home())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if program != "ovn-controller" {
            command.arg(format!(
                "--unixctl={}",
                self.home().join(format!("{number}.ctl")).display()
            ));
        }
        self.children.push(command.spawn().unwrap_or_else(|error| {
            panic!(
                "{program}: {error} (make setup installs openvswitch-switch, openvswitch-switch-dpdk, ovn-central, ovn-host)"
            )
        }));
    }
}

impl Drop for Ovn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for entry in std::fs::read_dir(self.home()).unwrap().flatten() {
                if entry
                    .path()
                    .extension()
                    .is_some_and(|extension| extension == "log")
                {
                    eprintln!("--- {}", entry.path().display());
                    eprintln!(
                        "{}",
                        std::fs::read_to_string(entry.path()).unwrap_or_default()
                    );
                }
            }
        }
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// As many free huge pages of 2 MiB, made if there are fewer.
fn hugepages(wanted: u64) {
    let dir = Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB");
    let read = |file: &str| -> u64 {
        let text = std::fs::read_to_string(dir.join(file)).unwrap();
        text.trim().parse().unwrap()
    };
    let (free, all) = (read("free_hugepages"), read("nr_hugepages"));
    if free < wanted {
        std::fs::write(dir.join("nr_hugepages"), (all + wanted - free).to_string()).unwrap();
    }
    assert!(
        read("free_hugepages") >= wanted,
        "{wanted} free huge pages of 2 MiB are needed: sysctl -w vm.nr_hugepages=<more>"
    );
}

/// Differs from that of all others on this machine: in a sandbox every test is process 1.
fn lab_number() -> u128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_nanos()
}
