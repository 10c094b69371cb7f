//! Snapshots and clones: what was written before, whatever is deleted in which order.

use super::{Harness, MIB, attach, blank, contents, delete, detach, must, refused};
use crate::error::Error;
use crate::identity::VolumeId;
use crate::snapshot::{Snapshot, SnapshotFilter};
use crate::volume::{CreateVolume, Source, Volume};

async fn snapshot(harness: &dyn Harness, name: &str, volume: &Volume) -> Snapshot {
    let backend = harness.backend().await;
    must(
        backend
            .snapshot(&format!("conformance-{name}"), &volume.id)
            .await,
        "snapshot",
    )
}

async fn drop_snapshot(harness: &dyn Harness, snapshot: &Snapshot) {
    must(
        harness.backend().await.delete_snapshot(&snapshot.id).await,
        "delete a snapshot",
    );
}

async fn made_from(harness: &dyn Harness, name: &str, size: u64, source: Source) -> Volume {
    let wanted = CreateVolume::from(&format!("conformance-{name}"), size, source);
    must(
        harness.backend().await.create(wanted).await,
        "create from a source",
    )
}

pub(super) async fn made_once(harness: &dyn Harness) {
    let volume = blank(harness, "source", 8 * MIB).await;
    let other = blank(harness, "other-source", 8 * MIB).await;
    let first = snapshot(harness, "snapshot", &volume).await;
    assert_eq!(
        snapshot(harness, "snapshot", &volume).await,
        first,
        "the same call, the same snapshot"
    );
    assert!(first.size >= volume.size && first.volume == volume.id && first.group.is_none());
    let backend = harness.restart().await;
    let elsewhere = backend.snapshot(&first.name, &other.id).await;
    refused(
        elsewhere,
        |e| matches!(e, Error::AlreadyExists { .. }),
        "the name for another volume",
    );
    let nothing = must(
        VolumeId::new(backend.name(), "00000000-0000-4000-8000-000000000000"),
        "an id",
    );
    let lost = backend.snapshot("conformance-lost", &nothing).await;
    refused(
        lost,
        |e| matches!(e, Error::NotFound { .. }),
        "a snapshot of nothing",
    );
    assert_eq!(backend.get_snapshot(&first.id).await, Ok(first.clone()));
    let second = snapshot(harness, "snapshot-2", &volume).await;
    let list = async |filter| {
        let page = harness
            .backend()
            .await
            .list_snapshots(&filter, 0, None)
            .await;
        must(page, "list snapshots").items
    };
    let of = |volume: &Volume| SnapshotFilter {
        volume: Some(volume.id.clone()),
        ..Default::default()
    };
    assert_eq!(list(of(&volume)).await.len(), 2);
    assert!(list(of(&other)).await.is_empty());
    let one = SnapshotFilter {
        id: Some(second.id.clone()),
        ..Default::default()
    };
    assert!(list(one).await.iter().eq([&second]), "list by id");
    let less = made_from(harness, "same", 0, Source::Snapshot(first.id.clone())).await;
    assert!(less.size >= first.size);
    let small = CreateVolume {
        size: crate::SizeRange {
            required: MIB,
            limit: Some(2 * MIB),
        },
        ..CreateVolume::from("conformance-small", 0, Source::Snapshot(first.id.clone()))
    };
    let small = harness.backend().await.create(small).await;
    refused(
        small,
        |e| matches!(e, Error::OutOfRange { .. }),
        "a volume smaller than its source",
    );
    for gone in [&first, &first, &second] {
        drop_snapshot(harness, gone).await;
    }
    let gone = harness.backend().await.get_snapshot(&first.id).await;
    refused(
        gone,
        |e| matches!(e, Error::NotFound { .. }),
        "get what was deleted",
    );
    for volume in [&less, &volume, &other] {
        delete(harness, volume).await;
    }
}

pub(super) async fn hold_what_was_written(harness: &dyn Harness) {
    let volume = blank(harness, "written", 8 * MIB).await;
    let mut disk = attach(harness, &volume, 0).await;
    must(disk.write(0, 2 * MIB, 1).await, "write");
    let first = snapshot(harness, "first", &volume).await;
    must(
        disk.write(MIB, 2 * MIB, 2).await,
        "write on while it is exported",
    );
    let second = snapshot(harness, "second", &volume).await;
    must(disk.write(0, 4096, 3).await, "write on");
    assert_eq!(disk.read(MIB).await, Ok(2));
    detach(harness, &volume, 0, disk).await;
    let places = [0, MIB, 2 * MIB, 4 * MIB];
    let old = made_from(harness, "old", 8 * MIB, Source::Snapshot(first.id.clone())).await;
    assert_eq!(
        contents(harness, &old, places).await,
        [1, 1, 0, 0],
        "the first snapshot"
    );
    let new = made_from(
        harness,
        "new",
        32 * MIB,
        Source::Snapshot(second.id.clone()),
    )
    .await;
    assert_eq!(new.size, 32 * MIB, "larger than its source");
    assert_eq!(
        contents(harness, &new, places).await,
        [1, 2, 2, 0],
        "the second snapshot"
    );
    let mut disk = attach(harness, &new, 1).await;
    must(
        disk.write(31 * MIB, 4096, 8).await,
        "write behind the source's end",
    );
    must(disk.write(0, 4096, 9).await, "write");
    detach(harness, &new, 1, disk).await;
    assert_eq!(
        contents(harness, &volume, places).await,
        [3, 2, 2, 0],
        "the source"
    );
    // The source goes first, then its snapshots.
    delete(harness, &volume).await;
    drop_snapshot(harness, &first).await;
    harness.restart().await;
    drop_snapshot(harness, &second).await;
    assert_eq!(contents(harness, &old, places).await, [1, 1, 0, 0]);
    assert_eq!(
        contents(harness, &new, [0, MIB, 2 * MIB, 31 * MIB]).await,
        [9, 2, 2, 8]
    );
    delete(harness, &new).await;
    delete(harness, &old).await;
}

/// Many snapshots of a volume in use, deleted from the middle, the beginning, the end.
pub(super) async fn chains_in_any_order(harness: &dyn Harness) {
    let volume = blank(harness, "chain", 8 * MIB).await;
    let mut disk = attach(harness, &volume, 0).await;
    let mut snapshots = Vec::new();
    for n in 1..=6u8 {
        must(disk.write(u64::from(n) * MIB, 4096, n).await, "write");
        must(disk.write(0, 4096, n).await, "write");
        snapshots.push(snapshot(harness, &format!("chain-{n}"), &volume).await);
    }
    for gone in [2, 3, 0, 5] {
        drop_snapshot(harness, &snapshots[gone]).await;
        must(
            disk.write(0, 4096, 40 + gone as u8).await,
            "write while files are merged",
        );
        assert_eq!(disk.read(MIB).await, Ok(1));
    }
    let all = [1, 2, 3, 4, 5, 6].map(|n| n * MIB);
    detach(harness, &volume, 0, disk).await;
    assert_eq!(contents(harness, &volume, all).await, [1, 2, 3, 4, 5, 6]);
    for (kept, expected) in [(1, [1, 2, 0, 0, 0, 0]), (4, [1, 2, 3, 4, 5, 0])] {
        let source = Source::Snapshot(snapshots[kept].id.clone());
        let restored = made_from(harness, "restored", 0, source).await;
        assert_eq!(contents(harness, &restored, all).await, expected);
        delete(harness, &restored).await;
        drop_snapshot(harness, &snapshots[kept]).await;
    }
    assert_eq!(contents(harness, &volume, [0, 6 * MIB]).await, [45, 6]);
    delete(harness, &volume).await;
}

pub(super) async fn clones(harness: &dyn Harness) {
    let volume = blank(harness, "cloned", 8 * MIB).await;
    let mut disk = attach(harness, &volume, 0).await;
    must(disk.write(0, MIB, 1).await, "write");
    let source = Source::Volume(volume.id.clone());
    let copy = made_from(harness, "clone", 16 * MIB, source.clone()).await;
    let again = made_from(harness, "clone", 16 * MIB, source).await;
    assert_eq!(copy, again, "the same call, the same clone");
    must(disk.write(0, 4096, 2).await, "write into the source");
    detach(harness, &volume, 0, disk).await;
    let grandchild = made_from(harness, "grandchild", 0, Source::Volume(copy.id.clone())).await;
    assert_eq!(
        contents(harness, &copy, [0, MIB - 512, 15 * MIB]).await,
        [1, 1, 0]
    );
    delete(harness, &copy).await;
    assert_eq!(contents(harness, &volume, [0, MIB - 512]).await, [2, 1]);
    delete(harness, &volume).await;
    assert_eq!(contents(harness, &grandchild, [0, MIB]).await, [1, 0]);
    delete(harness, &grandchild).await;
}
