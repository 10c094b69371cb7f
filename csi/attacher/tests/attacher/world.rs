//! volume-attacher as a process in a directory of its own, and its card.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use proto::attacher::v1::volume_attacher_client::VolumeAttacherClient;
use proto::attacher::v1::*;
use proto::volume::v1::{
    BlockDeviceSource, Exposure, LocalBlockDevice, NvmeFunction, Source, exposure, source,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::card::Fake;

pub(crate) const UUID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

pub(crate) struct World {
    pub(crate) card: Fake,
    home: TempDir,
    served: Option<Runtime>,
    attacher: Child,
}

pub(crate) type Client = VolumeAttacherClient<Channel>;

impl World {
    pub(crate) async fn new() -> Self {
        Self::dying_at("").await
    }

    /// The attacher ends itself at `step`.
    pub(crate) async fn dying_at(step: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let card = Fake::new();
        let served = Some(card.serve(&home.path().join("bridge.sock")).await);
        let attacher = start(&home, step);
        let world = Self {
            card,
            home,
            served,
            attacher,
        };
        world.up().await;
        world
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("run/attacher.sock")
    }

    pub(crate) fn client(&self) -> Client {
        VolumeAttacherClient::new(proto::uds::channel(self.socket()))
    }

    async fn up(&self) {
        self.until("the attacher answers", async |client| {
            client.list(ListRequest::default()).await.is_ok()
        })
        .await;
    }

    /// Asks until it holds, for ten seconds.
    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn(&mut Client) -> bool) {
        let mut client = self.client();
        for _ in 0..500 {
            if holds(&mut client).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not in ten seconds: {what}");
    }

    /// Waits for the attacher's death at its step; then a new one is started.
    pub(crate) async fn reborn(&mut self) {
        for _ in 0..500 {
            if self.attacher.try_wait().unwrap().is_some() {
                return self.restart().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not die");
    }

    /// kill -9, and a new one.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.attacher = start(&self.home, "");
        self.up().await;
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.attacher.kill();
        self.attacher.wait().unwrap();
    }

    pub(crate) async fn start(&mut self) {
        self.attacher = start(&self.home, "");
        self.up().await;
    }

    /// The journal's disk is lost.
    pub(crate) fn forget_journal(&self) {
        std::fs::remove_dir_all(self.home.path().join("state/attachments")).unwrap();
    }

    /// The card's service goes away with all its connections; what it has stays.
    pub(crate) fn card_down(&mut self) {
        if let Some(runtime) = self.served.take() {
            runtime.shutdown_background();
        }
    }

    pub(crate) async fn card_up(&mut self) {
        let socket = self.home.path().join("bridge.sock");
        self.served = Some(self.card.serve(&socket).await);
    }

    pub(crate) async fn state(&self) -> Option<State> {
        let mut client = self.client();
        let page = client.list(ListRequest::default()).await.ok()?.into_inner();
        Some(page.attachments.first()?.state())
    }

    pub(crate) async fn until_state(&self, wanted: State) {
        let what = format!("state {wanted:?}");
        self.until(&what, async |_| self.state().await == Some(wanted))
            .await;
    }

    /// No attachment, no object on the card, no journal.
    pub(crate) async fn nothing_left(&self) {
        self.until("nothing is left", async |client| {
            let page = client.list(ListRequest::default()).await;
            page.is_ok_and(|page| page.into_inner().attachments.is_empty())
                && self.card.state().is_empty()
        })
        .await;
        let journal = std::fs::read_dir(self.home.path().join("state/attachments")).unwrap();
        let left: Vec<_> = journal
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".json"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
        self.card_down();
    }
}

fn start(home: &TempDir, step: &str) -> Child {
    let at = |name: &str| home.path().join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_volume-attacher"));
    command
        .args([
            "run",
            "--host",
            "n1",
            "--admin-address",
            "127.0.0.1:0",
            "--bridge",
        ])
        .arg(at("bridge.sock"))
        .arg("--state")
        .arg(at("state"))
        .arg("--socket")
        .arg(at("run/attacher.sock"))
        .stdin(Stdio::null());
    if !step.is_empty() {
        command.env("OUTBOARD_KILL_AT", step);
    }
    command.spawn().unwrap()
}

pub(crate) fn id() -> Option<AttachmentId> {
    Some(AttachmentId {
        host: "n1".to_owned(),
        volume_uuid: UUID.to_owned(),
    })
}

pub(crate) fn spec() -> AttachmentSpec {
    let kind = source::Kind::BlockDevice(BlockDeviceSource {
        path: "/dev/x".to_owned(),
    });
    AttachmentSpec {
        source: Some(Source { kind: Some(kind) }),
        exposure: Some(Exposure {
            kind: Some(exposure::Kind::LocalBlockDevice(LocalBlockDevice::default())),
        }),
        ..AttachmentSpec::default()
    }
}

pub(crate) fn nvme() -> AttachmentSpec {
    AttachmentSpec {
        exposure: Some(Exposure {
            kind: Some(exposure::Kind::NvmeFunction(NvmeFunction::default())),
        }),
        ..spec()
    }
}

pub(crate) async fn attach(
    client: &mut Client,
    spec: AttachmentSpec,
) -> Result<Attachment, Status> {
    attach_to(client, UUID, spec).await
}

pub(crate) async fn attach_to(
    client: &mut Client,
    uuid: &str,
    spec: AttachmentSpec,
) -> Result<Attachment, Status> {
    let id = AttachmentId {
        volume_uuid: uuid.to_owned(),
        ..id().unwrap()
    };
    let request = AttachRequest {
        id: Some(id),
        spec: Some(spec),
    };
    Ok(client
        .attach(request)
        .await?
        .into_inner()
        .attachment
        .unwrap())
}

pub(crate) async fn detach(client: &mut Client, mode: DetachMode) -> Result<(), Status> {
    let mut request = DetachRequest {
        id: id(),
        ..DetachRequest::default()
    };
    request.set_mode(mode);
    client.detach(request).await.map(drop)
}

pub(crate) async fn resize(client: &mut Client, size_bytes: u64) -> Result<u64, Status> {
    let request = ResizeRequest {
        id: id(),
        size_bytes,
    };
    let attachment = client.resize(request).await?.into_inner().attachment;
    Ok(attachment.unwrap().device.unwrap().size_bytes)
}

pub(crate) fn within<T>(message: T, time: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(time);
    request
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, says: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(says), "{status}");
}
