//! Was anything ever written? A backend may say yes without knowing, but never no.

use super::{Harness, MIB, attach, blank, delete, detach, must, refused};
use crate::error::Error;
use crate::identity::VolumeId;
use crate::volume::{CreateVolume, Source, Volume};

async fn written(harness: &dyn Harness, volume: &Volume) -> bool {
    let asked = harness.backend().await.written(&volume.id).await;
    must(asked, "ask whether anything was written")
}

pub(super) async fn what_was_written_is_never_denied(harness: &dyn Harness) {
    let volume = blank(harness, "written", 8 * MIB).await;
    for (offset, length) in [(0, 512), (8 * MIB - 512, 512), (4 * MIB, 65536)] {
        let volume = blank(harness, &format!("written-{offset}"), 8 * MIB).await;
        let before = written(harness, &volume).await;
        let disk = attach(harness, &volume, 0).await;
        assert!(
            written(harness, &volume).await,
            "a host has it, and may write at any moment"
        );
        detach(harness, &volume, 0, disk).await;
        assert_eq!(
            written(harness, &volume).await,
            before,
            "a host that has not written changes nothing"
        );
        let mut disk = attach(harness, &volume, 0).await;
        must(disk.write(offset, length, 7).await, "write");
        detach(harness, &volume, 0, disk).await;
        assert!(written(harness, &volume).await, "written at {offset}");
        harness.restart().await;
        assert!(written(harness, &volume).await, "after a restart");
        delete(harness, &volume).await;
    }
    delete(harness, &volume).await;
    let nobody = must(VolumeId::new(volume.id.backend(), "x"), "an id");
    for gone in [&volume.id, &nobody] {
        let asked = harness.backend().await.written(gone).await;
        let not_found = |e: &Error| matches!(e, Error::NotFound { .. });
        refused(asked, not_found, "ask about what is not there");
    }
}

pub(super) async fn copies_are_written(harness: &dyn Harness) {
    let source = blank(harness, "written-source", 8 * MIB).await;
    let mut disk = attach(harness, &source, 0).await;
    must(disk.write(0, 512, 7).await, "write");
    detach(harness, &source, 0, disk).await;
    let wanted = CreateVolume::from(
        "conformance-written-copy",
        0,
        Source::Volume(source.id.clone()),
    );
    let copy = must(harness.backend().await.create(wanted).await, "clone");
    for volume in [&source, &copy] {
        assert!(written(harness, volume).await, "{}", volume.name);
        delete(harness, volume).await;
    }
}
