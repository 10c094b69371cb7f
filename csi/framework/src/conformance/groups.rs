//! Groups: one moment for all members.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Disk, Harness, MIB, attach, blank, contents, delete, detach, must, refused};
use crate::error::Error;
use crate::volume::{CreateVolume, Source};

pub(super) async fn made_once(harness: &dyn Harness) {
    let volumes = [
        blank(harness, "member-0", 8 * MIB).await,
        blank(harness, "member-1", 8 * MIB).await,
    ];
    let ids = volumes.clone().map(|volume| volume.id);
    let name = "conformance-group";
    let make = async || harness.backend().await.group_snapshot(name, &ids).await;
    let group = must(make().await, "group snapshot");
    assert_eq!(
        make().await,
        Ok(group.clone()),
        "the same call, the same group"
    );
    let of: Vec<_> = group
        .snapshots
        .iter()
        .map(|member| member.volume.clone())
        .collect();
    assert_eq!(of, ids);
    let backend = harness.restart().await;
    let fewer = backend.group_snapshot(name, &ids[..1]).await;
    refused(
        fewer,
        |e| matches!(e, Error::AlreadyExists { .. }),
        "the name for other volumes",
    );
    let member = &group.snapshots[0];
    assert_eq!(backend.get_snapshot(&member.id).await, Ok(member.clone()));
    assert_eq!(member.group.as_ref(), Some(&group.id));
    let alone = backend.delete_snapshot(&member.id).await;
    refused(
        alone,
        |e| matches!(e, Error::Invalid { .. }),
        "delete a member alone",
    );
    assert_eq!(
        backend.get_group_snapshot(&group.id).await,
        Ok(group.clone())
    );
    for _ in 0..2 {
        must(
            backend.delete_group_snapshot(&group.id).await,
            "delete a group",
        );
    }
    let gone = backend.get_snapshot(&member.id).await;
    refused(
        gone,
        |e| matches!(e, Error::NotFound { .. }),
        "a member of a deleted group",
    );
    for volume in &volumes {
        delete(harness, volume).await;
    }
}

/// A host writes a number to one volume, then to the other, then the next number: a group never holds a number on the second
/// that the first has not, nor lacks more than one.
pub(super) async fn keep_the_order_of_writes(harness: &dyn Harness) {
    let volumes = [
        blank(harness, "ordered-0", 8 * MIB).await,
        blank(harness, "ordered-1", 8 * MIB).await,
    ];
    let disks = [
        attach(harness, &volumes[0], 0).await,
        attach(harness, &volumes[1], 0).await,
    ];
    let ids = volumes.clone().map(|volume| volume.id);
    let ended = AtomicBool::new(false);
    let (ended, ids) = (&ended, &ids);
    let writer = writer(disks, ended);
    let groups = async {
        let mut groups = Vec::new();
        for n in 0..6 {
            let group = harness
                .backend()
                .await
                .group_snapshot(&format!("conformance-order-{n}"), ids)
                .await;
            groups.push(must(group, "group snapshot under a writer"));
        }
        ended.store(true, Ordering::Relaxed);
        groups
    };
    let ((disks, written, longest), groups) = futures::join!(writer, groups);
    assert!(written > 6, "the writer made {written} rounds only");
    assert!(
        longest < Duration::from_secs(2),
        "a write was paused for {longest:?}"
    );
    for (disk, volume) in disks.into_iter().zip(&volumes) {
        detach(harness, volume, 0, disk).await;
    }
    for group in groups {
        let mut numbers = Vec::new();
        for member in &group.snapshots {
            let source = Source::Snapshot(member.id.clone());
            let wanted = CreateVolume::from("conformance-ordered", 0, source);
            let restored = must(
                harness.backend().await.create(wanted).await,
                "restore a member",
            );
            let [low, high] = contents(harness, &restored, [0, MIB]).await;
            numbers.push(i64::from(low) + 250 * i64::from(high));
            delete(harness, &restored).await;
        }
        let ahead = numbers[0] - numbers[1];
        // The number's two digits are two writes: in between a carry is not there yet.
        assert!(
            matches!(ahead, 0 | 1) || ahead.rem_euclid(250) <= 1,
            "the members hold {numbers:?}"
        );
        must(
            harness
                .backend()
                .await
                .delete_group_snapshot(&group.id)
                .await,
            "delete a group",
        );
    }
    for volume in &volumes {
        delete(harness, volume).await;
    }
}

async fn writer(
    mut disks: [Box<dyn Disk>; 2],
    ended: &AtomicBool,
) -> ([Box<dyn Disk>; 2], u64, Duration) {
    let (mut number, mut longest) = (0u64, Duration::ZERO);
    while !ended.load(Ordering::Relaxed) {
        number += 1;
        for disk in &mut disks {
            let begun = Instant::now();
            must(
                disk.write(MIB, 4096, (number / 250 % 250) as u8).await,
                "write the high digit",
            );
            must(
                disk.write(0, 4096, (number % 250) as u8).await,
                "write the low digit",
            );
            longest = longest.max(begun.elapsed());
        }
    }
    (disks, number, longest)
}
