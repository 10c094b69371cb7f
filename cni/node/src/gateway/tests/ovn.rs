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
}

impl Ovn {
    /// Everything but ovn-controller.
    pub(crate) async fn start() -> Self {
        let mut ovn = Self {
            home: tempfile::tempdir().unwrap(),
            children: Vec::new(),
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
        let vswitch = ovn.remote("ovs");
        ovn.spawn("ovs-vswitchd", &[&vswitch, "--disable-system"]);
        let (nb, sb) = (ovn.remote("nb"), ovn.remote("sb"));
        ovn.spawn(
            "ovn-northd",
            &[&format!("--ovnnb-db={nb}"), &format!("--ovnsb-db={sb}")],
        );
        ovn
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
            "set Logical_Switch_Port {port} {}",
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
        let log =
            std::fs::File::create(self.home().join(format!("{program}.{number}.log"))).unwrap();
        let mut command = Command::new(program);
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
                "{program}: {error} (make setup installs openvswitch-switch, ovn-central, ovn-host)"
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
