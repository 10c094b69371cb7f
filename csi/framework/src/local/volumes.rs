//! Volumes: made, listed, changed, deleted.

use uuid::Uuid;

use super::recipe::{daemon_id, image_path};
use super::{Inner, LARGEST, NAME, UNIT, failed, soon};
use crate::backend::{Capacity, Health};
use crate::capacity::Pool;
use crate::error::{Error, Result};
use crate::identity::VolumeId;
use crate::page::Page;
use crate::plan;
use crate::state::{FileId, State, Step, VolumeRecord};
use crate::volume::{CreateVolume, Qos, SizeRange, Source, Volume, check_name};

pub(crate) fn volume_id(uuid: Uuid) -> VolumeId {
    VolumeId::new(NAME, &uuid.to_string()).expect("name and UUID are within the rules")
}

fn view(uuid: Uuid, record: &VolumeRecord) -> Volume {
    Volume {
        id: volume_id(uuid),
        name: record.name.clone(),
        size: record.size,
        source: record.source.clone(),
        qos: record.qos,
        block_size: record.block_size,
        hosts: record
            .exports
            .iter()
            .map(|export| export.host.clone())
            .collect(),
    }
}

/// The UUID of an id, if it is one of this backend's.
pub(crate) fn uuid_of(backend: &str, handle: &str) -> Option<Uuid> {
    (backend == NAME).then(|| Uuid::try_parse(handle).ok())?
}

/// What is different about a volume that has the name already.
fn difference(there: &VolumeRecord, wanted: &CreateVolume) -> Option<String> {
    let (size, range) = (there.created_size, &wanted.size);
    if !range.has(size) {
        let limit = range
            .limit
            .map_or_else(String::new, |limit| format!(" and at most {limit}"));
        return Some(format!(
            "size: it has {size} bytes, asked for are at least {}{limit}",
            range.required
        ));
    }
    if there.source != wanted.source {
        return Some(format!(
            "source: it was made from {}, asked for is {}",
            there.source, wanted.source
        ));
    }
    if there.block_size != wanted.block_size {
        return Some(format!(
            "block size: it has {}, asked for is {}",
            there.block_size, wanted.block_size
        ));
    }
    (there.write_cache != wanted.write_cache).then(|| {
        let has = if there.write_cache {
            "has one"
        } else {
            "has none"
        };
        format!("write cache: it {has}")
    })
}

impl Inner {
    /// The record of a volume.
    pub(crate) fn volume(&self, id: &VolumeId) -> Result<(Uuid, VolumeRecord)> {
        let found = uuid_of(id.backend(), id.handle()).and_then(|uuid| {
            let record = self.catalogue.state().volumes.get(&uuid).cloned()?;
            Some((uuid, record))
        });
        found.ok_or_else(|| Error::not_found(id))
    }

    pub(crate) fn get(&self, id: &VolumeId) -> Result<Volume> {
        let (uuid, record) = self.volume(id)?;
        Ok(view(uuid, &record))
    }

    pub(crate) fn list(&self, max: usize, token: Option<&str>) -> Result<Page<Volume>> {
        let state = self.catalogue.state();
        Page::of(
            state
                .volumes
                .iter()
                .map(|(uuid, record)| (*uuid, view(*uuid, record))),
            max,
            token,
        )
    }

    fn pool(&self) -> Result<Pool> {
        let dir = &self.config.dir;
        let statistics = nix::sys::statvfs::statvfs(dir)
            .map_err(|errno| failed(&format!("backend {NAME}"), dir, &errno.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(statistics.fragment_size());
        Ok(Pool {
            total: bytes(statistics.blocks()),
            free: bytes(statistics.blocks_available()),
            promised: self.catalogue.state().promised(),
            percent: self.config.percent,
            reserve: self.config.reserve,
            bounds: (UNIT, LARGEST),
        })
    }

    pub(crate) fn capacity(&self) -> Result<Capacity> {
        Ok(self.pool()?.capacity())
    }

    /// Whether `more` bytes may be promised.
    pub(crate) fn has_room(&self, object: &str, more: u64) -> Result<()> {
        let pool = self.pool()?;
        let available = pool.capacity().available;
        if pool.free <= pool.reserve {
            return Err(Error::NoSpace {
                object: object.to_owned(),
                why: format!(
                    "{} bytes are free, {} stay for the volumes that exist",
                    pool.free, pool.reserve
                ),
            });
        }
        if more <= available {
            return Ok(());
        }
        Err(Error::NoSpace {
            object: object.to_owned(),
            why: format!("{more} more bytes asked for, {available} may still be promised"),
        })
    }

    pub(crate) async fn create(&self, wanted: CreateVolume) -> Result<Volume> {
        check_name("name", &wanted.name)?;
        wanted.qos.check()?;
        if ![512, 4096].contains(&wanted.block_size) {
            return Err(Error::invalid(
                "blockSize",
                &wanted.block_size,
                "512 or 4096",
            ));
        }
        let object = format!("volume {:?}", wanted.name);
        let _name = self.lock([&object]).await?;
        if let Some((uuid, there)) = by_name(&self.catalogue.state(), &wanted.name) {
            return match difference(there, &wanted) {
                None => Ok(view(uuid, there)),
                Some(differs) => Err(Error::AlreadyExists { object, differs }),
            };
        }
        let source = match &wanted.source {
            Source::Blank => None,
            Source::Snapshot(id) => Some(self.snapshot_uuid(id)?),
            Source::Volume(id) => Some(self.volume(id)?.0),
        };
        // Neither deleted nor merged meanwhile.
        let _source = self.lock(source.iter()).await?;
        let least = self.source_size(&wanted.source)?;
        let default = self.config.default_size.max(least);
        let size = wanted.size.choose(&object, default, UNIT, LARGEST)?;
        if size < least {
            let why = format!("{size} bytes are less than its source has: {least}");
            return Err(Error::OutOfRange { object, why });
        }
        self.has_room(&object, size)?;
        let (uuid, (files, _held)) = (Uuid::new_v4(), self.new_files(2));
        let record = VolumeRecord {
            name: wanted.name.clone(),
            size,
            created_size: size,
            source: wanted.source.clone(),
            qos: wanted.qos,
            block_size: wanted.block_size,
            write_cache: wanted.write_cache,
            top: files[0],
            exports: Vec::new(),
            port: None,
        };
        let steps = self
            .creation(&wanted.source, source, uuid, record, files[1])
            .await?;
        self.perform(&object, steps).await?;
        self.is_sure(uuid, true);
        self.get(&volume_id(uuid))
    }

    async fn creation(
        &self,
        source: &Source,
        of: Option<Uuid>,
        uuid: Uuid,
        record: VolumeRecord,
        file: FileId,
    ) -> Result<Vec<Step>> {
        match (source, of) {
            (Source::Volume(id), Some(of)) => {
                self.ensure(of).await?;
                self.short_enough(id, of)?;
                let state = self.catalogue.state();
                plan::clone(&state, of, file, uuid, record).ok_or_else(|| Error::not_found(id))
            }
            (Source::Snapshot(id), Some(of)) => {
                let state = self.catalogue.state();
                let (snapshot, _) = state.snapshot(of).ok_or_else(|| Error::not_found(id))?;
                Ok(plan::create(uuid, record, Some(snapshot.file)))
            }
            _ => Ok(plan::create(uuid, record, None)),
        }
    }

    fn source_size(&self, source: &Source) -> Result<u64> {
        Ok(match source {
            Source::Blank => 0,
            Source::Volume(id) => self.volume(id)?.1.size,
            Source::Snapshot(id) => self.get_snapshot(id)?.size,
        })
    }

    /// Another file fits onto the volume's chain.
    pub(crate) fn short_enough(&self, object: &impl ToString, uuid: Uuid) -> Result<()> {
        let state = self.catalogue.state();
        let files = state
            .volumes
            .get(&uuid)
            .map_or(0, |volume| state.chain(volume.top).len());
        let most = self.config.max_chain;
        if files < most {
            return Ok(());
        }
        Err(Error::OutOfRange {
            object: object.to_string(),
            why: format!(
                "its contents lie in {files} files, at most {most} are allowed: delete snapshots"
            ),
        })
    }

    pub(crate) async fn delete(&self, id: &VolumeId) -> Result<()> {
        let Some(uuid) = uuid_of(id.backend(), id.handle()) else {
            return Ok(());
        };
        let _lock = self.lock([uuid]).await?;
        let Ok((_, record)) = self.volume(id) else {
            return Ok(());
        };
        if let Some(export) = record.exports.first() {
            let by = format!("host {:?}, to which it is exported", export.host);
            return Err(Error::InUse {
                object: id.to_string(),
                by,
            });
        }
        self.ensure(uuid).await?;
        self.perform(&id.to_string(), vec![Step::NoVolume(uuid)])
            .await?;
        self.is_sure(uuid, true);
        Ok(())
    }

    pub(crate) async fn expand(&self, id: &VolumeId, size: SizeRange) -> Result<Volume> {
        let (uuid, _) = self.volume(id)?;
        let _lock = self.lock([uuid]).await?;
        let (_, record) = self.volume(id)?;
        let object = id.to_string();
        if record.size >= size.required {
            if !size.has(record.size) {
                let why = format!(
                    "it has {} bytes already, and volumes never shrink",
                    record.size
                );
                return Err(Error::OutOfRange { object, why });
            }
            self.ensure(uuid).await?;
            return self.get(id);
        }
        let size = size.choose(&object, record.size, UNIT, LARGEST)?;
        self.has_room(&object, size - record.size)?;
        self.ensure(uuid).await?;
        self.perform(&object, plan::change(uuid, VolumeRecord { size, ..record }))
            .await?;
        self.get(id)
    }

    pub(crate) async fn modify(&self, id: &VolumeId, qos: Qos) -> Result<Volume> {
        qos.check()?;
        let (uuid, _) = self.volume(id)?;
        let _lock = self.lock([uuid]).await?;
        let (_, record) = self.volume(id)?;
        self.ensure(uuid).await?;
        if record.qos != qos {
            let steps = plan::change(uuid, VolumeRecord { qos, ..record });
            self.perform(&id.to_string(), steps).await?;
        }
        self.get(id)
    }

    pub(crate) async fn health(&self, id: &VolumeId) -> Result<Health> {
        let (uuid, record) = self.volume(id)?;
        let path = image_path(&self.config, record.top);
        if let Err(why) = tokio::fs::metadata(&path).await {
            let sentence = format!(
                "{id}: its image {}: {why}; restore it, or delete the volume",
                path.display()
            );
            return Ok(Health::Abnormal(sentence));
        }
        if record.exports.is_empty() {
            return Ok(Health::Normal);
        }
        let daemon = self.engine.get(&daemon_id(uuid), soon()).await;
        Ok(match daemon {
            Ok(Some(daemon)) if daemon.state == engine::State::Running => Health::Normal,
            Ok(Some(daemon)) => Health::Abnormal(format!(
                "{id}: its daemon {} is not running ({:?}); outboard-engine tries again: see its log",
                daemon.id, daemon.state
            )),
            Ok(None) => Health::Abnormal(format!("{id}: it has no daemon; publish it again")),
            Err(why) => Health::Abnormal(format!("{id}: its daemon's state is unknown: {why}")),
        })
    }
}

fn by_name<'a>(state: &'a State, name: &str) -> Option<(Uuid, &'a VolumeRecord)> {
    let mut all = state.volumes.iter();
    all.find(|(_, volume)| volume.name == name)
        .map(|(uuid, volume)| (*uuid, volume))
}
