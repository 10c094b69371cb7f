//! OVN's central part on the master: NB and SB databases, northd.
//!
//! NB takes clients of its own authority only (`nb-ca`), on `ssl:<master>:6641` (and 6651, 6661 with three servers). SB
//! takes chassis, by certificates of the chassis authority (`sb-ca`), on `ssl:<master>:6642` with the role
//! `ovn-controller`. Without a role SB is reached on the master's unix socket alone.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::node::Node;
use crate::pki::{Authority, Credential};
use crate::{shell, switch, wait};

const NB_SCHEMA: &str = "/usr/share/ovn/ovn-nb.ovsschema";
const SB_SCHEMA: &str = "/usr/share/ovn/ovn-sb.ovsschema";
const SB_SOCKET: &str = "/run/ovn/ovnsb_db.sock";

/// How the databases are to run.
#[derive(Debug, Clone, Copy)]
pub struct CentralConfig {
    /// 1, or 3 for a RAFT cluster whose leader a test can kill.
    pub nb_servers: u8,
}

impl Default for CentralConfig {
    fn default() -> Self {
        Self { nb_servers: 1 }
    }
}

/// The running databases, and what is needed to reach them.
pub struct Central {
    address: String,
    nb_sockets: Vec<PathBuf>,
    sb_socket: PathBuf,
    nb_servers: u8,
    /// The chassis authority: signs nodes' certificates and the SB server's own.
    pub chassis_ca: Authority,
    /// NB's own authority.
    pub nb_ca: Authority,
    /// What cni-controller shows to NB.
    pub nb_client: Credential,
}

impl Central {
    /// Starts the databases and northd on `node`.
    ///
    /// # Errors
    /// A server does not come up: its log is in the node's state directory.
    pub(crate) fn start(node: &Node, config: CentralConfig) -> Result<Self> {
        let pki = node
            .dir()
            .parent()
            .context("a node's directory lies in its lab's")?
            .join("pki");
        let chassis_ca = Authority::create(&pki, "sb-ca")?;
        let nb_ca = Authority::create(&pki, "nb-ca")?;
        let (v4, v6) = node.addresses();
        let names = [v4.clone(), v6];
        let sb_server = chassis_ca.issue("sb-server", "ovn-sb", &[], &names)?;
        let nb_server = nb_ca.issue("nb-server", "ovn-nb", &[], &names)?;
        let nb_client = nb_ca.issue("nb-client", "cni-controller", &[], &[])?;

        node.exec(&[
            "ovsdb-tool",
            "create",
            "/var/lib/ovn/ovnsb_db.db",
            SB_SCHEMA,
        ])?;
        let connections = "--remote=db:OVN_Southbound,SB_Global,connections";
        database(
            node,
            "sb",
            SB_SOCKET,
            "/var/lib/ovn/ovnsb_db.db",
            connections,
            &sb_server,
            &chassis_ca,
        )?;
        let mut nb_sockets = Vec::new();
        for server in 0..config.nb_servers {
            let file = create_nb(node, config.nb_servers, server)?;
            let socket = nb_socket(server);
            let listener = format!("--remote=pssl:{}:0.0.0.0", nb_port(server));
            database(
                node,
                &nb_process(server),
                &socket,
                &file,
                &listener,
                &nb_server,
                &nb_ca,
            )?;
            nb_sockets.push(node.path(&socket));
        }
        let inside: Vec<String> = (0..config.nb_servers)
            .map(|s| format!("unix:{}", nb_socket(s)))
            .collect();
        node.start(
            "northd",
            &[
                "ovn-northd",
                &format!("--ovnnb-db={}", inside.join(",")),
                &format!("--ovnsb-db=unix:{SB_SOCKET}"),
                "--pidfile=/run/ovn/ovn-northd.pid",
                "--overwrite-pidfile",
                "-vconsole:info",
                "-vsyslog:off",
            ],
        )?;
        let central = Self {
            address: v4,
            nb_sockets,
            sb_socket: node.path(SB_SOCKET),
            nb_servers: config.nb_servers,
            chassis_ca,
            nb_ca,
            nb_client,
        };
        central.sbctl(&["set-connection", "role=ovn-controller", "pssl:6642:0.0.0.0"])?;
        // The probe of every idle session is CPU time of a small machine.
        central.sbctl(&["set", "connection", ".", "inactivity_probe=60000"])?;
        central.nbctl(&["--wait=sb", "init"])?;
        wait::until_true("the southbound listener", Duration::from_secs(10), || {
            Ok(std::net::TcpStream::connect((central.address.as_str(), 6642)).map(|_| true)?)
        })?;
        Ok(central)
    }

    /// NB as its clients name it: `ssl:…`, comma separated.
    pub fn nb_remote(&self) -> String {
        let all = (0..self.nb_servers).map(|s| format!("ssl:{}:{}", self.address, nb_port(s)));
        all.collect::<Vec<_>>().join(",")
    }

    /// SB as chassis name it.
    pub fn sb_remote(&self) -> String {
        format!("ssl:{}:6642", self.address)
    }

    /// NB's unix sockets as this machine reaches them, in the form of a remote: all rights, no certificate.
    pub fn nb_unix(&self) -> String {
        let all = self
            .nb_sockets
            .iter()
            .map(|s| format!("unix:{}", s.display()));
        all.collect::<Vec<_>>().join(",")
    }

    /// SB's unix socket as this machine reaches it, in the form of a remote: all rights, no role.
    pub fn sb_unix(&self) -> String {
        format!("unix:{}", self.sb_socket.display())
    }

    /// A command line prefix that reaches NB from this machine.
    pub fn nbctl_line(&self) -> String {
        format!("ovn-nbctl --timeout=30 --db={}", self.nb_unix())
    }

    /// A command line prefix that reaches SB from this machine.
    pub fn sbctl_line(&self) -> String {
        format!("ovn-sbctl --timeout=30 --db={}", self.sb_unix())
    }

    /// Runs `ovn-nbctl`.
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn nbctl(&self, arguments: &[&str]) -> Result<String> {
        with_prefix(&self.nbctl_line(), arguments)
    }

    /// Runs `ovn-sbctl`.
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn sbctl(&self, arguments: &[&str]) -> Result<String> {
        with_prefix(&self.sbctl_line(), arguments)
    }

    /// The name of the process (`master().process(…)`) which leads the NB cluster.
    ///
    /// # Errors
    /// None leads at the moment.
    pub fn nb_leader(&self, master: &Node) -> Result<String> {
        for server in 0..self.nb_servers {
            let control = format!("/run/ovn/{}.ctl", nb_process(server));
            let status = master.exec(&[
                "ovs-appctl",
                "-t",
                &control,
                "cluster/status",
                "OVN_Northbound",
            ]);
            if status.is_ok_and(|s| s.contains("Role: leader")) {
                return Ok(nb_process(server));
            }
        }
        anyhow::bail!("none of the {} NB servers leads", self.nb_servers)
    }

    /// Gives a node its identity files, as the signer would: `/var/lib/outboard/identity`, which it returns.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn give_identity(&self, node: &Node) -> Result<&'static str> {
        const DIR: &str = "/var/lib/outboard/identity";
        let chassis =
            self.chassis_ca
                .issue(&format!("chassis-{}", node.name()), node.name(), &[], &[])?;
        let files = [
            ("tls.key", &chassis.key),
            ("tls.crt", &chassis.certificate),
            ("ca.crt", &self.chassis_ca.certificate),
        ];
        for (name, from) in files {
            node.write(&format!("{DIR}/{name}"), &std::fs::read_to_string(from)?)?;
        }
        node.script(&format!("chmod 700 {DIR}; chmod 600 {DIR}/tls.key"))?;
        Ok(DIR)
    }
}

fn nb_port(server: u8) -> u16 {
    6641 + 10 * u16::from(server)
}

fn nb_process(server: u8) -> String {
    if server == 0 {
        "nb".into()
    } else {
        format!("nb-{}", server + 1)
    }
}

fn nb_socket(server: u8) -> String {
    if server == 0 {
        "/run/ovn/ovnnb_db.sock".into()
    } else {
        format!("/run/ovn/ovnnb_db-{}.sock", server + 1)
    }
}

fn create_nb(node: &Node, servers: u8, server: u8) -> Result<String> {
    let file = format!("/var/lib/ovn/ovnnb_db-{}.db", server + 1);
    let raft = |s: u8| format!("tcp:127.0.0.1:{}", nb_port(s) + 2);
    match (servers, server) {
        (1, _) => node.exec(&["ovsdb-tool", "create", &file, NB_SCHEMA])?,
        (_, 0) => node.exec(&["ovsdb-tool", "create-cluster", &file, NB_SCHEMA, &raft(0)])?,
        (_, s) => node.exec(&[
            "ovsdb-tool",
            "join-cluster",
            &file,
            "OVN_Northbound",
            &raft(s),
            &raft(0),
        ])?,
    };
    Ok(file)
}

fn database(
    node: &Node,
    name: &str,
    socket: &str,
    file: &str,
    listener: &str,
    server: &Credential,
    clients: &Authority,
) -> Result<()> {
    let argv = [
        "ovsdb-server".to_string(),
        file.into(),
        format!("--remote=punix:{socket}"),
        listener.into(),
        format!("--private-key={}", server.key.display()),
        format!("--certificate={}", server.certificate.display()),
        format!("--ca-cert={}", clients.certificate.display()),
        format!("--unixctl=/run/ovn/{name}.ctl"),
        format!("--pidfile=/run/ovn/{name}.pid"),
        "--overwrite-pidfile".into(),
        "-vconsole:info".into(),
        "-vsyslog:off".into(),
    ];
    node.start(name, &argv)?;
    switch::socket(node, socket)
}

fn with_prefix(line: &str, arguments: &[&str]) -> Result<String> {
    let argv: Vec<&str> = line.split(' ').chain(arguments.iter().copied()).collect();
    shell::run(&argv)
}
