//! What is known about a volume beside what the backend knows: the parameters that it was made with, and whether it may
//! still be formatted.
//!
//! **Fresh.** A node may only make a file system on a disk of which it is told that nothing was ever written to it: a
//! disk that merely reads as empty may be a broken one. A blank volume is fresh until it has been given to a host for
//! writing; then it is fresh for that publication alone (a repeated ControllerPublishVolume has the same answer, and the
//! node looks at the disk, too). Which host that is is written down before the host is told. Once it was taken away there
//! the backend is asked whether anything was written, before the next host gets it (`controller::publish`): a pod that was
//! sent elsewhere before its volume was staged must not leave a volume that nobody may ever format. So it is with a volume
//! that was made from another one or a snapshot, which may have been empty.
//! A record that is missing means "not fresh": with the records lost no disk is formatted.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use framework::Access;
use journal::Journal;
use serde::{Deserialize, Serialize};
use tonic::Status;
use uuid::Uuid;

use crate::request::parameters::Parameters;
use crate::status::Answer;

/// Names are any text: the key of a record is UUIDv5 of it in this name space.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f75_7462_6f61_7264_8000_0063_7369_6e61);

/// Of one volume, by its name, so that it can be written before the volume is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Its name.
    pub(crate) name: String,
    /// In which backend it is.
    pub(crate) backend: String,
    /// Of its StorageClass. `None`: not known.
    pub(crate) parameters: Option<Parameters>,
    /// Of its VolumeAttributesClass when it was made.
    #[serde(default)]
    pub(crate) mutable: Parameters,
    /// The claim that it was made for; only of a volume with a vhost-user-blk socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claim: Option<String>,
    /// Whether it may be formatted.
    pub(crate) fresh: Fresh,
}

/// Whether a volume may be formatted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fresh {
    /// Nothing was ever written.
    Untouched,
    /// This host was the first, and still is.
    At(String),
    /// Not known: the volume is or was about to be taken from that host, or was made from something else.
    Unsure,
    /// Something was written, or nobody knows.
    No,
}

impl Fresh {
    /// What to write down before a host is given the volume, and whether the host may format.
    fn publish(&self, node: &str, access: Access) -> (Self, bool) {
        match self {
            _ if access == Access::ReadOnly => (self.clone(), false),
            Self::Untouched => (Self::At(node.to_owned()), true),
            Self::At(first) => (self.clone(), first == node),
            // Another one has it, too.
            Self::Unsure => (Self::Unsure, false),
            Self::No => (Self::No, false),
        }
    }

    /// What to write down before a volume is taken from a host.
    fn unpublish(&self, node: &str) -> Self {
        match self {
            Self::At(first) if first == node => Self::Unsure,
            other => other.clone(),
        }
    }

    /// What to write down once it is known, and no host has the volume.
    fn settle(&self, written: bool) -> Self {
        match self {
            Self::Unsure if written => Self::No,
            Self::Unsure => Self::Untouched,
            other => other.clone(),
        }
    }
}

/// The records. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Records(Arc<Journal<Record>>);

impl Records {
    /// Opens the directory.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let boot = journal::boot_id().context("reading the boot id")?;
        let journal = Journal::open(dir.join("volumes"), boot).context("--state")?;
        Ok(Self(Arc::new(journal)))
    }

    /// Records of an earlier life: those without a volume go, and a volume without a record (they were lost) gets one that
    /// allows nothing. `volumes`: name and backend of each.
    pub(crate) fn sweep(
        &self,
        volumes: impl IntoIterator<Item = (String, String)>,
    ) -> anyhow::Result<()> {
        let mut there = BTreeSet::new();
        for (name, backend) in volumes {
            let key = key(&name);
            if self.0.get(&key).is_none() {
                tracing::warn!(
                    volume = name,
                    "a volume of which nothing is known: it will not be formatted"
                );
                let fresh = Fresh::No;
                let record = Record {
                    name,
                    backend,
                    parameters: None,
                    mutable: Parameters::new(),
                    claim: None,
                    fresh,
                };
                self.0.insert(&key, record)?;
            }
            there.insert(key);
        }
        for (key, _) in self.0.iter().filter(|(key, _)| !there.contains(key)) {
            self.0.remove(&key)?;
        }
        Ok(())
    }

    /// The record of a volume.
    pub(crate) fn get(&self, name: &str) -> Option<Record> {
        self.0.get(&key(name)).map(|record| record.value.clone())
    }

    /// Writes a record before its volume is made. Durable when this returns.
    pub(crate) async fn insert(&self, record: Record) -> Answer<()> {
        self.write(move |journal| journal.insert(&key(&record.name), record).map(drop))
            .await
    }

    /// Forgets a volume that is gone.
    pub(crate) async fn remove(&self, name: &str) -> Answer<()> {
        let key = key(name);
        self.write(move |journal| journal.remove(&key).map(drop))
            .await
    }

    /// Writes down that a host is given the volume. Whether it may format.
    pub(crate) async fn publish(&self, name: &str, node: &str, access: Access) -> Answer<bool> {
        let Some(record) = self.get(name) else {
            return Ok(false);
        };
        let (next, fresh) = record.fresh.publish(node, access);
        self.change(record, next).await?;
        Ok(fresh)
    }

    /// Writes down that the volume is taken from a host.
    pub(crate) async fn unpublish(&self, name: &str, node: &str) -> Answer<()> {
        let Some(record) = self.get(name) else {
            return Ok(());
        };
        let next = record.fresh.unpublish(node);
        self.change(record, next).await
    }

    /// Whether it has to be found out if anything was written before a host gets the volume for writing.
    pub(crate) fn is_unsure(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|record| record.fresh == Fresh::Unsure)
    }

    /// Writes down what was found out while no host had the volume.
    pub(crate) async fn settle(&self, name: &str, written: bool) -> Answer<()> {
        let Some(record) = self.get(name) else {
            return Ok(());
        };
        let next = record.fresh.settle(written);
        self.change(record, next).await
    }

    async fn change(&self, record: Record, fresh: Fresh) -> Answer<()> {
        if record.fresh == fresh {
            return Ok(());
        }
        let record = Record { fresh, ..record };
        self.write(move |journal| journal.update(&key(&record.name), record).map(drop))
            .await
    }

    async fn write(
        &self,
        work: impl FnOnce(&Journal<Record>) -> Result<(), journal::Error> + Send + 'static,
    ) -> Answer<()> {
        let journal = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&journal)).await;
        let failed = |why: &dyn std::fmt::Display| {
            Status::unavailable(format!(
                "the record of the volume can't be written: {why}; repair --state, then call again"
            ))
        };
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(failed(&why)),
            Err(why) => Err(failed(&why)),
        }
    }
}

fn key(name: &str) -> String {
    Uuid::new_v5(&NAMESPACE, name.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RW: Access = Access::ReadWrite;

    #[test]
    fn only_the_first_writer_may_format_and_only_while_it_is_published() {
        let (next, fresh) = Fresh::Untouched.publish("a", Access::ReadOnly);
        assert_eq!((&next, fresh), (&Fresh::Untouched, false));
        let (next, fresh) = next.publish("a", RW);
        assert_eq!((&next, fresh), (&Fresh::At("a".into()), true));
        assert_eq!(
            next.publish("a", RW),
            (Fresh::At("a".into()), true),
            "repeated"
        );
        assert_eq!(
            next.publish("b", RW),
            (Fresh::At("a".into()), false),
            "another one"
        );
        assert_eq!(next.unpublish("b"), Fresh::At("a".into()));
        let next = next.unpublish("a");
        assert_eq!(
            next.publish("b", RW),
            (Fresh::Unsure, false),
            "not found out yet"
        );
        assert_eq!(next.unpublish("a"), Fresh::Unsure);
        assert_eq!(next.settle(true).publish("a", RW), (Fresh::No, false));
        assert_eq!(
            next.settle(false).publish("b", RW),
            (Fresh::At("b".into()), true),
            "nobody wrote"
        );
        for settled in [Fresh::No, Fresh::Untouched, Fresh::At("a".into())] {
            assert_eq!(settled.settle(true), settled);
            assert_eq!(settled.settle(false), settled);
        }
    }

    #[tokio::test]
    async fn lost_records_mean_not_fresh_and_those_of_nothing_go() {
        let dir = tempfile::tempdir().unwrap();
        let record = |name: &str| Record {
            name: name.into(),
            backend: "local".into(),
            parameters: None,
            mutable: Parameters::new(),
            claim: None,
            fresh: Fresh::Untouched,
        };
        let records = Records::open(dir.path()).unwrap();
        records.insert(record("kept")).await.unwrap();
        records.insert(record("gone")).await.unwrap();
        let local = |name: &str| (name.to_owned(), "local".to_owned());
        records.sweep([local("kept"), local("lost")]).unwrap();
        drop(records);
        let records = Records::open(dir.path()).unwrap();
        assert_eq!(records.get("kept").unwrap().fresh, Fresh::Untouched);
        assert_eq!(records.get("lost").unwrap().fresh, Fresh::No);
        assert_eq!(records.get("gone"), None);
        assert!(!records.publish("gone", "a", RW).await.unwrap());
        assert!(records.publish("kept", "a", RW).await.unwrap());
        records.remove("kept").await.unwrap();
        assert_eq!(records.get("kept"), None);
    }
}
