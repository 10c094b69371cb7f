//! Who may reach a volume.

use std::path::PathBuf;

use uuid::Uuid;

use super::config::Listen;
use super::converge::engine_error;
use super::recipe::{TOP, daemon_id, tls_dir};
use super::volumes::uuid_of;
use super::{Inner, peers, soon};
use crate::error::{Error, Result};
use crate::export::{Access, Export, Host, NbdAddress, Target};
use crate::identity::VolumeId;
use crate::plan;
use crate::state::{ExportRecord, VolumeRecord};
use crate::volume::check_name;

impl Inner {
    pub(crate) async fn export(
        &self,
        id: &VolumeId,
        host: &Host,
        access: Access,
        multi: bool,
    ) -> Result<Target> {
        check_name("host", &host.name)?;
        let (uuid, _) = self.volume(id)?;
        let _lock = self.lock([uuid]).await?;
        let (_, mut record) = self.volume(id)?;
        // A writable FUSE export excludes NBD exports of the same disk (QEMU 10.0): a shared volume goes over NBD to all.
        let same_node = !multi && host.engine.as_deref() == Some(self.config.engine_id.as_str());
        if !same_node && tls_dir(&self.config).is_some() && host.dn.is_none() {
            let allowed =
                "the distinguished name of the host's client certificate, since exports use TLS";
            return Err(Error::invalid("host.dn", "", allowed));
        }
        if let Some(there) = record
            .exports
            .iter()
            .find(|export| export.host == host.name)
        {
            let same = (there.access, there.multi, there.same_node, &there.dn);
            if same != (access, multi, same_node, &host.dn) {
                return Err(Error::AlreadyExists {
                    object: format!("export of {id} to host {:?}", host.name),
                    differs: format!(
                        "access, sharing or identity: it is {:?}, shared: {}, by {:?}",
                        there.access, there.multi, there.dn
                    ),
                });
            }
            let there = there.clone();
            self.ensure(uuid).await?;
            return self.target(uuid, &record, &there).await;
        }
        if let Some(other) = record
            .exports
            .iter()
            .find(|export| !(multi && export.multi))
        {
            return Err(Error::InUse {
                object: id.to_string(),
                by: format!("host {:?}", other.host),
            });
        }
        let export = ExportRecord {
            host: host.name.clone(),
            dn: host.dn.clone(),
            access,
            multi,
            same_node,
            token: Uuid::new_v4(),
        };
        record.exports.push(export.clone());
        // Without an end to its patience: each holder writes one record, and fifty at once must all have their turn.
        let ports = self.ports.lock().await;
        if record.port.is_none() {
            record.port = self.free_port(id)?;
        }
        // From here on the port is taken: the record is the first step.
        let [recorded, rest] = <[_; 2]>::try_from(plan::change(uuid, record.clone()))
            .expect("a change is a record and its effect");
        self.perform(&id.to_string(), vec![recorded]).await?;
        drop(ports);
        self.perform(&id.to_string(), vec![rest]).await?;
        self.target(uuid, &record, &export).await
    }

    pub(crate) async fn unexport(&self, id: &VolumeId, host: &str) -> Result<()> {
        let Some(uuid) = uuid_of(id.backend(), id.handle()) else {
            return Ok(());
        };
        let _lock = self.lock([uuid]).await?;
        let Ok((_, mut record)) = self.volume(id) else {
            // Deleted: then it had no exports, and its daemon is gone.
            return Ok(());
        };
        let before = record.exports.len();
        record.exports.retain(|export| export.host != host);
        if record.exports.len() == before {
            // An earlier call may have been cut off after its record.
            return self.ensure(uuid).await;
        }
        if record.exports.is_empty() {
            record.port = None;
        }
        self.perform(&id.to_string(), plan::change(uuid, record))
            .await
    }

    pub(crate) async fn exports(&self, id: &VolumeId) -> Result<Vec<Export>> {
        let (uuid, record) = self.volume(id)?;
        let connected = match (&self.config.listen, record.port) {
            (Listen::Tcp { .. }, Some(port)) => {
                let daemon = self.engine.get(&daemon_id(uuid), soon()).await;
                let daemon = daemon.map_err(|why| engine_error(uuid, &why))?;
                daemon
                    .and_then(|d| d.pid)
                    .map_or_else(Vec::new, |pid| peers::connected(pid, port))
            }
            _ => Vec::new(),
        };
        let mut exports = Vec::new();
        for export in &record.exports {
            exports.push(Export {
                host: export.host.clone(),
                access: export.access,
                target: self.target(uuid, &record, export).await?,
                connected: connected.clone(),
            });
        }
        Ok(exports)
    }

    async fn target(
        &self,
        uuid: Uuid,
        record: &VolumeRecord,
        export: &ExportRecord,
    ) -> Result<Target> {
        if export.same_node {
            return Ok(Target::SameNode {
                engine: self.config.engine_id.clone(),
                daemon: daemon_id(uuid),
                node: TOP.to_owned(),
                writable: export.access == Access::ReadWrite,
            });
        }
        let address = match &self.config.listen {
            Listen::Unix => NbdAddress::Unix {
                path: self.nbd_socket(uuid).await?,
            },
            Listen::Tcp {
                address, advertise, ..
            } => NbdAddress::Tcp {
                host: advertise.clone().unwrap_or_else(|| address.to_string()),
                port: record.port.unwrap_or_default(),
            },
        };
        Ok(Target::Nbd {
            address,
            export: export.token.to_string(),
            tls: tls_dir(&self.config).is_some(),
        })
    }

    async fn nbd_socket(&self, uuid: Uuid) -> Result<PathBuf> {
        let info = self.engine.info(soon()).await;
        let info = info.map_err(|why| engine_error(uuid, &why))?;
        Ok(info.daemons.join(daemon_id(uuid)).join("nbd.sock"))
    }

    fn free_port(&self, id: &VolumeId) -> Result<Option<u16>> {
        let Listen::Tcp { ports, .. } = &self.config.listen else {
            return Ok(None);
        };
        let state = self.catalogue.state();
        let taken: std::collections::BTreeSet<_> = state
            .volumes
            .values()
            .filter_map(|volume| volume.port)
            .collect();
        let free = ports.clone().find(|port| !taken.contains(port));
        free.map(Some).ok_or_else(|| Error::NoSpace {
            object: id.to_string(),
            why: format!(
                "all TCP ports {} to {} serve volumes",
                ports.start(),
                ports.end()
            ),
        })
    }
}
