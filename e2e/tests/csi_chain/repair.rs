//! Disks that are missing or dead: the next NodeStage or NodePublish has them brought back.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::storage::calls::Usage;
use e2e::storage::{Chain, Program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::csi::v1::{
    ControllerGetVolumeHealthRequest, NodeStageVolumeRequest, VolumeHealthErrorType,
};
use tonic::Code;

use crate::world::{MIB, fill, sum, sweep, two_hosts};

/// The loop device over a file.
fn loop_over(file: &Path) -> Option<PathBuf> {
    let mut all = std::fs::read_dir("/sys/block").unwrap().flatten();
    let found = all.find(|entry| {
        let backing = std::fs::read_to_string(entry.path().join("loop/backing_file"));
        backing.is_ok_and(|backing| Path::new(backing.trim()) == file)
    });
    found.map(|entry| Path::new("/dev").join(entry.file_name()))
}

fn kill_daemon(chain: &Chain, host: usize, id: &str) {
    let daemons = chain.daemons(host).unwrap();
    let daemon = daemons.iter().find(|daemon| daemon.id == id).unwrap();
    kill(Pid::from_raw(daemon.pid.unwrap()), Signal::SIGKILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_missing_is_brought_back() {
    let mut chain = two_hosts(false);
    let calls = chain.clients();
    for (host, name) in [(0, "at-home"), (1, "away")] {
        let volume = calls.create(name, 32 * MIB, &[]).await.unwrap();
        let context = calls.publish(&volume, host).await.unwrap();
        let file = Path::new(&context["address"]).to_owned();
        let take_away = || {
            let device = loop_over(&file).unwrap();
            let detached = Command::new("losetup")
                .arg("-d")
                .arg(device)
                .status()
                .unwrap();
            assert!(detached.success());
        };
        take_away();
        assert_eq!(loop_over(&file), None);
        calls.stage(&volume, host, &context).await.unwrap();
        let there = calls
            .node_publish(&volume, host, &context, "a")
            .await
            .unwrap();
        let written = fill(&chain, host, &there.target.join("data"), 4);
        calls.node_unpublish(&volume, host, "a").await.unwrap();
        calls.unstage(&volume, host).await.unwrap();

        // Nobody there who could: said, with who it is.
        take_away();
        chain.kill(host, Program::NodeDpu).unwrap();
        let mut request = tonic::Request::new(NodeStageVolumeRequest {
            volume_id: volume.id.clone(),
            publish_context: context.clone(),
            staging_target_path: calls.staging(&volume, host).display().to_string(),
            volume_capability: Some(volume.usage.capability()),
            ..NodeStageVolumeRequest::default()
        });
        request.set_timeout(Duration::from_secs(3));
        let refused = calls
            .node(host)
            .node_stage_volume(request)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        let says = refused.message();
        assert!(
            says.contains("did not appear") && says.contains("It was not repaired"),
            "{says}"
        );
        chain.spawn(host, Program::NodeDpu, &[]).unwrap();
        calls.stage(&volume, host, &context).await.unwrap();
        let there = calls
            .node_publish(&volume, host, &context, "a")
            .await
            .unwrap();
        assert_eq!(sum(&chain, host, &there.target.join("data"), 4), written);
        calls.down(&volume, host, "a").await.unwrap();
        calls.delete(&volume).await.unwrap();
    }
    sweep(&chain, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_daemon_died_is_replaced_at_the_next_publish() {
    let chain = two_hosts(true);
    let calls = chain.clients();
    for usage in [Usage::files("ext4"), Usage::block()] {
        for (host, prefix) in [(0, "v-"), (1, "c-")] {
            let name = format!("dies-{host}-{}", usage.file_system.is_none());
            let volume = calls
                .create_for(&name, 32 * MIB, usage.clone())
                .await
                .unwrap();
            let there = calls.up(&volume, host, "a").await.unwrap();
            let data = match usage.file_system {
                Some(_) => there.target.join("data"),
                None => there.target.clone(),
            };
            let written = fill(&chain, host, &data, 4);
            kill_daemon(&chain, host, &format!("{prefix}{}", volume.uuid()));
            let told = calls.node_health(&volume, host, "a").await.unwrap();
            assert_eq!(
                told[0].status(),
                VolumeHealthErrorType::Inaccessible,
                "{told:?}"
            );
            // As kubelet does it when the pod is made anew: it takes the volume for staged.
            calls
                .node_publish(&volume, host, &there.context, "a")
                .await
                .unwrap();
            assert_eq!(sum(&chain, host, &data, 4), written);
            assert_eq!(calls.node_health(&volume, host, "a").await.unwrap(), []);
            // csi-controller has it from the card's side.
            let ask = ControllerGetVolumeHealthRequest {
                volume_id: volume.id.clone(),
                ..ControllerGetVolumeHealthRequest::default()
            };
            let told = calls.controller().controller_get_volume_health(ask).await;
            let health = told.unwrap().into_inner().volume_health.unwrap();
            assert_eq!(health.health_statuses, []);
            calls.down(&volume, host, "a").await.unwrap();
            calls.delete(&volume).await.unwrap();
        }
    }
    sweep(&chain, &[]);
}

/// The bridge comes back when the dead mount is gone already, and the kernel has forgotten what the loop device was over.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_died_while_the_bridge_was_away_leaves_nothing() {
    let mut chain = two_hosts(false);
    let calls = chain.clients();
    for (host, prefix) in [(0, "v-"), (1, "c-")] {
        let name = format!("unseen-{host}");
        let volume = calls.create(&name, 32 * MIB, &[]).await.unwrap();
        let there = calls.up(&volume, host, "a").await.unwrap();
        let data = there.target.join("data");
        let written = fill(&chain, host, &data, 4);
        chain.kill(host, Program::Bridge).unwrap();
        kill_daemon(&chain, host, &format!("{prefix}{}", volume.uuid()));
        let file = Path::new(&there.context["address"]).to_owned();
        e2e::until("the end of the dead mount", Duration::from_secs(20), || {
            Ok(loop_over(&file).is_none().then_some(()))
        })
        .unwrap();
        // For so long the kernel answers from its cache for a file of FUSE.
        tokio::time::sleep(Duration::from_secs(2)).await;
        chain.spawn(host, Program::Bridge, &[]).unwrap();
        calls
            .node_publish(&volume, host, &there.context, "a")
            .await
            .unwrap();
        assert_eq!(sum(&chain, host, &data, 4), written);
        calls.down(&volume, host, "a").await.unwrap();
        calls.delete(&volume).await.unwrap();
    }
    sweep(&chain, &[]);
}
