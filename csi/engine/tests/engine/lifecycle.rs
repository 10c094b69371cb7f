//! What the engine promises while nothing is killed but daemons.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use engine::{Change, Error, Recipe, State};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use qemu::Qmp;
use qemu::commands::{
    Address, BlockResize, BlockdevAdd, BlockdevSnapshot, Export, Node, QueryBlockExports,
    QueryNamedBlockNodes,
};

use crate::world::{Io, OWNER, World, disk, export, idle, kill_daemon, put, replaced, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_is_a_pause_and_no_error() {
    let world = World::start(None);
    let client = world.client();
    let image = world.image("a");
    let mut daemon = client.put(&world.nbd("a", &image), soon()).await.unwrap();
    assert_eq!((&daemon.state, daemon.applied), (&State::Running, Some(1)));
    let socket = daemon.nbd_socket();
    let (wishes, mut asked) = tokio::sync::mpsc::channel::<()>(1);
    let writer = std::thread::spawn(move || {
        let mut io = Io::open(&socket);
        for n in 1..=90 {
            if n % 30 == 15 {
                wishes.blocking_send(()).unwrap();
            }
            let answer = io.run(&format!("write -P {n} {}k 4k", n * 4));
            assert!(answer.starts_with("wrote 4096/4096"), "{answer}");
        }
        for n in 1..=90 {
            let answer = io.run(&format!("read -P {n} {}k 4k", n * 4));
            assert!(answer.starts_with("read 4096/4096"), "{answer}");
        }
    });
    while asked.recv().await.is_some() {
        kill_daemon(&daemon);
        let started = std::time::Instant::now();
        daemon = replaced(&client, &daemon).await;
        println!("back after {:?}", started.elapsed());
    }
    writer.join().unwrap();
    client.remove("a", soon()).await.unwrap();
    assert_eq!(client.get("a", soon()).await.unwrap(), None);
    assert!(world.daemons().is_empty() && !world.place("a").exists());
    let checked = Command::new("qemu-img")
        .arg("check")
        .arg(&image)
        .output()
        .unwrap();
    let code = checked.status.code();
    // 3 is leaked clusters: lost space, no lost data.
    assert!(matches!(code, Some(0 | 3)), "{checked:?}");
}

/// qemu-storage-daemon dies of it while a vhost-user-blk export never had a client.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_exported_by_vhost_user_grows_in_its_daemons_first_moment() {
    let world = World::start(None);
    let client = world.client();
    let path = world.home.path().join("v.sock");
    let recipe = Recipe::default()
        .then(&BlockdevAdd(disk(&world.image("a"))))
        .and_then(|recipe| {
            recipe.then(&export(Export::VhostUserBlk {
                addr: Address::Unix { path },
                logical_block_size: None,
                num_queues: None,
            }))
        });
    let wish = put("a", recipe.unwrap());
    let mut daemon = client.put(&wish, soon()).await.unwrap();
    for size in 65..=67 {
        let grow = BlockResize {
            node_name: "disk".into(),
            size: size << 20,
        };
        let qmp = Qmp::connect(daemon.qmp_backend(), soon()).await.unwrap();
        qmp.execute(&grow, soon()).await.unwrap();
        qmp.execute(&QueryBlockExports {}, soon()).await.unwrap();
        let now = client.get("a", soon()).await.unwrap().unwrap();
        assert_eq!(now.epoch, daemon.epoch, "it died");
        kill_daemon(&daemon);
        daemon = replaced(&client, &daemon).await;
    }
    client.remove("a", soon()).await.unwrap();
}

#[tokio::test]
async fn a_recipe_is_replaced_first_and_is_right_before_and_after() {
    let world = World::start(None);
    let client = world.client();
    let image = world.image("a");
    let before = client.put(&world.nbd("a", &image), soon()).await.unwrap();
    let overlay = world.home.path().join("b.qcow2");
    let create = qemu::Create::over(&image);
    qemu::Image::default()
        .create(&overlay, &create, soon())
        .await
        .unwrap();

    let mut wish = world.nbd("a", &overlay);
    let replaced_recipe = client.put(&wish, soon()).await.unwrap();
    assert_eq!(
        (replaced_recipe.revision, replaced_recipe.applied),
        (2, Some(1))
    );
    assert_eq!(replaced_recipe.epoch, before.epoch);
    let qmp = Qmp::connect(before.qmp_backend(), soon()).await.unwrap();
    let top = Node::qcow2("top", Node::file("top-file", &overlay)).over(None);
    qmp.execute(&BlockdevAdd(top), soon()).await.unwrap();
    let snapshot = BlockdevSnapshot {
        node: "disk".into(),
        overlay: "top".into(),
    };
    qmp.execute(&snapshot, soon()).await.unwrap();
    let exports = qmp.execute(&QueryBlockExports {}, soon()).await.unwrap();
    assert_eq!(exports[0].node_name, "top");

    kill_daemon(&before);
    let after = replaced(&client, &before).await;
    assert_eq!((after.revision, after.applied), (2, Some(2)));
    let qmp = Qmp::connect(after.qmp_backend(), soon()).await.unwrap();
    let nodes = qmp
        .execute(&QueryNamedBlockNodes { flat: Some(true) }, soon())
        .await
        .unwrap();
    let disk = nodes.iter().find(|node| node.node_name == "disk").unwrap();
    assert_eq!(disk.backing_file.as_deref(), image.to_str());

    // An equal recipe changes nothing.
    assert_eq!(client.put(&wish, soon()).await.unwrap(), after);
    wish.owner = "somebody".into();
    let refused = client.put(&wish, soon()).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Owned(why) if why.contains(OWNER)),
        "{refused}"
    );
}

#[tokio::test]
async fn a_recipe_that_was_changed_meanwhile_is_not_overwritten() {
    let world = World::start(None);
    let client = world.client();
    let image = world.image("a");
    let wishes = [idle("a"), world.nbd("a", &image)];
    // There is none.
    let early = client.put_if(&wishes[0], 1, soon()).await.unwrap_err();
    assert!(matches!(&early, Error::Conflict(_)), "{early}");
    assert_eq!(client.get("a", soon()).await.unwrap(), None);
    let first = client.put_if(&wishes[0], 0, soon()).await.unwrap();
    assert_eq!(first.revision, 1);
    let second = client.put_if(&wishes[1], 1, soon()).await.unwrap();
    assert_eq!(second.revision, 2);
    // Who read the first one is told, and the same call again is no conflict.
    for revision in [0, 1] {
        let late = client.put_if(&wishes[0], revision, soon()).await;
        let late = late.unwrap_err();
        assert!(
            matches!(&late, Error::Conflict(why) if why.contains("read it again")),
            "{late}"
        );
        let again = client.put_if(&wishes[1], revision, soon()).await.unwrap();
        assert_eq!(again, second);
    }
    // It was taken away: it does not come back.
    client.remove("a", soon()).await.unwrap();
    let late = client.put_if(&wishes[0], 2, soon()).await.unwrap_err();
    assert!(matches!(&late, Error::Conflict(_)), "{late}");
    assert_eq!(client.get("a", soon()).await.unwrap(), None);
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_is_tried_again() {
    let world = World::start(None);
    let client = world.client();
    let missing = world.home.path().join("missing.qcow2");
    let wish = put(
        "a",
        Recipe::default()
            .then(&BlockdevAdd(disk(&missing)))
            .unwrap(),
    );
    let daemon = client.put(&wish, soon()).await.unwrap();
    let State::Failed { why } = &daemon.state else {
        panic!("{daemon:?}")
    };
    assert!(
        why.starts_with("step 1 of the recipe (blockdev-add disk): Could not open"),
        "{why}"
    );
    assert_eq!(daemon.pid, None);
    let daemon = client.put(&idle("a"), soon()).await.unwrap();
    assert_eq!((&daemon.state, daemon.applied), (&State::Running, Some(2)));
    assert_eq!(client.list(Some(OWNER), soon()).await.unwrap(), [daemon]);
    assert_eq!(client.list(Some("nobody"), soon()).await.unwrap(), []);

    for bad in ["", "a/b", "..", &"x".repeat(65)] {
        let refused = client.put(&idle(bad), soon()).await.unwrap_err();
        assert!(matches!(refused, Error::Invalid(_)), "{refused}");
    }
    client.remove("unknown", soon()).await.unwrap();
    assert_eq!(client.get("unknown", soon()).await.unwrap(), None);
}

#[tokio::test]
async fn changes_are_told_and_told_anew_after_a_restart() {
    let world = World::start(None);
    let client = world.client();
    let mut watch = client.watch();
    assert_eq!(watch.next().await, Change::All(Vec::new()));
    let daemon = client.put(&idle("a"), soon()).await.unwrap();
    loop {
        let Change::One(change) = watch.next().await else {
            panic!("nothing was lost")
        };
        if change.state == State::Running {
            assert_eq!(*change, daemon);
            break;
        }
    }
    world.kill_engine();
    world.run(None);
    let Change::All(daemons) = watch.next().await else {
        panic!("the connection was lost")
    };
    assert_eq!(daemons[0].id, "a");
    client.remove("a", soon()).await.unwrap();
    loop {
        if let Change::One(change) = watch.next().await
            && change.state == State::Stopped
        {
            break;
        }
    }
}

#[tokio::test]
async fn a_fuse_export_comes_back_over_its_dead_mount() {
    let world = World::start(None);
    let client = world.client();
    let mountpoint = world.home.path().join("disk");
    std::fs::write(&mountpoint, "").unwrap();
    let kind = Export::Fuse {
        mountpoint: mountpoint.clone(),
        growable: None,
        allow_other: None,
    };
    let recipe = Recipe::default()
        .then(&BlockdevAdd(disk(&world.image("a"))))
        .and_then(|recipe| recipe.then(&export(kind)))
        .unwrap();
    let mut daemon = client.put(&put("a", recipe), soon()).await.unwrap();
    assert_eq!(daemon.state, State::Running);
    for _ in 0..2 {
        // An open file keeps the mount from going with the daemon.
        let open = std::fs::File::open(&mountpoint).unwrap();
        assert_eq!(open.metadata().unwrap().len(), 64 << 20);
        kill_daemon(&daemon);
        daemon = replaced(&client, &daemon).await;
        assert_eq!(std::fs::metadata(&mountpoint).unwrap().len(), 64 << 20);
    }
    client.remove("a", soon()).await.unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&*mountpoint.to_string_lossy()), "{mounts}");
}

#[tokio::test]
async fn a_process_that_is_no_daemon_of_ours_is_left_alone() {
    let world = World::start(None);
    let client = world.client();
    // A process id that was reused: whatever files say of it, it is not touched.
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let daemon = client.put(&idle("a"), soon()).await.unwrap();
    std::fs::write(world.place("a").join("pid"), format!("{}\n", stranger.id())).unwrap();
    kill_daemon(&daemon);
    let daemon = replaced(&client, &daemon).await;
    world.kill_engine();
    std::fs::write(world.place("a").join("pid"), format!("{}\n", stranger.id())).unwrap();
    world.run(None);
    let found = client.put(&idle("a"), soon()).await.unwrap();
    assert_eq!(found.pid, daemon.pid);
    client.remove("a", soon()).await.unwrap();
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();

    // This very process holds the lock that a daemon would hold.
    std::fs::create_dir_all(world.place("b")).unwrap();
    let file = std::fs::File::create(world.place("b").join("lock")).unwrap();
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file.as_fd(), FcntlArg::F_SETLK(&lock)).unwrap();
    let daemon = client.put(&idle("b"), soon()).await.unwrap();
    let State::Failed { why } = &daemon.state else {
        panic!("{daemon:?}")
    };
    assert!(
        why.contains(&format!("process {}", std::process::id())),
        "{why}"
    );
    // It may be a daemon after all: nobody may think that its image is free.
    let refused = client.remove("b", soon()).await.unwrap_err().to_string();
    assert!(
        refused.contains("not removed yet") && refused.contains("is locked by process"),
        "{refused}"
    );
    assert!(world.place("b").exists());
    drop(file);
    client.remove("b", soon()).await.unwrap();
    assert!(!world.place("b").exists());
}

#[tokio::test]
async fn operators_see_what_is_and_why() {
    let world = World::start(None);
    let client = world.client();
    client.put(&idle("a"), soon()).await.unwrap();
    let info = client.info(soon()).await.unwrap();
    assert_eq!(info.daemons.join("a"), world.place("a"));
    assert!(info.storage_daemon.is_some(), "{info:?}");
    assert!(world.get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(world.get("/readyz").starts_with("HTTP/1.1 200"));
    let metrics = world.get("/metrics");
    for line in [
        "outboard_engine_daemons{state=\"running\"} 1",
        "outboard_engine_request_duration_seconds_count{method=\"put\",err=\"false\"} 1",
        "outboard_engine_start_duration_seconds_count 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }

    // A second engine for the same directory is refused, and says why.
    let mut second = world.command();
    second.arg("--log-format").arg("json");
    let second = second.env("OUTBOARD_ADMIN_ADDRESS", "").output();
    let said = String::from_utf8_lossy(&second.unwrap().stderr).into_owned();
    assert!(
        said.contains("can't listen") || said.contains("another process"),
        "{said}"
    );

    // A recipe that can't be read: its daemon is left alone, and somebody is told.
    world.kill_engine();
    std::fs::write(world.home.path().join("s/records/a.json"), "{").unwrap();
    let pids = world.daemons();
    for _ in 0..2 {
        world.run(None);
        assert_eq!(client.get("a", soon()).await.unwrap(), None);
        assert_eq!(world.daemons(), pids);
        let ready = world.get("/readyz");
        assert!(
            ready.starts_with("HTTP/1.1 503") && ready.contains("a.json"),
            "{ready}"
        );
        world.kill_engine();
    }
    world.run(None);
    // It is found, and was not started by the recipe that comes now.
    let found = client.put(&idle("a"), soon()).await.unwrap();
    assert_eq!(found.state, State::Running);
    assert_eq!(world.daemons(), pids);
    assert!(
        found
            .applied
            .is_some_and(|applied| applied < found.revision),
        "{found:?}"
    );
}

/// A daemon without a recipe (lost, or set aside) is ended by a removal, like any other: who asks may then use the image.
#[tokio::test]
async fn a_daemon_without_a_recipe_is_removed_as_well() {
    let world = World::start(None);
    let client = world.client();
    client.put(&idle("a"), soon()).await.unwrap();
    world.kill_engine();
    std::fs::write(world.home.path().join("s/records/a.json"), "{").unwrap();
    world.run(None);
    assert_eq!(client.get("a", soon()).await.unwrap(), None);
    assert_eq!(world.daemons().len(), 1);
    client.remove("a", soon()).await.unwrap();
    assert_eq!(world.daemons(), [0; 0]);
    assert!(!world.place("a").exists());
    // And again: there is nothing.
    client.remove("a", soon()).await.unwrap();
}

#[test]
fn help_and_wrong_flags() {
    let run = |args: &[&str]| {
        let engine = env!("CARGO_BIN_EXE_outboard-engine");
        Command::new(engine)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let help = run(&["run", "--help"]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    for flag in [
        "--state",
        "--socket",
        "--storage-daemon",
        "--cgroup",
        "--admin-address",
    ] {
        assert!(text.contains(flag), "{text}");
    }
    assert_eq!(run(&["run", "--state", "relative"]).status.code(), Some(64));
}

#[tokio::test]
async fn no_storage_daemon_is_said_with_the_remedy() {
    let world = World::without_engine();
    world.run_with(None, &["--storage-daemon", "/nowhere/qsd"]);
    let client = world.client();
    let daemon = client.put(&idle("a"), soon()).await.unwrap();
    let State::Failed { why } = daemon.state else {
        panic!("{daemon:?}")
    };
    assert!(
        why.contains("can't run /nowhere/qsd") && why.contains("install qemu-utils"),
        "{why}"
    );
    assert!(world.get("/readyz").contains("install qemu-utils"));
}
