//! OnDefineDomain of `vhostuser-shim` over its socket, as virt-launcher calls it: each call with a connection of its own.
//!
//! Beside it Info, which does nothing: what is between the two is the shim's own work, the rest is gRPC's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proto::kubevirt::hooks::info::InfoParams;
use proto::kubevirt::hooks::info::info_client::InfoClient;
use proto::kubevirt::hooks::v1alpha3::OnDefineDomainParams;
use proto::kubevirt::hooks::v1alpha3::callbacks_client::CallbacksClient;
use tempfile::TempDir;

use super::report::{Report, Row};
use super::samples::Samples;
use super::{Bench, procfs};
use crate::{images, wait};

/// KubeVirt's domain of a VM with an interface and a data disk of ours, beside a root disk and cloud-init.
const XML: &str = include_str!("../../../shim/tests/golden/block-data/in.xml");
const VMI: &str = include_str!("../../../shim/tests/golden/block-data/vmi.json");
const SOURCES: &str = include_str!("../../../shim/tests/golden/block-data/sources.json");
/// Of both, before the first that counts.
const WARM_UP: u16 = 20;
/// What the issue allows a sidecar, in MiB.
const MEMORY: f64 = 10.0;

/// The program, in something like a pod.
struct Sidecar {
    child: Child,
    socket: PathBuf,
    _home: TempDir,
}

/// Alternating calls of both.
pub(super) fn measure(bench: &Bench) -> Result<Report> {
    let calls = bench.options.shim_calls;
    let sidecar = Sidecar::start()?;
    let (mut info, mut define) = (Samples::default(), Samples::default());
    let mut size = 0;
    for call in 0..WARM_UP + calls {
        let begun = Instant::now();
        bench.runtime.block_on(ask(&sidecar.socket))?;
        let asked = begun.elapsed();
        let begun = Instant::now();
        size = bench.runtime.block_on(rewrite(&sidecar.socket))?;
        if call >= WARM_UP {
            define.push(begun.elapsed());
            info.push(asked);
        }
    }
    let memory = procfs::memory(i32::try_from(sidecar.child.id())?)?;
    let mut report = Report::new(format!(
        "vhostuser-shim: OnDefineDomain of {} bytes of XML, {calls} calls, each beside an Info",
        XML.len()
    ));
    report.push(
        Row::new("OnDefineDomain, p50", define.p50(), "ms")
            .beside("Info", info.p50())
            .of(&define),
    );
    report.push(
        Row::new("OnDefineDomain, p99", define.p99(), "ms")
            .beside("Info", info.p99())
            .of(&info),
    );
    let resident = Row::new("resident memory after it", memory.resident, "MiB");
    report.push(resident.at_most(MEMORY, "10 MiB"));
    report.note("each call has a connection of its own, as virt-launcher's have: Info is gRPC and the socket alone");
    report.note(format!(
        "answer: {size} bytes; a file with network-info is read for each"
    ));
    Ok(report)
}

async fn ask(socket: &Path) -> Result<()> {
    let mut client = InfoClient::new(proto::uds::channel(socket));
    client.info(InfoParams {}).await?;
    Ok(())
}

/// Gives the length of the answer.
async fn rewrite(socket: &Path) -> Result<usize> {
    let mut client = CallbacksClient::new(proto::uds::channel(socket));
    let params = OnDefineDomainParams {
        domain_xml: XML.into(),
        vmi: VMI.into(),
    };
    let answer = client.on_define_domain(params).await?.into_inner();
    let text = String::from_utf8_lossy(&answer.domain_xml);
    ensure!(
        text.contains("type='vhostuser'"),
        "the domain came back as it was: {text}"
    );
    Ok(answer.domain_xml.len())
}

impl Sidecar {
    fn start() -> Result<Self> {
        let home = tempfile::tempdir().context("a directory")?;
        let sources: serde_json::Value = serde_json::from_str(SOURCES)?;
        let info = home.path().join("network-info");
        fs::write(&info, sources["network_info"].as_str().unwrap_or_default())?;
        let child = Command::new(images::program("vhostuser-shim")?)
            .env("CONTAINER_NAME", "hook-sidecar-0")
            .env("NETWORK_BINDING_PLUGIN_NAME", "vhostuser")
            .env("OUTBOARD_SHIM_SOCKET_DIR", home.path())
            .env("OUTBOARD_SHIM_NETWORK_INFO", &info)
            .stdin(Stdio::null())
            .stderr(File::create(home.path().join("log"))?)
            .spawn()
            .context("cannot start vhostuser-shim")?;
        let sidecar = Self {
            child,
            socket: home.path().join("vhostuser-hook-sidecar-0.sock"),
            _home: home,
        };
        wait::until_true("vhostuser-shim to serve", Duration::from_secs(10), || {
            Ok(std::os::unix::net::UnixStream::connect(&sidecar.socket).is_ok())
        })?;
        Ok(sidecar)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
