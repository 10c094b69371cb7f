//! csi-controller's two files, and the certificates and ports that a chain with TLS needs.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::certificates::{Authority, Role, dn};
use super::host::Host;
use super::place::{IDENTITY, Place, text};

/// TCP ports for the volumes of one chain.
const PORTS: u16 = 200;
/// Below the ports that the kernel gives away.
const FIRST: u16 = 12_000;
const LAST: u16 = 19_800;

/// What a chain with TLS has.
#[derive(Debug)]
pub(super) struct Tls {
    /// The first port of the chain's: whoever has it has those after it.
    mark: TcpListener,
}

impl Tls {
    /// Takes ports and makes all certificates.
    pub(super) fn new(place: &Place, hosts: &[Host]) -> Result<Self> {
        let authority = Authority::new()?;
        let target = place.target_tls();
        authority.issue(&target, "target", false, "127.0.0.1", &[Role::Server])?;
        let (dir, name) = (place.controller_tls(), "system:csi-controller");
        authority.issue(&dir, name, false, "csi-controller", &[Role::Client])?;
        for host in hosts {
            let roles = [Role::Client, Role::Server];
            authority.issue(&host.place.identity(), host.name, true, host.name, &roles)?;
        }
        let mut blocks = (FIRST..LAST).step_by(usize::from(PORTS));
        let mark = blocks.find_map(|first| TcpListener::bind(("127.0.0.1", first)).ok());
        let mark = mark.context("no ports are free for the volumes of a chain with TLS")?;
        Ok(Self { mark })
    }

    fn ports(&self) -> Result<(u16, u16)> {
        let mark = self.mark.local_addr()?.port();
        Ok((mark + 1, mark + PORTS - 1))
    }
}

/// The back end: `local`, on the first host's engine. There is room for everything, as nothing is thick.
pub(super) fn write_backends(place: &Place, target: &Host, tls: Option<&Tls>) -> Result<()> {
    let mut yaml = format!(
        "backends:\n  - kind: local\n    directory: {}\n    engineSocket: {}\n    engineId: {}\n    \
         reserveBytes: 1048576\n    defaultBytes: 67108864\n    overProvisioning: 1000\n",
        text(&place.volumes),
        text(target.place.engine_socket()),
        target.name
    );
    if let Some(tls) = tls {
        let (first, last) = tls.ports()?;
        write!(
            yaml,
            "    tcp:\n      address: 127.0.0.1\n      advertise: 127.0.0.1\n      firstPort: {first}\n      lastPort: {last}\n      \
             tlsDirectory: {}\n      cardCredentials: {IDENTITY}\n",
            text(place.target_tls())
        )?;
    }
    write(&place.backends(), &yaml)
}

/// The hosts. csi-controller reads the file again when it changes.
pub(super) fn write_nodes(place: &Place, hosts: &[Host]) -> Result<()> {
    let mut yaml = "nodes:\n".to_owned();
    for host in hosts {
        let address = match host.listen {
            Some(port) => format!(
                "https://127.0.0.1:{port}\n    serverName: {}\n    dn: '{}'",
                host.name,
                dn(host.name)
            ),
            None => format!("unix:{}", text(host.place.dpu_controller_socket())),
        };
        write!(
            yaml,
            "  - id: {name}\n    engine: {name}\n    exportsDir: {exports}\n    limit: {limit}\n    outOfService: {out}\n    \
             address: {address}\n",
            name = host.name,
            exports = text(host.place.exports()),
            limit = host.limit,
            out = host.out_of_service,
        )?;
    }
    write(&place.nodes(), &yaml)
}

/// At once: the reader may look in between.
fn write(path: &Path, yaml: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, yaml)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
