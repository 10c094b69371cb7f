//! Everything on the card that bears our prefix.

use std::collections::BTreeMap;

use proto::card::v1::{ListLocalDevicesRequest, ListSourcesRequest};
use proto::opi::storage::v1::{ListNvmeSubsystemsRequest, ListVirtioBlksRequest};
use proto::volume::v1::ExposureKind;
use tonic::Code;

use super::{Card, call};
use crate::failure::Failure;
use crate::id;

/// Ids of objects of ours, each with the kind of exposure that it has; a bare source counts as a local device.
pub(crate) type Objects = BTreeMap<String, ExposureKind>;

impl Card {
    /// All of them.
    pub(crate) async fn objects(&self) -> Result<Objects, Failure> {
        let mut objects = Objects::new();
        let mut add = |name: &str, kind| {
            if let Some(object) = id::object_of(name) {
                objects.insert(object.to_owned(), kind);
            }
        };
        let mut page_token = String::new();
        loop {
            let mut card = self.card.clone();
            let asked = ListSourcesRequest {
                page_size: 0,
                page_token,
            };
            let page = call("listing the sources", asked, |r| async move {
                card.list_sources(r).await
            })
            .await?;
            for source in page.sources {
                add(&source.name, ExposureKind::LocalBlockDevice);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        loop {
            let mut card = self.card.clone();
            let asked = ListLocalDevicesRequest {
                page_size: 0,
                page_token,
            };
            let page = call("listing the local devices", asked, |r| async move {
                card.list_local_devices(r).await
            })
            .await?;
            for device in page.local_devices {
                add(&device.name, ExposureKind::LocalBlockDevice);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        loop {
            let mut nvme = self.nvme.clone();
            let asked = ListNvmeSubsystemsRequest {
                page_size: 0,
                page_token,
            };
            let page = call("listing the subsystems", asked, |r| async move {
                nvme.list_nvme_subsystems(r).await
            })
            .await;
            let Some(page) = offered(page)? else { break };
            for subsystem in page.nvme_subsystems {
                add(&subsystem.name, ExposureKind::NvmeFunction);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        page_token = String::new();
        loop {
            let mut blk = self.blk.clone();
            let asked = ListVirtioBlksRequest {
                page_size: 0,
                page_token,
            };
            let page = call("listing the virtio-blk devices", asked, |r| async move {
                blk.list_virtio_blks(r).await
            })
            .await;
            let Some(page) = offered(page)? else { break };
            for device in page.virtio_blks {
                add(&device.name, ExposureKind::VirtioBlkFunction);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(objects)
    }
}

/// A card that can't have such objects has none.
fn offered<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Err(failure) if failure.code == Code::Unimplemented => Ok(None),
        other => other.map(Some),
    }
}
