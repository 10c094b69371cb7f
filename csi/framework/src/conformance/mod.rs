//! The suite that any backend is run through, with real hosts that read and write.
//!
//! [`run`] panics with a sentence at the first thing that is wrong. Cases that need a capability are left out where the
//! backend has not got it. Each case takes the backend anew for every call, so that a [`Harness`] may kill and restart it in
//! between. Objects have names that begin with `conformance-`; at the end none is left.

mod exports;
mod groups;
mod qos;
mod snapshots;
mod volumes;
mod written;

use std::fmt::{Debug, Display};
use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::export::{Access, Host, Target};
use crate::volume::{CreateVolume, Volume};

/// What the suite needs around the backend.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The backend, which may be another process than at the last call.
    async fn backend(&self) -> Arc<dyn Backend>;
    /// The backend after it was killed and started again.
    async fn restart(&self) -> Arc<dyn Backend>;
    /// A host that can use a target; 0 to 2.
    fn host(&self, number: usize) -> Host;
    /// Connects a host.
    async fn connect(
        &self,
        target: &Target,
        host: &Host,
    ) -> std::result::Result<Box<dyn Disk>, String>;
    /// What is left on the backend's side now that every object was deleted: files, daemons, exports.
    async fn leaks(&self) -> Vec<String>;
}

/// A connected host.
#[async_trait]
pub trait Disk: Send {
    /// Writes `length` bytes of `value`, durably.
    async fn write(
        &mut self,
        offset: u64,
        length: u64,
        value: u8,
    ) -> std::result::Result<(), String>;
    /// Reads 512 bytes, which must be equal, and returns what they are.
    async fn read(&mut self, offset: u64) -> std::result::Result<u8, String>;
    /// Disconnects.
    async fn close(self: Box<Self>);
}

pub(crate) const MIB: u64 = 1 << 20;

/// Runs the whole suite.
///
/// # Panics
/// When the backend does anything else than it should.
pub async fn run(harness: &dyn Harness) {
    let able = harness.backend().await.capabilities();
    volumes::made_once(harness).await;
    volumes::made_at_the_same_time(harness).await;
    volumes::listed_in_pages(harness).await;
    volumes::bad_requests(harness).await;
    exports::one_host_at_a_time(harness).await;
    exports::unexport_is_a_fence(harness).await;
    exports::read_only(harness).await;
    exports::survive_a_restart(harness).await;
    written::what_was_written_is_never_denied(harness).await;
    if able.multi {
        exports::several_hosts(harness).await;
    }
    if able.expand {
        volumes::grown(harness, able.expand_online).await;
    }
    if able.qos {
        qos::limits_change(harness).await;
    }
    if able.snapshots {
        snapshots::made_once(harness).await;
        snapshots::hold_what_was_written(harness).await;
        snapshots::chains_in_any_order(harness).await;
    }
    if able.clones {
        written::copies_are_written(harness).await;
        snapshots::clones(harness).await;
    }
    if able.groups {
        groups::made_once(harness).await;
        groups::keep_the_order_of_writes(harness).await;
    }
    let leaks = harness.leaks().await;
    assert!(leaks.is_empty(), "left behind: {leaks:#?}");
}

/// The value, or a panic that says what was tried.
#[track_caller]
pub(crate) fn must<T, E: Display>(result: std::result::Result<T, E>, tried: &str) -> T {
    match result {
        Ok(value) => value,
        Err(why) => panic!("{tried}: {why}"),
    }
}

/// The error is of the given variant.
#[track_caller]
pub(crate) fn refused<T: Debug>(result: Result<T>, variant: fn(&Error) -> bool, tried: &str) {
    match result {
        Err(error) if variant(&error) => {}
        other => panic!("{tried}: wrongly answered {other:?}"),
    }
}

/// Repeats a call that meets another one.
pub(crate) async fn patient<T, F>(mut call: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    loop {
        match call().await {
            Err(Error::Busy { .. }) => {}
            other => return other,
        }
    }
}

pub(crate) async fn blank(harness: &dyn Harness, name: &str, size: u64) -> Volume {
    let name = format!("conformance-{name}");
    let backend = harness.backend().await;
    must(
        backend.create(CreateVolume::blank(&name, size)).await,
        "create a volume",
    )
}

pub(crate) async fn delete(harness: &dyn Harness, volume: &Volume) {
    must(
        harness.backend().await.delete(&volume.id).await,
        "delete a volume",
    );
}

/// Exports the volume to a host alone and connects.
pub(crate) async fn attach(harness: &dyn Harness, volume: &Volume, host: usize) -> Box<dyn Disk> {
    let host = harness.host(host);
    let backend = harness.backend().await;
    let target = backend
        .export(&volume.id, &host, Access::ReadWrite, false)
        .await;
    let target = must(target, "export a volume");
    must(harness.connect(&target, &host).await, "connect to a volume")
}

pub(crate) async fn detach(
    harness: &dyn Harness,
    volume: &Volume,
    host: usize,
    disk: Box<dyn Disk>,
) {
    disk.close().await;
    let host = harness.host(host);
    let backend = harness.backend().await;
    must(
        backend.unexport(&volume.id, &host.name).await,
        "unexport a volume",
    );
}

/// What a volume holds at the given places.
pub(crate) async fn contents<const N: usize>(
    harness: &dyn Harness,
    volume: &Volume,
    at: [u64; N],
) -> [u8; N] {
    let mut disk = attach(harness, volume, 0).await;
    let mut values = [0; N];
    for (value, offset) in values.iter_mut().zip(at) {
        *value = must(disk.read(offset).await, "read");
    }
    detach(harness, volume, 0, disk).await;
    values
}
