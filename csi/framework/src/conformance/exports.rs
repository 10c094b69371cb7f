//! Exports: nobody but the hosts that were let in, and nobody after he was shut out.

use super::{Harness, MIB, attach, blank, delete, detach, must, refused};
use crate::error::Error;
use crate::export::Access;
use crate::volume::Volume;

async fn unexport(harness: &dyn Harness, volume: &Volume, host: usize) {
    let backend = harness.backend().await;
    let done = backend.unexport(&volume.id, &harness.host(host).name).await;
    must(done, "unexport");
}

pub(super) async fn one_host_at_a_time(harness: &dyn Harness) {
    let volume = blank(harness, "exported", 8 * MIB).await;
    let (a, b) = (harness.host(0), harness.host(1));
    let export = async |host, access| {
        harness
            .backend()
            .await
            .export(&volume.id, host, access, false)
            .await
    };
    let target = must(export(&a, Access::ReadWrite).await, "export");
    assert_eq!(
        export(&a, Access::ReadWrite).await,
        Ok(target),
        "the same call, the same target"
    );
    let other = |e: &Error| matches!(e, Error::AlreadyExists { .. });
    refused(
        export(&a, Access::ReadOnly).await,
        other,
        "another access for the same host",
    );
    let used = |e: &Error| matches!(e, Error::InUse { .. });
    refused(export(&b, Access::ReadWrite).await, used, "a second host");
    refused(
        harness.backend().await.delete(&volume.id).await,
        used,
        "delete an exported volume",
    );
    let exports = must(
        harness.backend().await.exports(&volume.id).await,
        "list exports",
    );
    let hosts: Vec<_> = exports.iter().map(|export| &export.host).collect();
    assert_eq!(hosts, [&a.name]);
    let seen = must(harness.backend().await.get(&volume.id).await, "get");
    assert!(seen.hosts.iter().eq([&a.name]), "{seen:?}");
    unexport(harness, &volume, 0).await;
    unexport(harness, &volume, 0).await;
    unexport(harness, &volume, 2).await;
    must(
        export(&b, Access::ReadWrite).await,
        "export to the next host",
    );
    unexport(harness, &volume, 1).await;
    delete(harness, &volume).await;
    unexport(harness, &volume, 1).await;
}

pub(super) async fn unexport_is_a_fence(harness: &dyn Harness) {
    let volume = blank(harness, "fenced", 8 * MIB).await;
    let mut first = attach(harness, &volume, 0).await;
    must(first.write(0, 4096, 1).await, "write");
    unexport(harness, &volume, 0).await;
    assert!(
        first.write(0, 4096, 2).await.is_err(),
        "a host that was shut out wrote"
    );
    let mut second = attach(harness, &volume, 1).await;
    assert_eq!(second.read(0).await, Ok(1));
    assert!(
        first.write(0, 4096, 3).await.is_err(),
        "a host that was shut out wrote"
    );
    first.close().await;
    must(second.write(0, 4096, 4).await, "the other host writes");
    assert_eq!(second.read(0).await, Ok(4));
    detach(harness, &volume, 1, second).await;
    delete(harness, &volume).await;
}

pub(super) async fn read_only(harness: &dyn Harness) {
    let volume = blank(harness, "read-only", 8 * MIB).await;
    let host = harness.host(0);
    let backend = harness.backend().await;
    let target = must(
        backend
            .export(&volume.id, &host, Access::ReadOnly, false)
            .await,
        "export",
    );
    if let Ok(mut disk) = harness.connect(&target, &host).await {
        assert!(
            disk.write(0, 4096, 1).await.is_err(),
            "a host that may only read wrote"
        );
        disk.close().await;
    }
    unexport(harness, &volume, 0).await;
    delete(harness, &volume).await;
}

pub(super) async fn survive_a_restart(harness: &dyn Harness) {
    let volume = blank(harness, "restart", 8 * MIB).await;
    let mut disk = attach(harness, &volume, 0).await;
    must(disk.write(0, 4096, 1).await, "write");
    let backend = harness.restart().await;
    must(
        disk.write(4096, 4096, 2).await,
        "write while and after the backend was restarted",
    );
    assert_eq!(disk.read(0).await, Ok(1));
    let host = harness.host(0);
    let target = backend
        .export(&volume.id, &host, Access::ReadWrite, false)
        .await;
    must(
        harness.connect(&must(target, "export again"), &host).await,
        "connect again",
    )
    .close()
    .await;
    assert_eq!(
        disk.read(4096).await,
        Ok(2),
        "a repeated export disturbs nobody"
    );
    detach(harness, &volume, 0, disk).await;
    delete(harness, &volume).await;
}

pub(super) async fn several_hosts(harness: &dyn Harness) {
    let volume = blank(harness, "shared", 8 * MIB).await;
    let mut disks = Vec::new();
    for n in 0..2 {
        let host = harness.host(n);
        let target = harness
            .backend()
            .await
            .export(&volume.id, &host, Access::ReadWrite, true)
            .await;
        let target = must(target, "export to several hosts");
        disks.push(must(harness.connect(&target, &host).await, "connect"));
    }
    let third = harness.backend().await;
    let third = third
        .export(&volume.id, &harness.host(2), Access::ReadWrite, false)
        .await;
    refused(
        third,
        |e| matches!(e, Error::InUse { .. }),
        "a host that wants it alone",
    );
    must(disks[0].write(0, 4096, 5).await, "the first writes");
    assert_eq!(disks[1].read(0).await, Ok(5), "the second sees it");
    unexport(harness, &volume, 0).await;
    assert!(
        disks[0].write(0, 4096, 6).await.is_err(),
        "a host that was shut out wrote"
    );
    let host = harness.host(1);
    let target = harness
        .backend()
        .await
        .export(&volume.id, &host, Access::ReadWrite, true)
        .await;
    let mut again = must(
        harness.connect(&must(target, "export again"), &host).await,
        "the other connects",
    );
    assert_eq!(again.read(0).await, Ok(5));
    again.close().await;
    for disk in disks {
        disk.close().await;
    }
    unexport(harness, &volume, 1).await;
    delete(harness, &volume).await;
}
