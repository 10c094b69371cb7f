//! The vhost-user-blk socket in a pod's volume: real mounts, a real socket, a pod that plants links.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::{NodePublishVolumeRequest, NodeStageVolumeRequest};
use tonic::{Code, Request, Status};

use super::request::{block, files, publish, refused, stage, unpublish, unstage};
use super::world::{Disk, MIB, World, eventually};

const VOLUME: &str = "hook-sidecar-sockets";

/// A volume with a socket, as its card has it.
struct Scene {
    disk: Disk,
    directory: PathBuf,
    _daemon: UnixListener,
}

impl Scene {
    fn new(world: &World) -> Self {
        let disk = world.disk(8 * MIB);
        let directory = world.home().join(format!("exports/{}.vhost", disk.uuid));
        fs::create_dir(&directory).unwrap();
        let daemon = UnixListener::bind(directory.join("disk.sock")).unwrap();
        let about = [
            (directory.clone(), 0o750),
            (directory.join("disk.sock"), 0o660),
        ];
        for (path, mode) in about {
            chown(&path, Some(0), Some(107)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        Self {
            disk,
            directory,
            _daemon: daemon,
        }
    }

    fn staged(&self, world: &World) -> NodeStageVolumeRequest {
        let mut staged = stage(world, &self.disk, block(Mode::MultiNodeMultiWriter));
        let directory = self.directory.display().to_string();
        staged
            .publish_context
            .insert("vhost-user-socket".into(), directory);
        staged.volume_context.insert("claim".into(), "data".into());
        staged
    }

    /// As kubelet asks for a raw volume.
    fn published(&self, world: &World, pod: &str) -> NodePublishVolumeRequest {
        let mut published = publish(world, &self.staged(world), "x");
        published.target_path = format!("{}/{pod}", world.dir(&self.disk.uuid.to_string()));
        published
            .volume_context
            .insert("csi.storage.k8s.io/pod.uid".into(), pod.into());
        published
    }

    /// Mounts of the socket's directory: their points below kubelet's root, and their options.
    fn mounts(&self, world: &World) -> Vec<(String, String)> {
        let name = format!("/{}.vhost", self.disk.uuid);
        let table = world.sh("cat /proc/self/mountinfo");
        let lines = table
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let ours = lines.filter(|line| line[3].trim_end_matches("//deleted").ends_with(&name));
        ours.map(|line| {
            let point = line[4].strip_prefix(&world.path("")).unwrap().to_owned();
            (point, line[5].to_owned())
        })
        .collect()
    }

    fn is_shown_once(&self, world: &World, pod: &str) {
        let mounts = self.mounts(world);
        let [(point, options)] = mounts.as_slice() else {
            panic!("{mounts:?}")
        };
        assert_eq!(*point, format!("{}/outboard/blk/data", volume(pod)));
        for option in ["ro", "nosymfollow", "nodev", "noexec", "nosuid"] {
            assert!(options.split(',').any(|o| o == option), "{options}");
        }
    }
}

/// A pod's volume, below kubelet's root.
fn volume(pod: &str) -> String {
    format!("pods/{pod}/volumes/kubernetes.io~empty-dir/{VOLUME}")
}

/// Connects by a directory: the whole path does not fit.
fn connects(world: &World, directory: &str) -> std::io::Result<UnixStream> {
    let directory = File::open(world.seen(directory))?;
    UnixStream::connect(format!("/proc/self/fd/{}/disk.sock", directory.as_raw_fd()))
}

async fn used(world: &World, scene: &Scene, pod: &str) -> Result<(), Status> {
    let mut client = world.client();
    client.node_stage_volume(scene.staged(world)).await?;
    client
        .node_publish_volume(scene.published(world, pod))
        .await?;
    Ok(())
}

async fn left(world: &World, scene: &Scene, pod: &str) -> Result<(), Status> {
    let mut client = world.client();
    let published = scene.published(world, pod);
    client.node_unpublish_volume(unpublish(&published)).await?;
    client
        .node_unstage_volume(unstage(&scene.staged(world)))
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_machines_pod_gets_the_socket_and_can_not_take_it_away() {
    let world = World::new().await;
    let scene = Scene::new(&world);
    let pod = world.dir(&volume("u-1"));
    for _ in 0..2 {
        used(&world, &scene, "u-1").await.unwrap();
        scene.is_shown_once(&world, "u-1");
    }
    let directory = format!("{pod}/outboard/blk/data");
    connects(&world, &directory).unwrap();
    let seen = world.seen(&directory);
    let about = fs::metadata(&seen).unwrap();
    assert_eq!(
        (about.mode() & 0o7777, about.uid(), about.gid()),
        (0o750, 0, 107)
    );
    let taken = fs::remove_file(seen.join("disk.sock")).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let above = fs::metadata(world.seen(&pod).join("outboard")).unwrap();
    assert_eq!((above.mode() & 0o7777, above.uid()), (0o755, 0));

    // Another pod of the node has it, too, and one without the volume has the block device alone.
    world.dir(&volume("u-2"));
    let mut client = world.client();
    for other in ["u-2", "u-3"] {
        client
            .node_publish_volume(scene.published(&world, other))
            .await
            .unwrap();
        assert!(fs::exists(scene.published(&world, other).target_path).unwrap());
    }
    assert_eq!(scene.mounts(&world).len(), 2);
    // Nor does it without the socket, though the pod has the volume.
    let mut plain = scene.published(&world, "u-4");
    world.dir(&volume("u-4"));
    plain.publish_context.remove("vhost-user-socket");
    client.node_publish_volume(plain.clone()).await.unwrap();
    for gone in ["u-2", "u-3", "u-4"] {
        let published = scene.published(&world, gone);
        client
            .node_unpublish_volume(unpublish(&published))
            .await
            .unwrap();
    }
    scene.is_shown_once(&world, "u-1");
    for _ in 0..2 {
        left(&world, &scene, "u-1").await.unwrap();
    }
    assert!(world.mounts().is_empty(), "{:?}", world.mounts());
    assert!(!fs::exists(&directory).unwrap());
    assert!(fs::exists(scene.directory.join("disk.sock")).unwrap());
}

#[tokio::test]
async fn what_a_pod_plants_is_refused_and_what_it_moves_is_found() {
    let world = World::new().await;
    let scene = Scene::new(&world);
    let pod = PathBuf::from(world.dir(&volume("u-1")));
    let elsewhere = PathBuf::from(world.dir("elsewhere"));
    let mut client = world.client();
    client
        .node_stage_volume(scene.staged(&world))
        .await
        .unwrap();
    let published = scene.published(&world, "u-1");
    for (planted, says) in [
        ("outboard", "outboard is a symbolic link"),
        ("outboard/blk", "blk is a symbolic link"),
        ("outboard/blk/data", "data is a symbolic link"),
    ] {
        fs::create_dir_all(pod.join(planted).parent().unwrap()).unwrap();
        symlink(&elsewhere, pod.join(planted)).unwrap();
        let result = client.node_publish_volume(published.clone()).await;
        refused(result, Code::FailedPrecondition, says);
        fs::remove_file(pod.join(planted)).unwrap();
        fs::write(pod.join(planted), "").unwrap();
        let result = client.node_publish_volume(published.clone()).await;
        refused(result, Code::FailedPrecondition, "is no directory");
        fs::remove_file(pod.join(planted)).unwrap();
    }
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert!(scene.mounts(&world).is_empty());

    // Moved, and a link in its place that leads to a mount of somebody else's.
    client.node_publish_volume(published.clone()).await.unwrap();
    let other = world.dir("elsewhere/blk/data");
    world.sh(&format!("mount -t tmpfs other {other}"));
    let (before, after) = (pod.join("outboard"), pod.join("moved"));
    world.sh(&format!(
        "mv {} {}; ln -s {} {}",
        before.display(),
        after.display(),
        elsewhere.display(),
        before.display()
    ));
    assert_eq!(
        scene.mounts(&world)[0].0,
        format!("{}/moved/blk/data", volume("u-1"))
    );
    let result = client.node_publish_volume(published.clone()).await;
    refused(result, Code::FailedPrecondition, "is a symbolic link");
    assert!(scene.mounts(&world).is_empty(), "it is in no other place");
    client
        .node_unpublish_volume(unpublish(&published))
        .await
        .unwrap();
    assert_eq!(
        world.sh("grep -c ' - tmpfs other ' /proc/self/mountinfo"),
        "1"
    );
    world.sh(&format!("umount {other}; rm {}", before.display()));

    // The same once more: by NodeUnpublishVolume alone, and after the card took its directory away.
    client.node_publish_volume(published.clone()).await.unwrap();
    scene.is_shown_once(&world, "u-1");
    world.sh(&format!(
        "rm -rf {0}; mv {1} {1}-2",
        after.display(),
        before.display()
    ));
    fs::remove_dir_all(&scene.directory).unwrap();
    assert_eq!(scene.mounts(&world).len(), 1);
    left(&world, &scene, "u-1").await.unwrap();
    assert!(world.mounts().is_empty(), "{:?}", world.mounts());
    let result = client.node_publish_volume(published.clone()).await;
    refused(result, Code::Unavailable, "--exports-dir");
    left(&world, &scene, "u-1").await.unwrap();
}

#[tokio::test]
async fn another_life_of_the_cards_directory_is_shown_in_place_of_the_former() {
    let world = World::new().await;
    let mut scene = Scene::new(&world);
    let pod = world.dir(&volume("u-1"));
    used(&world, &scene, "u-1").await.unwrap();
    fs::remove_dir_all(&scene.directory).unwrap();
    let directory = format!("{pod}/outboard/blk/data");
    assert!(connects(&world, &directory).is_err());
    fs::create_dir(&scene.directory).unwrap();
    scene._daemon = UnixListener::bind(scene.directory.join("disk.sock")).unwrap();
    used(&world, &scene, "u-1").await.unwrap();
    scene.is_shown_once(&world, "u-1");
    connects(&world, &directory).unwrap();
    left(&world, &scene, "u-1").await.unwrap();
}

/// Waits for the socket in a pod. Without an event it would take longer than `eventually` waits.
async fn comes(world: &World, scene: &Scene, pod: &str) {
    let point = format!("{}/outboard/blk/data", volume(pod));
    eventually("the socket is shown", || {
        scene.mounts(world).iter().any(|(at, _)| *at == point)
    })
    .await;
}

#[tokio::test]
async fn a_socket_comes_however_late_the_pods_volume_is() {
    let mut world = World::new().await;
    let scene = Scene::new(&world);
    // While kubelet's call waits.
    let late = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.dir(&volume("u-1"));
    };
    let (shown, ()) = tokio::join!(used(&world, &scene, "u-1"), late);
    shown.unwrap();
    scene.is_shown_once(&world, "u-1");
    left(&world, &scene, "u-1").await.unwrap();

    // Long after it; nothing of the pods is there at first. u-2 waits, too, and goes before its volume comes.
    let began = Instant::now();
    for pod in ["u-4", "u-2"] {
        used(&world, &scene, pod).await.unwrap();
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "kubelet's volume manager must not be held up"
    );
    let published = scene.published(&world, "u-2");
    let mut client = world.client();
    client
        .node_unpublish_volume(unpublish(&published))
        .await
        .unwrap();
    for (pod, kill) in [("u-4", false), ("u-5", true)] {
        used(&world, &scene, pod).await.unwrap();
        assert!(scene.mounts(&world).is_empty());
        if kill {
            world.start(&[], None).await;
        }
        let all = volume(pod);
        let steps: Vec<_> = all.match_indices('/').map(|(at, _)| &all[..at]).collect();
        for step in steps.into_iter().chain([&*all]) {
            world.dir(step);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.dir(&volume("u-2"));
        comes(&world, &scene, pod).await;
        scene.is_shown_once(&world, pod);
        let directory = world.path(&format!("{}/outboard/blk/data", volume(pod)));
        connects(&world, &directory).unwrap();
        left(&world, &scene, pod).await.unwrap();
        assert!(world.mounts().is_empty(), "{:?}", world.mounts());
    }
    let notes = fs::read_dir(world.home().join("run/sockets")).unwrap();
    let mut notes = notes.map(|note| note.unwrap().file_name());
    assert!(notes.all(|name| name == ".lock"), "a note is left");
}

#[tokio::test]
async fn a_socket_converges_after_a_kill_at_any_step() {
    let mut world = World::without_program().await;
    let scene = Scene::new(&world);
    world.dir(&volume("u-1"));
    // It dies after kubelet's call was answered.
    world.dir("pods");
    for point in ["socket::begun", "socket::made", "socket::bound"] {
        let pod = format!("late-{}", point.len());
        world.start(&[], Some(point)).await;
        used(&world, &scene, &pod).await.unwrap();
        world.dir(&volume(&pod));
        world.died().await;
        world.start(&[], None).await;
        comes(&world, &scene, &pod).await;
        scene.is_shown_once(&world, &pod);
        left(&world, &scene, &pod).await.unwrap();
        assert!(world.mounts().is_empty(), "{point}: {:?}", world.mounts());
        world.sh(&format!("rm -r {}/*", world.path("pods")));
    }
    for point in ["socket::noted", "socket::forgotten"] {
        world.start(&[], Some(point)).await;
        let cut = match used(&world, &scene, "u-9").await {
            Ok(()) => left(&world, &scene, "u-9").await,
            cut => cut,
        };
        assert!(cut.is_err(), "{point} was not reached");
        world.died().await;
        world.start(&[], None).await;
        left(&world, &scene, "u-9").await.unwrap();
        world.dir(&volume("u-9"));
        used(&world, &scene, "u-9").await.unwrap();
        scene.is_shown_once(&world, "u-9");
        left(&world, &scene, "u-9").await.unwrap();
        assert!(world.mounts().is_empty(), "{point}: {:?}", world.mounts());
        world.sh(&format!("rm -r {}/*", world.path("pods")));
    }
    world.dir(&volume("u-1"));
    let points = [
        "socket::begun",
        "socket::made",
        "publish::halfway",
        "socket::bound",
        "socket::unmounted",
    ];
    for point in points {
        world.start(&[], Some(point)).await;
        let cut = match used(&world, &scene, "u-1").await {
            Ok(()) => left(&world, &scene, "u-1").await,
            cut => cut,
        };
        assert!(cut.is_err(), "{point} was not reached");
        world.died().await;
        world.start(&[], None).await;
        used(&world, &scene, "u-1").await.unwrap();
        scene.is_shown_once(&world, "u-1");
        left(&world, &scene, "u-1").await.unwrap();
        assert!(world.mounts().is_empty(), "{point}: {:?}", world.mounts());
        // The pod may be gone before anybody is told.
        used(&world, &scene, "u-1").await.unwrap();
        world.start(&[], Some(point)).await;
        let _ = left(&world, &scene, "u-1").await;
        world.start(&[], None).await;
        left(&world, &scene, "u-1").await.unwrap();
        assert!(world.mounts().is_empty(), "{point}: {:?}", world.mounts());
    }
}

#[tokio::test]
async fn a_claim_that_does_not_fit_and_a_file_system_have_no_socket() {
    let world = World::new().await;
    let scene = Scene::new(&world);
    world.dir(&volume("u-1"));
    let mut client = world.client();
    let mut long = scene.published(&world, "u-1");
    long.volume_context.insert("claim".into(), "c".repeat(61));
    let result = client.node_publish_volume(long).await;
    refused(result, Code::FailedPrecondition, "at most 60 characters");
    let mut mounted = scene.published(&world, "u-1");
    mounted.volume_capability = files("ext4", Mode::SingleNodeWriter, &[]);
    client
        .node_publish_volume(Request::new(mounted.clone()))
        .await
        .unwrap();
    assert!(scene.mounts(&world).is_empty());
    left(&world, &scene, "u-1").await.unwrap();
}
