//! Snapshots and groups: made, listed, deleted.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::volumes::{uuid_of, volume_id};
use super::{Inner, NAME, now_ms};
use crate::error::{Error, Result};
use crate::identity::{GroupId, SnapshotId, VolumeId};
use crate::page::Page;
use crate::plan;
use crate::snapshot::{GroupSnapshot, Snapshot, SnapshotFilter};
use crate::state::{GroupRecord, SnapshotRecord, Step};
use crate::volume::check_name;

const RULES: &str = "name and UUID are within the rules";
/// Each member is a connection and a pause; more can't come together in time.
const MEMBERS: usize = 64;

fn view(record: &SnapshotRecord, group: Option<Uuid>) -> Snapshot {
    Snapshot {
        id: SnapshotId::new(NAME, &record.uuid.to_string()).expect(RULES),
        name: record.name.clone(),
        volume: volume_id(record.volume),
        size: record.size,
        created_ms: record.created_ms,
        group: group.map(group_id),
    }
}

fn group_id(uuid: Uuid) -> GroupId {
    GroupId::new(NAME, &uuid.to_string()).expect(RULES)
}

fn group_view(uuid: Uuid, group: &GroupRecord) -> GroupSnapshot {
    GroupSnapshot {
        id: group_id(uuid),
        name: group.name.clone(),
        snapshots: group
            .members
            .iter()
            .map(|member| view(member, Some(uuid)))
            .collect(),
        created_ms: group.created_ms,
    }
}

impl Inner {
    pub(crate) fn snapshot_uuid(&self, id: &SnapshotId) -> Result<Uuid> {
        self.get_snapshot(id)?;
        uuid_of(id.backend(), id.handle()).ok_or_else(|| Error::not_found(id))
    }

    pub(crate) fn get_snapshot(&self, id: &SnapshotId) -> Result<Snapshot> {
        let state = self.catalogue.state();
        let found = uuid_of(id.backend(), id.handle()).and_then(|uuid| state.snapshot(uuid));
        found
            .map(|(record, group)| view(record, group))
            .ok_or_else(|| Error::not_found(id))
    }

    pub(crate) fn list_snapshots(
        &self,
        filter: &SnapshotFilter,
        max: usize,
        token: Option<&str>,
    ) -> Result<Page<Snapshot>> {
        let state = self.catalogue.state();
        let mut all: Vec<_> = state
            .all_snapshots()
            .map(|(record, group)| (record.uuid, view(record, group)))
            .filter(|(_, snapshot)| filter.id.as_ref().is_none_or(|id| *id == snapshot.id))
            .filter(|(_, snapshot)| filter.volume.as_ref().is_none_or(|v| *v == snapshot.volume))
            .collect();
        all.sort_by_key(|(uuid, _)| *uuid);
        Page::of(all.into_iter(), max, token)
    }

    pub(crate) async fn snapshot(&self, name: &str, id: &VolumeId) -> Result<Snapshot> {
        check_name("name", name)?;
        let object = format!("snapshot {name:?}");
        let _name = self.lock([&object]).await?;
        let there = {
            let state = self.catalogue.state();
            state
                .snapshots
                .values()
                .find(|s| s.name == name)
                .map(|s| view(s, None))
        };
        if let Some(there) = there {
            if there.volume == *id {
                return Ok(there);
            }
            let differs = format!("source: it is of {}, asked for is {id}", there.volume);
            return Err(Error::AlreadyExists { object, differs });
        }
        let (volume, _) = self.volume(id)?;
        let _volume = self.lock([volume]).await?;
        self.ensure(volume).await?;
        self.short_enough(id, volume)?;
        self.has_room(&object, 0)?;
        let (uuid, (files, _held)) = (Uuid::new_v4(), self.new_files(1));
        let steps = {
            let state = self.catalogue.state();
            plan::snapshot(&state, volume, files[0], uuid, name, now_ms())
        };
        let steps = steps.ok_or_else(|| Error::not_found(id))?;
        self.perform(&object, steps).await?;
        self.get_snapshot(&SnapshotId::new(NAME, &uuid.to_string()).expect(RULES))
    }

    pub(crate) async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        let Some(uuid) = uuid_of(id.backend(), id.handle()) else {
            return Ok(());
        };
        let _lock = self.lock([uuid]).await?;
        let Ok(there) = self.get_snapshot(id) else {
            return Ok(());
        };
        if let Some(group) = there.group {
            let allowed = format!("a snapshot that is no member of a group; delete {group}");
            return Err(Error::invalid("snapshot_id", id, &allowed));
        }
        self.perform(&id.to_string(), vec![Step::NoSnapshot(uuid)])
            .await
    }

    pub(crate) async fn group_snapshot(
        &self,
        name: &str,
        volumes: &[VolumeId],
    ) -> Result<GroupSnapshot> {
        check_name("name", name)?;
        let distinct: BTreeSet<_> = volumes.iter().collect();
        if volumes.is_empty() || volumes.len() > MEMBERS || distinct.len() < volumes.len() {
            let allowed = format!("1 to {MEMBERS} different volumes");
            return Err(Error::invalid(
                "source_volume_ids",
                &volumes.len(),
                &allowed,
            ));
        }
        let object = format!("group snapshot {name:?}");
        let _name = self.lock([&object]).await?;
        let there = {
            let state = self.catalogue.state();
            let mut all = state.groups.iter();
            all.find(|(_, group)| group.name == name)
                .map(|(uuid, group)| group_view(*uuid, group))
        };
        if let Some(there) = there {
            let of: BTreeSet<_> = there
                .snapshots
                .iter()
                .map(|member| &member.volume)
                .collect();
            if of == distinct {
                return Ok(there);
            }
            let differs = "set of volumes".to_owned();
            return Err(Error::AlreadyExists { object, differs });
        }
        let uuids: Vec<Uuid> = volumes
            .iter()
            .map(|id| self.volume(id).map(|(uuid, _)| uuid))
            .collect::<Result<_>>()?;
        let _volumes = self.lock(&uuids).await?;
        for (id, uuid) in volumes.iter().zip(&uuids) {
            self.ensure(*uuid).await?;
            self.short_enough(id, *uuid)?;
        }
        self.has_room(&object, 0)?;
        let (uuid, (files, _held)) = (Uuid::new_v4(), self.new_files(uuids.len()));
        let members: Vec<_> = uuids
            .iter()
            .zip(files)
            .map(|(volume, file)| (*volume, file, Uuid::new_v4()))
            .collect();
        let steps = {
            let state = self.catalogue.state();
            plan::group(&state, uuid, name, &members, now_ms())
        };
        let steps = steps.ok_or_else(|| Error::not_found("a member of the group"))?;
        self.perform(&object, steps).await?;
        self.get_group_snapshot(&group_id(uuid))
    }

    pub(crate) async fn delete_group_snapshot(&self, id: &GroupId) -> Result<()> {
        let Ok(group) = self.get_group_snapshot(id) else {
            return Ok(());
        };
        let Some(uuid) = uuid_of(id.backend(), id.handle()) else {
            return Ok(());
        };
        let members = group.snapshots.iter().map(|member| member.id.uuid());
        let _lock = self.lock(members.chain([uuid])).await?;
        self.perform(&id.to_string(), vec![Step::NoGroup(uuid)])
            .await
    }

    pub(crate) fn get_group_snapshot(&self, id: &GroupId) -> Result<GroupSnapshot> {
        let state = self.catalogue.state();
        let found = uuid_of(id.backend(), id.handle())
            .and_then(|uuid| Some(group_view(uuid, state.groups.get(&uuid)?)));
        found.ok_or_else(|| Error::not_found(id))
    }
}
