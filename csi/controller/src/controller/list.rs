//! ListVolumes and ListSnapshots: pages over all backends. A token is `<backend>/<the backend's token>`.

use framework::{Backend, Page, SnapshotFilter};
use futures::future::BoxFuture;
use proto::csi::v1::list_volumes_response::{self, VolumeStatus};
use proto::csi::v1::{
    ListSnapshotsRequest, ListSnapshotsResponse, ListVolumesRequest, ListVolumesResponse,
    list_snapshots_response,
};
use proto::deadline::Deadline;
use tonic::Status;

use super::{snapshot, volume};
use crate::backends::{Backends, Served};
use crate::driver::Driver;
use crate::request::{map, max_entries, text};
use crate::status::{self, Answer};

/// Volumes with the nodes that have them.
pub(super) async fn volumes(
    driver: &Driver,
    request: &ListVolumesRequest,
    _: Deadline,
) -> Answer<ListVolumesResponse> {
    let max = max_entries(request.max_entries)?;
    let (found, next_token) = pages(
        &driver.backends,
        max,
        &request.starting_token,
        |backend, max, token| backend.list(max, token),
    )
    .await?;
    let entries = found
        .into_iter()
        .map(|(served, one)| list_volumes_response::Entry {
            volume: Some(volume::message(driver, served, &one)),
            status: Some(VolumeStatus {
                published_node_ids: one.hosts,
            }),
        });
    Ok(ListVolumesResponse {
        entries: entries.collect(),
        next_token,
    })
}

/// Snapshots, members of groups too. An id that does not exist: an empty list.
pub(super) async fn snapshots(
    driver: &Driver,
    request: &ListSnapshotsRequest,
    _: Deadline,
) -> Answer<ListSnapshotsResponse> {
    let max = max_entries(request.max_entries)?;
    text("snapshot_id", &request.snapshot_id)?;
    text("source_volume_id", &request.source_volume_id)?;
    map("secrets", &request.secrets)?;
    let mut filter = SnapshotFilter::default();
    if !request.snapshot_id.is_empty() {
        let Ok(id) = request.snapshot_id.parse() else {
            return Ok(ListSnapshotsResponse::default());
        };
        filter.id = Some(id);
    }
    if !request.source_volume_id.is_empty() {
        let Ok(id) = request.source_volume_id.parse() else {
            return Ok(ListSnapshotsResponse::default());
        };
        filter.volume = Some(id);
    }
    let filter = &filter;
    let (found, next_token) = pages(
        &driver.backends,
        max,
        &request.starting_token,
        |backend, max, token| backend.list_snapshots(filter, max, token),
    )
    .await?;
    let entries = found.iter().map(|(_, one)| list_snapshots_response::Entry {
        snapshot: Some(snapshot::message(one)),
    });
    Ok(ListSnapshotsResponse {
        entries: entries.collect(),
        next_token,
    })
}

type Read<'f, T> = BoxFuture<'f, framework::Result<Page<T>>>;

/// At most `max` entries (0: all) from `token` on, and the token of what comes after them.
async fn pages<'d, 'f, T>(
    backends: &'d Backends,
    max: usize,
    token: &'f str,
    read: impl Fn(&'d dyn Backend, usize, Option<&'f str>) -> Read<'f, T> + Send,
) -> Answer<(Vec<(&'d Served, T)>, String)>
where
    'd: 'f,
{
    text("starting_token", token)?;
    let (start, mut inner) = match token.split_once('/') {
        _ if token.is_empty() => (None, None),
        Some((backend, inner)) => (Some(backend), Some(inner)),
        None => return Err(bad(token)),
    };
    if start.is_some_and(|start| backends.of_id(start).is_none()) {
        return Err(bad(token));
    }
    let mut found = Vec::new();
    for served in backends
        .iter()
        .skip_while(|one| start.is_some_and(|start| one.backend.name() != start))
    {
        let name = served.backend.name();
        let left = if max == 0 { 0 } else { max - found.len() };
        if max != 0 && left == 0 {
            return Ok((found, format!("{name}/")));
        }
        let page = read(&*served.backend, left, inner.take())
            .await
            .map_err(status::of)?;
        found.extend(page.items.into_iter().map(|one| (served, one)));
        if let Some(next) = page.next {
            return Ok((found, format!("{name}/{next}")));
        }
    }
    Ok((found, String::new()))
}

fn bad(token: &str) -> Status {
    Status::aborted(format!(
        "starting_token {token:?} is not one of this driver's; read the list from its beginning"
    ))
}
