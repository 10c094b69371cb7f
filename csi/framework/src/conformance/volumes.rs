//! Volumes: once by name, whoever asks how often.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::{Harness, MIB, attach, blank, contents, delete, detach, must, patient, refused};
use crate::error::Error;
use crate::identity::{VolumeId, serial};
use crate::volume::{CreateVolume, SizeRange, Source};

pub(super) async fn made_once(harness: &dyn Harness) {
    let volume = blank(harness, "once", 16 * MIB).await;
    assert!(
        volume.size >= 16 * MIB,
        "smaller than asked for: {volume:?}"
    );
    assert_eq!(serial(volume.id.uuid()).len(), 20);
    let again = blank(harness, "once", 16 * MIB).await;
    assert_eq!(again, volume, "the same call gives the same volume");
    let backend = harness.restart().await;
    assert_eq!(
        must(backend.get(&volume.id).await, "get after a restart"),
        volume
    );
    let other = CreateVolume::blank(&volume.name, 64 * MIB);
    refused(
        backend.create(other).await,
        |e| matches!(e, Error::AlreadyExists { .. }),
        "other size",
    );
    let mut limited = CreateVolume::blank(&volume.name, 1);
    limited.size.limit = Some(MIB);
    refused(
        backend.create(limited).await,
        |e| matches!(e, Error::AlreadyExists { .. }),
        "other limit",
    );
    delete(harness, &volume).await;
    delete(harness, &volume).await;
    let gone = harness.backend().await.get(&volume.id).await;
    refused(
        gone,
        |e| matches!(e, Error::NotFound { .. }),
        "get what was deleted",
    );
    let new = blank(harness, "once", MIB).await;
    assert_ne!(
        new.id, volume.id,
        "a new volume of an old name is not the old one"
    );
    assert_eq!(
        contents(harness, &new, [0, MIB - 512]).await,
        [0, 0],
        "a blank volume is zeros"
    );
    delete(harness, &new).await;
}

pub(super) async fn made_at_the_same_time(harness: &dyn Harness) {
    let made = join_all((0..8).map(|_| async {
        patient(async || {
            let wanted = CreateVolume::blank("conformance-same", 4 * MIB);
            harness.backend().await.create(wanted).await
        })
        .await
    }));
    let made: Vec<_> = made
        .await
        .into_iter()
        .map(|volume| must(volume, "create at once"))
        .collect();
    let ids: BTreeSet<_> = made.iter().map(|volume| &volume.id).collect();
    assert_eq!(ids.len(), 1, "eight equal calls made {ids:?}");
    let deleted = join_all((0..4).map(|_| async {
        patient(async || harness.backend().await.delete(&made[0].id).await).await
    }));
    for deleted in deleted.await {
        must(deleted, "delete at once");
    }
    let many = join_all((0..8).map(|n| async move {
        let volume = blank(harness, &format!("many-{n}"), 4 * MIB).await;
        delete(harness, &volume).await;
    }));
    many.await;
}

pub(super) async fn listed_in_pages(harness: &dyn Harness) {
    let mut volumes = Vec::new();
    for n in 0..5 {
        volumes.push(blank(harness, &format!("page-{n}"), MIB).await);
    }
    let (mut seen, mut token) = (Vec::new(), None::<String>);
    loop {
        let page = harness.backend().await.list(2, token.as_deref()).await;
        let page = must(page, "list a page");
        assert!(
            page.items.len() <= 2,
            "a page of two has {}",
            page.items.len()
        );
        seen.extend(page.items.into_iter().map(|volume| volume.id));
        token = page.next;
        if token.is_none() {
            break;
        }
        // What goes in the middle of a walk disturbs it not.
        if seen.len() == 2
            && let Some(gone) = volumes.iter().position(|volume| seen.contains(&volume.id))
        {
            delete(harness, &volumes.remove(gone)).await;
        }
    }
    for volume in &volumes {
        assert_eq!(
            seen.iter().filter(|id| **id == volume.id).count(),
            1,
            "{} in the list",
            volume.id
        );
    }
    let bad = harness.backend().await.list(2, Some("not-a-token")).await;
    refused(
        bad,
        |e| matches!(e, Error::Token { .. }),
        "a token of somebody else",
    );
    for volume in &volumes {
        delete(harness, volume).await;
    }
}

pub(super) async fn bad_requests(harness: &dyn Harness) {
    let backend = harness.backend().await;
    let foreign = must(VolumeId::new("nobody", "x"), "an id");
    must(backend.delete(&foreign).await, "delete what never was");
    refused(
        backend.get(&foreign).await,
        |e| matches!(e, Error::NotFound { .. }),
        "get a foreign id",
    );
    for name in ["", &"x".repeat(129), "a\0b"] {
        let made = backend.create(CreateVolume::blank(name, MIB)).await;
        refused(made, |e| matches!(e, Error::Invalid { .. }), "a bad name");
    }
    let unicode = blank(harness, "../ä/ %", MIB).await;
    delete(harness, &unicode).await;
    let huge = CreateVolume::blank("conformance-huge", u64::MAX);
    let full = |e: &Error| matches!(e, Error::OutOfRange { .. } | Error::NoSpace { .. });
    refused(
        backend.create(huge).await,
        full,
        "a volume larger than the world",
    );
    let mut range = CreateVolume::blank("conformance-range", 2 * MIB);
    range.size.limit = Some(MIB);
    refused(
        backend.create(range).await,
        |e| matches!(e, Error::OutOfRange { .. }),
        "a range of nothing",
    );
    let lost = CreateVolume::from("conformance-lost", MIB, Source::Volume(foreign));
    refused(
        backend.create(lost).await,
        |e| matches!(e, Error::NotFound { .. }),
        "a source that never was",
    );
}

pub(super) async fn grown(harness: &dyn Harness, online: bool) {
    let volume = blank(harness, "grown", 8 * MIB).await;
    let mut disk = attach(harness, &volume, 0).await;
    must(disk.write(0, 4096, 7).await, "write");
    detach(harness, &volume, 0, disk).await;
    let expand = async |size| {
        let grown = harness
            .backend()
            .await
            .expand(&volume.id, SizeRange::at_least(size))
            .await;
        must(grown, "expand").size
    };
    for _ in 0..2 {
        assert_eq!(expand(16 * MIB).await, 16 * MIB);
    }
    assert_eq!(expand(4 * MIB).await, 16 * MIB, "a volume never shrinks");
    assert_eq!(contents(harness, &volume, [0, 15 * MIB]).await, [7, 0]);
    if online {
        let disk = attach(harness, &volume, 0).await;
        assert_eq!(expand(32 * MIB).await, 32 * MIB);
        disk.close().await;
        let mut disk = attach(harness, &volume, 0).await;
        must(
            disk.write(31 * MIB, 4096, 9).await,
            "write behind the old end",
        );
        assert_eq!(disk.read(0).await, Ok(7));
        detach(harness, &volume, 0, disk).await;
    }
    delete(harness, &volume).await;
}
