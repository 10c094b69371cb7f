//! Limits change while the volume is written to.

use std::time::Instant;

use super::{Harness, MIB, attach, blank, delete, detach, must, refused};
use crate::error::Error;
use crate::volume::Qos;

pub(super) async fn limits_change(harness: &dyn Harness) {
    let volume = blank(harness, "limited", 8 * MIB).await;
    let mut disk = attach(harness, &volume, 0).await;
    let slow = Qos {
        write_iops: Some(10),
        ..Qos::default()
    };
    let modify = async |qos| harness.backend().await.modify(&volume.id, qos).await;
    for _ in 0..2 {
        assert_eq!(must(modify(slow).await, "limit").qos, slow);
    }
    let bad = Qos {
        iops: Some(5),
        ..slow
    };
    refused(
        modify(bad).await,
        |e| matches!(e, Error::Invalid { .. }),
        "limits that exclude each other",
    );
    let seen = must(harness.backend().await.get(&volume.id).await, "get");
    assert_eq!(seen.qos, slow, "what is refused changes nothing");
    let begun = Instant::now();
    for n in 0..10 {
        must(disk.write(n * 4096, 4096, 1).await, "write slowly");
    }
    let took = begun.elapsed();
    assert!(
        took.as_millis() >= 500,
        "10 writes at 10 per second took {took:?}"
    );
    must(modify(Qos::default()).await, "lift the limits");
    let begun = Instant::now();
    for n in 0..10 {
        must(disk.write(n * 4096, 4096, 2).await, "write");
    }
    assert!(begun.elapsed() < took, "without limits it is no faster");
    detach(harness, &volume, 0, disk).await;
    delete(harness, &volume).await;
}
