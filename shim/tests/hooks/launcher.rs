//! virt-launcher's hook manager (KubeVirt's pkg/hooks/manager.go), as far as a sidecar can tell it from the real one.
//!
//! What it does as KubeVirt does: it scans the directories below the directory of hook sockets every 300 ms and takes every entry that is
//! no directory; it knows a socket by its file name alone; it dials each call anew, with authority `localhost`; a dial that fails is
//! "not ready yet", an Info that fails is the end; the newest version that both know is used.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proto::kubevirt::hooks::info::info_client::InfoClient;
use proto::kubevirt::hooks::info::{InfoParams, InfoResult};
use proto::kubevirt::hooks::{v1alpha1, v1alpha2, v1alpha3};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// Between two scans.
const SCAN: Duration = Duration::from_millis(300);
/// For Info.
const INFO: Duration = Duration::from_secs(1);
/// For a callback.
const CALL: Duration = Duration::from_secs(60);

/// One sidecar.
#[derive(Debug, Clone)]
pub struct Sidecar {
    /// Its socket.
    pub socket: PathBuf,
    /// The version that is spoken with it.
    pub version: &'static str,
    /// What it said of itself.
    pub info: InfoResult,
}

/// The sidecars of a VM.
#[derive(Debug, Clone)]
pub struct Manager {
    /// In the order in which they were found.
    pub sidecars: Vec<Sidecar>,
}

/// CloudInitData and CloudInitNoCloudSource, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudInit {
    /// The newer form.
    pub data: Vec<u8>,
    /// The older one.
    pub no_cloud: Vec<u8>,
}

impl Manager {
    /// Waits until `count` sidecars are there.
    ///
    /// # Errors
    ///
    /// The time is up, a directory can't be read, or an Info failed: virt-launcher would panic.
    pub async fn collect(directory: &Path, count: usize, time: Duration) -> Result<Self, String> {
        let began = Instant::now();
        let mut processed = BTreeSet::new();
        let mut sidecars = Vec::new();
        loop {
            for socket in sockets(directory).map_err(|e| format!("{}: {e}", directory.display()))? {
                let name = socket.file_name().map(ToOwned::to_owned);
                if processed.contains(&name) {
                    continue;
                }
                if let Some(sidecar) = ask(&socket).await? {
                    processed.insert(name);
                    sidecars.push(sidecar);
                }
            }
            if processed.len() >= count {
                return Ok(Self { sidecars });
            }
            if began.elapsed() > time {
                return Err(
                    "Failed to collect all expected sidecar hook sockets within given timeout"
                        .into(),
                );
            }
            tokio::time::sleep(SCAN).await;
        }
    }

    /// The XML after all sidecars.
    ///
    /// # Errors
    ///
    /// The first sidecar's that failed.
    pub async fn on_define_domain(&self, xml: &str, vmi: &str) -> Result<String, Status> {
        let mut xml = xml.as_bytes().to_vec();
        for sidecar in self.subscribed("OnDefineDomain") {
            xml = sidecar
                .on_define_domain(xml, vmi.as_bytes().to_vec())
                .await?;
        }
        String::from_utf8(xml).map_err(|e| Status::internal(e.to_string()))
    }

    /// What cloud-init is told after the first sidecar that is subscribed.
    ///
    /// # Errors
    ///
    /// The sidecar's.
    pub async fn pre_cloud_init_iso(
        &self,
        sent: CloudInit,
        vmi: &str,
    ) -> Result<CloudInit, Status> {
        match self.subscribed("PreCloudInitIso").next() {
            Some(sidecar) => {
                sidecar
                    .pre_cloud_init_iso(sent, vmi.as_bytes().to_vec())
                    .await
            }
            None => Ok(sent),
        }
    }

    /// Says that the VM has ended.
    ///
    /// # Errors
    ///
    /// The first sidecar's that failed.
    pub async fn shutdown(&self) -> Result<(), Status> {
        for sidecar in self
            .subscribed("Shutdown")
            .filter(|s| s.version == "v1alpha3")
        {
            let channel = dial(&sidecar.socket);
            let mut client = v1alpha3::callbacks_client::CallbacksClient::new(channel);
            client
                .shutdown(request(v1alpha3::ShutdownParams {}))
                .await?;
        }
        Ok(())
    }

    fn subscribed<'a>(&'a self, point: &'a str) -> impl Iterator<Item = &'a Sidecar> {
        let subscribed = move |s: &&Sidecar| s.info.hook_points.iter().any(|p| p.name == point);
        self.sidecars.iter().filter(subscribed)
    }

    /// The same sidecars, spoken with in a given version.
    #[must_use]
    pub fn speaking(&self, version: &'static str) -> Self {
        let mut manager = self.clone();
        for sidecar in &mut manager.sidecars {
            sidecar.version = version;
        }
        manager
    }
}

impl Sidecar {
    async fn on_define_domain(&self, domain_xml: Vec<u8>, vmi: Vec<u8>) -> Result<Vec<u8>, Status> {
        let channel = dial(&self.socket);
        Ok(match self.version {
            "v1alpha1" => {
                let mut client = v1alpha1::callbacks_client::CallbacksClient::new(channel);
                let params = v1alpha1::OnDefineDomainParams { domain_xml, vmi };
                client
                    .on_define_domain(request(params))
                    .await?
                    .into_inner()
                    .domain_xml
            }
            "v1alpha2" => {
                let mut client = v1alpha2::callbacks_client::CallbacksClient::new(channel);
                let params = v1alpha2::OnDefineDomainParams { domain_xml, vmi };
                client
                    .on_define_domain(request(params))
                    .await?
                    .into_inner()
                    .domain_xml
            }
            _ => {
                let mut client = v1alpha3::callbacks_client::CallbacksClient::new(channel);
                let params = v1alpha3::OnDefineDomainParams { domain_xml, vmi };
                client
                    .on_define_domain(request(params))
                    .await?
                    .into_inner()
                    .domain_xml
            }
        })
    }

    async fn pre_cloud_init_iso(&self, sent: CloudInit, vmi: Vec<u8>) -> Result<CloudInit, Status> {
        let channel = dial(&self.socket);
        if self.version == "v1alpha2" {
            let mut client = v1alpha2::callbacks_client::CallbacksClient::new(channel);
            let params = v1alpha2::PreCloudInitIsoParams {
                cloud_init_no_cloud_source: sent.no_cloud,
                vmi,
                cloud_init_data: sent.data,
            };
            let told = client
                .pre_cloud_init_iso(request(params))
                .await?
                .into_inner();
            return Ok(CloudInit {
                data: told.cloud_init_data,
                no_cloud: told.cloud_init_no_cloud_source,
            });
        }
        let mut client = v1alpha3::callbacks_client::CallbacksClient::new(channel);
        let params = v1alpha3::PreCloudInitIsoParams {
            cloud_init_no_cloud_source: sent.no_cloud,
            vmi,
            cloud_init_data: sent.data,
        };
        let told = client
            .pre_cloud_init_iso(request(params))
            .await?
            .into_inner();
        Ok(CloudInit {
            data: told.cloud_init_data,
            no_cloud: told.cloud_init_no_cloud_source,
        })
    }
}

/// Everything that virt-launcher takes for a hook socket, in the order in which it looks.
fn sockets(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        for inner in std::fs::read_dir(entry.path())? {
            let inner = inner?;
            if !inner.file_type()?.is_dir() {
                found.insert((entry.file_name(), inner.file_name()), inner.path());
            }
        }
    }
    Ok(found.into_values().collect())
}

/// None: not ready yet.
async fn ask(socket: &Path) -> Result<Option<Sidecar>, String> {
    let mut client = InfoClient::new(dial(socket));
    let mut request = Request::new(InfoParams {});
    request.set_timeout(INFO);
    let info = match client.info(request).await {
        Ok(info) => info.into_inner(),
        Err(status) if status.code() == Code::Unavailable => return Ok(None),
        Err(status) => return Err(format!("{}: {status}", socket.display())),
    };
    let version = ["v1alpha3", "v1alpha2", "v1alpha1"]
        .into_iter()
        .find(|version| info.versions.iter().any(|v| v == version));
    let version = version.ok_or_else(|| format!("no version of {:?} is known", info.versions))?;
    Ok(Some(Sidecar {
        socket: socket.to_owned(),
        version,
        info,
    }))
}

/// Its authority is `localhost`.
fn dial(socket: &Path) -> Channel {
    proto::uds::channel(socket)
}

fn request<T>(params: T) -> Request<T> {
    let mut request = Request::new(params);
    request.set_timeout(CALL);
    request
}
