//! The `local` backend over real daemons of a real engine.

#![expect(
    clippy::unwrap_used,
    reason = "a test, which clippy can't see: it has no harness"
)]

mod rig;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use framework::conformance::{self, Disk, Harness};
use framework::local::Listen;
use framework::{
    Access, Backend, CreateVolume, Error, Health, Host, Qos, SizeRange, Source, Target,
};
use rig::{Rig, attached, exported, kill, run, used_here};

const MIB: u64 = 1 << 20;

fn main() -> ExitCode {
    if let Some(code) = rig::as_engine() {
        return code;
    }
    rig::main(&[
        ("conforms_over_unix_sockets", conforms_over_unix_sockets),
        (
            "conforms_with_a_restart_before_every_call",
            conforms_with_a_restart_before_every_call,
        ),
        ("conforms_over_tls", conforms_over_tls),
        (
            "only_the_named_client_may_connect",
            only_the_named_client_may_connect,
        ),
        (
            "a_renewed_certificate_is_served",
            a_renewed_certificate_is_served,
        ),
        ("a_killed_daemon_is_a_pause", a_killed_daemon_is_a_pause),
        (
            "what_was_answered_outlives_the_daemon",
            what_was_answered_outlives_the_daemon,
        ),
        ("a_killed_engine_is_nothing", a_killed_engine_is_nothing),
        (
            "a_stuck_member_undoes_the_group",
            a_stuck_member_undoes_the_group,
        ),
        ("same_node", same_node),
        (
            "a_card_loses_nothing_of_a_recipe",
            a_card_loses_nothing_of_a_recipe,
        ),
        (
            "a_volume_without_data_is_known",
            a_volume_without_data_is_known,
        ),
        (
            "images_of_another_node_are_refused",
            images_of_another_node_are_refused,
        ),
        ("a_full_pool_refuses", a_full_pool_refuses),
        (
            "a_spoilt_record_deletes_nothing",
            a_spoilt_record_deletes_nothing,
        ),
        (
            "a_lost_record_deletes_nothing",
            a_lost_record_deletes_nothing,
        ),
        ("operations_at_the_same_time", operations_at_the_same_time),
    ]);
    ExitCode::SUCCESS
}

fn conforms_over_unix_sockets() {
    run(async {
        let rig = Rig::new(|_, _| {}).await;
        conformance::run(&rig).await;
    });
}

fn conforms_with_a_restart_before_every_call() {
    run(async {
        let mut rig = Rig::new(|_, _| {}).await;
        rig.restless = true;
        conformance::run(&rig).await;
    });
}

/// A certificate authority, the server's directory, and one directory for each host.
fn certificates(root: &Path) {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    };
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.distinguished_name.push(
        DnType::CommonName,
        format!("authority of {}", root.display()),
    );
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let roles = [
        ("server", "server"),
        ("host-0", "client"),
        ("host-1", "client"),
        ("host-2", "client"),
    ];
    for (name, role) in roles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = Default::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let dir = root.join("tls").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("ca-cert.pem"), &authority).unwrap();
        std::fs::write(dir.join(format!("{role}-cert.pem")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{role}-key.pem")), key.serialize_pem()).unwrap();
    }
}

async fn tls_rig() -> Rig {
    // Below the ephemeral ports; another run of this test on the machine has others.
    let first = 20_000 + (std::process::id() % 100 * 100) as u16;
    let mut rig = Rig::new(|root, config| {
        certificates(root);
        config.listen = Listen::Tcp {
            address: "127.0.0.1".parse().unwrap(),
            advertise: None,
            ports: first..=first + 50,
            tls: Some(root.join("tls/server")),
        };
    })
    .await;
    rig.tls = Some(rig.dir.path().join("tls"));
    rig
}

fn conforms_over_tls() {
    run(async {
        let rig = tls_rig().await;
        conformance::run(&rig).await;
    });
}

fn only_the_named_client_may_connect() {
    run(async {
        let rig = tls_rig().await;
        let local = rig.open().await;
        let volume = local
            .create(CreateVolume::blank("a", 8 * MIB))
            .await
            .unwrap();
        let (a, b) = (rig.host(0), rig.host(1));
        let target = local
            .export(&volume.id, &a, Access::ReadWrite, true)
            .await
            .unwrap();
        let disk = rig.connect(&target, &a, 0).await.unwrap();
        let exports = local.exports(&volume.id).await.unwrap();
        assert_eq!(exports[0].connected.len(), 1, "{exports:?}");
        let refused = rig.connect(&target, &b, 0).await;
        assert!(refused.is_err(), "another client's certificate was let in");
        local
            .export(&volume.id, &b, Access::ReadWrite, true)
            .await
            .unwrap();
        local.unexport(&volume.id, &a.name).await.unwrap();
        assert!(
            rig.connect(&target, &a, 0).await.is_err(),
            "a client that was shut out was let in"
        );
        assert!(
            rig.connect(&target, &b, 0).await.is_err(),
            "an export that is no more was found"
        );
        local.unexport(&volume.id, &b.name).await.unwrap();
        Box::new(disk).close().await;
        let key =
            std::fs::read_to_string(rig.dir.path().join("tls/server/server-key.pem")).unwrap();
        let secret = key.lines().nth(1).unwrap();
        let mut looked = 0;
        for name in ["engine.log", "b/catalogue", "s"] {
            looked += search(&rig.dir.path().join(name), secret);
        }
        assert!(looked > 0);
    });
}

/// How many files were read; none has the secret.
/// The server's certificate, and its authority, are exchanged while a volume is in use.
fn a_renewed_certificate_is_served() {
    run(async {
        let rig = tls_rig().await;
        let (root, next) = (rig.dir.path().join("tls"), rig.dir.path().join("next"));
        certificates(&next);
        let next = next.join("tls");
        let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
        let both = [&root, &next].map(|dir| read(dir.join("server/ca-cert.pem")));
        for name in ["server", "host-0"] {
            std::fs::write(root.join(name).join("ca-cert.pem"), both.concat()).unwrap();
        }
        // This one believes the new authority alone.
        for file in ["ca-cert.pem", "client-cert.pem", "client-key.pem"] {
            std::fs::copy(
                next.join("host-1").join(file),
                root.join("host-1").join(file),
            )
            .unwrap();
        }
        let local = rig.open().await;
        let volume = local
            .create(CreateVolume::blank("a", 8 * MIB))
            .await
            .unwrap();
        let (a, b) = (rig.host(0), rig.host(1));
        let access = Access::ReadWrite;
        let target = local.export(&volume.id, &a, access, true).await.unwrap();
        let mut disk = rig.connect(&target, &a, 20).await.unwrap();
        disk.write(0, 4096, 1).await.unwrap();
        let to_b = local.export(&volume.id, &b, access, true).await.unwrap();
        assert!(
            rig.connect(&to_b, &b, 0).await.is_err(),
            "the old one was believed"
        );
        let daemon = rig.daemons().await.remove(0);
        for file in ["server-cert.pem", "server-key.pem"] {
            std::fs::copy(
                next.join("server").join(file),
                root.join("server").join(file),
            )
            .unwrap();
        }
        local.tidy().await;
        let mut other = rig.connect(&to_b, &b, 0).await.unwrap();
        assert_eq!(other.read(0).await, Ok(1));
        disk.write(MIB, 4096, 2).await.unwrap();
        assert_eq!(other.read(MIB).await, Ok(2));
        assert_eq!(
            rig.daemons().await[0].epoch,
            daemon.epoch,
            "the same process"
        );
        // What can't be used changes nothing.
        std::fs::write(root.join("server/server-key.pem"), "no key").unwrap();
        local.tidy().await;
        disk.write(0, 4096, 3).await.unwrap();
        local.snapshot("s", &volume.id).await.unwrap();
        assert_eq!(other.read(0).await, Ok(3));
        for host in [&a, &b] {
            local.unexport(&volume.id, &host.name).await.unwrap();
        }
    });
}

fn search(path: &Path, secret: &str) -> usize {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).unwrap();
        return entries
            .map(|entry| search(&entry.unwrap().path(), secret))
            .sum();
    }
    let Ok(bytes) = std::fs::read(path) else {
        return 0;
    };
    assert!(
        !String::from_utf8_lossy(&bytes).contains(secret),
        "a key in {}",
        path.display()
    );
    1
}

fn a_killed_daemon_is_a_pause() {
    run(async {
        let rig = Rig::new(|_, _| {}).await;
        let (volume, mut disk) = attached(&rig, "a").await;
        // The engine waits longer each time a daemon dies soon after its start: no more rounds.
        for n in 1..=2u8 {
            disk.write(u64::from(n) * MIB, 4096, n).await.unwrap();
            kill(rig.daemons().await[0].pid.unwrap());
            disk.write(0, 4096, n).await.unwrap();
            let local = rig.open().await;
            local.snapshot(&format!("s{n}"), &volume.id).await.unwrap();
            // At once after the recipe names the new image.
            kill(rig.daemons().await[0].pid.unwrap());
            assert_eq!(disk.read(0).await.unwrap(), n);
            assert_eq!(disk.read(u64::from(n) * MIB).await.unwrap(), n);
        }
        let local = rig.open().await;
        // NBD exports can't grow: the server is restarted, which is a pause for a client that reconnects.
        local
            .expand(&volume.id, SizeRange::at_least(16 * MIB))
            .await
            .unwrap();
        disk.write(0, 4096, 9).await.unwrap();
        assert_eq!(disk.read(MIB).await, Ok(1));
        let qos = Qos {
            iops: Some(100_000),
            ..Qos::default()
        };
        local.modify(&volume.id, qos).await.unwrap();
        assert_eq!(local.health(&volume.id).await.unwrap(), Health::Normal);
        local.unexport(&volume.id, &rig.host(0).name).await.unwrap();
    });
}

/// A host that waits for the next daemon does not hear that the first one died, and flushes later: then nothing may be missing. But
/// where the volume is said to have a write cache.
fn what_was_answered_outlives_the_daemon() {
    run(async {
        for write_cache in [false, true] {
            let rig = Rig::new(|_, _| {}).await;
            let local = rig.open().await;
            let wanted = CreateVolume {
                write_cache,
                ..CreateVolume::blank("a", 8 * MIB)
            };
            let volume = local.create(wanted.clone()).await.unwrap();
            let other = CreateVolume {
                write_cache: !write_cache,
                ..wanted
            };
            let refused = local.create(other).await.unwrap_err();
            assert!(
                matches!(&refused, Error::AlreadyExists { differs, .. } if differs.starts_with("write cache")),
                "{refused}"
            );
            let host = rig.host(0);
            let mut disk = exported(&rig, &volume).await;
            for n in 1..=4u8 {
                disk.write_back(u64::from(n) * MIB, 64 << 10, n)
                    .await
                    .unwrap();
            }
            kill(rig.daemons().await[0].pid.unwrap());
            disk.write(0, 4096, 9).await.unwrap();
            for n in 1..=4u8 {
                let there = disk.read(u64::from(n) * MIB).await.unwrap();
                assert_eq!(there, if write_cache { 0 } else { n });
            }
            local.unexport(&volume.id, &host.name).await.unwrap();
        }
    });
}

fn a_killed_engine_is_nothing() {
    run(async {
        let rig = Rig::new(|_, _| {}).await;
        let (volume, mut disk) = attached(&rig, "a").await;
        disk.write(0, 4096, 1).await.unwrap();
        rig.kill_engine().await;
        disk.write(4096, 4096, 2).await.unwrap();
        rig.close().await;
        let local = rig.open().await;
        assert!(matches!(
            local.health(&volume.id).await.unwrap(),
            Health::Abnormal(_)
        ));
        let refused = local.snapshot("s", &volume.id).await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
        rig.start_engine().await;
        let snapshot = local.snapshot("s", &volume.id).await.unwrap();
        disk.write(0, 4096, 3).await.unwrap();
        local.unexport(&volume.id, &rig.host(0).name).await.unwrap();
        let copy = CreateVolume::from("copy", 0, Source::Snapshot(snapshot.id));
        let copy = local.create(copy).await.unwrap();
        let host = rig.host(0);
        let target = local
            .export(&copy.id, &host, Access::ReadOnly, false)
            .await
            .unwrap();
        let mut disk = match rig.connect(&target, &host, 0).await {
            Ok(disk) => disk,
            // qemu-io opens for writing unless told otherwise.
            Err(_) => {
                local.unexport(&copy.id, &host.name).await.unwrap();
                let target = local
                    .export(&copy.id, &host, Access::ReadWrite, false)
                    .await
                    .unwrap();
                rig.connect(&target, &host, 0).await.unwrap()
            }
        };
        assert_eq!((disk.read(0).await, disk.read(4096).await), (Ok(1), Ok(2)));
        local.unexport(&copy.id, &host.name).await.unwrap();
    });
}

fn stop(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

/// One member's daemon hangs: the other's writer is paused for a moment only, no snapshot is left, and all goes on.
fn a_stuck_member_undoes_the_group() {
    run(async {
        let rig = Rig::new(|_, _| {}).await;
        let (a, mut disk) = attached(&rig, "a").await;
        let of_a = rig.daemons().await[0].id.clone();
        let (b, _other) = attached(&rig, "b").await;
        disk.write(0, 4096, 1).await.unwrap();
        let daemons = rig.daemons().await;
        let stuck = daemons
            .iter()
            .find(|daemon| daemon.id != of_a)
            .unwrap()
            .pid
            .unwrap();
        let local = rig.open().await;
        let ids = [a.id.clone(), b.id.clone()];
        let scenario = fail::FailScenario::setup();
        fail::cfg_callback("local::gate", move || {
            stop(stuck, nix::sys::signal::Signal::SIGSTOP);
        })
        .unwrap();
        let writer = async {
            let mut longest = Duration::ZERO;
            for n in 0..300u64 {
                let begun = std::time::Instant::now();
                disk.write(4096, 4096, (n % 250) as u8).await.unwrap();
                longest = longest.max(begun.elapsed());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            stop(stuck, nix::sys::signal::Signal::SIGCONT);
            longest
        };
        let (group, longest) = futures::join!(local.group_snapshot("g", &ids), writer);
        scenario.teardown();
        assert!(matches!(group, Err(Error::Unavailable { .. })), "{group:?}");
        assert!(
            longest > Duration::from_secs(1),
            "the writer was not paused: {longest:?}"
        );
        assert!(
            longest < Duration::from_secs(2),
            "a writer was paused for {longest:?}"
        );
        assert!(
            local
                .list_snapshots(&Default::default(), 0, None)
                .await
                .unwrap()
                .items
                .is_empty()
        );
        let group = local.group_snapshot("g", &ids).await.unwrap();
        assert_eq!(group.snapshots.len(), 2);
        assert_eq!(disk.read(0).await, Ok(1));
    });
}

fn same_node() {
    run(async {
        let rig = Rig::new(|_, _| {}).await;
        let local = rig.open().await;
        let volume = local
            .create(CreateVolume::blank("a", 8 * MIB))
            .await
            .unwrap();
        let host = Host {
            name: "here".into(),
            dn: None,
            engine: Some(rig.config.engine_id.clone()),
        };
        let target = local
            .export(&volume.id, &host, Access::ReadWrite, false)
            .await
            .unwrap();
        let daemons = rig.daemons().await;
        let Target::SameNode {
            daemon,
            node,
            writable: true,
            ..
        } = target
        else {
            panic!("{target:?}")
        };
        assert_eq!(
            (daemon.as_str(), node.as_str()),
            (daemons[0].id.as_str(), "top")
        );
        // As a card does: into the recipe first, then the daemon by its own monitor.
        let socket = daemons[0].dir.join("card.nbd").display().to_string();
        let steps = [
            format!(r#"{{"execute":"nbd-server-start","arguments":{{"addr":{{"type":"unix","data":{{"path":"{socket}"}}}}}}}}"#),
            r#"{"execute":"block-export-add","arguments":{"type":"nbd","id":"card","node-name":"top","writable":true}}"#.to_owned(),
        ];
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let mut recipe = daemons[0].recipe.clone();
        let qmp = qemu::Qmp::connect(daemons[0].qmp_card(), deadline)
            .await
            .unwrap();
        for (n, step) in steps.iter().enumerate() {
            let step: qemu::Step = serde_json::from_str(step).unwrap();
            if n == 1 {
                recipe.push(step.clone());
            }
            qmp.run(&step, deadline).await.unwrap();
        }
        let (id, owner) = (daemons[0].id.clone(), daemons[0].owner.clone());
        rig.client()
            .put(&engine::Put { id, owner, recipe }, deadline)
            .await
            .unwrap();
        local.snapshot("s", &volume.id).await.unwrap();
        let kept = rig.daemons().await[0].recipe.clone();
        assert!(
            format!("{kept:?}").contains("card"),
            "the card's export is not ours to forget"
        );
        local.unexport(&volume.id, "here").await.unwrap();
        assert!(rig.daemons().await.is_empty());
    });
}

/// A card puts its exports into the recipe while the backend changes it, again and again.
fn a_card_loses_nothing_of_a_recipe() {
    run(async {
        let rig = Rig::new(|_, _| {}).await;
        let local = rig.open().await;
        let volume = used_here(&rig).await;
        let id = rig.daemons().await[0].id.clone();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let (engine, id) = (rig.client(), id.as_str());
        let card = async {
            for n in 0..20 {
                let step = format!(
                    r#"{{"execute":"block-export-add","arguments":{{"type":"nbd","id":"card-{n}","node-name":"top"}}}}"#
                );
                let step: qemu::Step = serde_json::from_str(&step).unwrap();
                loop {
                    let daemon = engine.get(id, deadline).await.unwrap().unwrap();
                    let mut recipe = daemon.recipe;
                    recipe.push(step.clone());
                    let (id, owner) = (id.to_owned(), daemon.owner);
                    let put = engine::Put { id, owner, recipe };
                    match engine.put_if(&put, daemon.revision, deadline).await {
                        Err(engine::Error::Conflict(_)) => {}
                        other => break drop(other.unwrap()),
                    }
                }
            }
        };
        let backend = async {
            for n in 1..=20 {
                let iops = Some(1000 + n);
                let qos = Qos {
                    iops,
                    ..Qos::default()
                };
                local.modify(&volume.id, qos).await.unwrap();
            }
        };
        futures::join!(card, backend);
        let recipe = serde_json::to_string(&rig.daemons().await[0].recipe).unwrap();
        for n in 0..20 {
            assert!(recipe.contains(&format!("\"card-{n}\"")), "{n}: {recipe}");
        }
        assert!(recipe.contains("1020"), "{recipe}");
        local.unexport(&volume.id, "here").await.unwrap();
    });
}

/// However large it is, grown or not: nothing was written to it until something was.
fn a_volume_without_data_is_known() {
    run(async {
        let rig = Rig::new(|_, config| config.percent = u32::MAX).await;
        let local = rig.open().await;
        for (n, size) in [4096, 8 * MIB + 4096, 1 << 30, 5 << 40]
            .into_iter()
            .enumerate()
        {
            let wanted = CreateVolume::blank(&format!("v{n}"), size);
            let volume = local.create(wanted).await.unwrap();
            let host = rig.host(0);
            let export = async || {
                let access = Access::ReadWrite;
                local
                    .export(&volume.id, &host, access, false)
                    .await
                    .unwrap()
            };
            assert!(!local.written(&volume.id).await.unwrap(), "{size} bytes");
            let target = export().await;
            assert!(local.written(&volume.id).await.unwrap());
            let larger = SizeRange::at_least(size + 3 * MIB);
            local.expand(&volume.id, larger).await.unwrap();
            let disk = rig.connect(&target, &host, 0).await.unwrap();
            Box::new(disk).close().await;
            local.unexport(&volume.id, &host.name).await.unwrap();
            assert!(
                !local.written(&volume.id).await.unwrap(),
                "{size} bytes, grown"
            );
            let target = export().await;
            let mut disk = rig.connect(&target, &host, 0).await.unwrap();
            disk.write(size, 512, 1).await.unwrap();
            // As the fence does: nobody waits for the host.
            local.unexport(&volume.id, &host.name).await.unwrap();
            assert!(
                local.written(&volume.id).await.unwrap(),
                "{size} bytes, written"
            );
        }
        // What it was made from counts as it was then.
        let volume = local.create(CreateVolume::blank("s", MIB)).await.unwrap();
        let copy = async |name: &str, source| {
            let wanted = CreateVolume::from(name, 2 * MIB, source);
            let copy = local.create(wanted).await.unwrap();
            local.written(&copy.id).await.unwrap()
        };
        let empty = local.snapshot("empty", &volume.id).await.unwrap();
        assert!(!local.written(&volume.id).await.unwrap());
        assert!(!copy("a", Source::Volume(volume.id.clone())).await);
        let host = rig.host(0);
        let access = Access::ReadWrite;
        let target = local.export(&volume.id, &host, access, false).await;
        let mut disk = rig.connect(&target.unwrap(), &host, 0).await.unwrap();
        disk.write(0, 512, 1).await.unwrap();
        // While its daemon has the files open.
        let full = local.snapshot("full", &volume.id).await.unwrap();
        assert!(!copy("b", Source::Snapshot(empty.id)).await);
        assert!(copy("c", Source::Snapshot(full.id)).await);
        assert!(copy("d", Source::Volume(volume.id.clone())).await);
        local.unexport(&volume.id, &host.name).await.unwrap();
        assert!(local.written(&volume.id).await.unwrap());
    });
}

/// The images lie on the node of one engine.
fn images_of_another_node_are_refused() {
    run(async {
        let mut rig = Rig::new(|_, _| {}).await;
        rig.open().await;
        rig.close().await;
        rig.config.engine_id = "elsewhere".to_owned();
        loop {
            match framework::local::Local::open(rig.config.clone()).await {
                // The old one's last task is still about to end.
                Err(Error::Unavailable { .. }) => tokio::task::yield_now().await,
                Err(Error::Invalid { key, .. }) => break assert_eq!(key, "engineId"),
                other => panic!("{other:?}"),
            }
        }
        rig.config.engine_id = "local".to_owned();
        rig.open().await;
    });
}

fn a_full_pool_refuses() {
    run(async {
        let rig = Rig::new(|_, config| config.percent = 0).await;
        let local = rig.open().await;
        let full = |error: &Error| matches!(error, Error::NoSpace { .. });
        let refused = local
            .create(CreateVolume::blank("a", MIB))
            .await
            .unwrap_err();
        assert!(full(&refused), "{refused}");
        assert_eq!(local.capacity().await.unwrap().available, 0);
        let rig = Rig::new(|_, _| {}).await;
        let local = rig.open().await;
        let volume = local.create(CreateVolume::blank("a", MIB)).await.unwrap();
        let room = local.capacity().await.unwrap().largest;
        let more = SizeRange::at_least(room.saturating_add(2 * MIB));
        let refused = local.expand(&volume.id, more).await.unwrap_err();
        assert!(full(&refused), "{refused}");
        assert_eq!(local.get(&volume.id).await.unwrap(), volume);
    });
}

/// Nobody knows what the files of an unreadable record are for.
fn a_spoilt_record_deletes_nothing() {
    run(async {
        let rig = Rig::new(|_, _| {}).await;
        let local = rig.open().await;
        let (spoilt, mut disk) = attached(&rig, "a").await;
        disk.write(0, MIB, 7).await.unwrap();
        let other = local.create(CreateVolume::blank("b", MIB)).await.unwrap();
        drop(local);
        rig.close().await;
        let record = format!("b/catalogue/volumes/{}.json", spoilt.id.handle());
        let record = rig.dir.path().join(record);
        let was = std::fs::read(&record).unwrap();
        std::fs::write(&record, b"{").unwrap();
        for _ in 0..2 {
            let local = rig.open().await;
            local.delete(&other.id).await.unwrap();
            local.tidy().await;
            assert_eq!(rig.images().len(), 2, "what nobody can account for stays");
            assert_eq!(disk.read(0).await, Ok(7), "and is served");
            drop(local);
            rig.close().await;
        }
        // As somebody who has a copy, and clears up.
        std::fs::write(&record, was).unwrap();
        std::fs::remove_dir_all(record.with_file_name("corrupt")).unwrap();
        let local = rig.open().await;
        local.tidy().await;
        assert_eq!(rig.images().len(), 1);
        disk.write(MIB, MIB, 8).await.unwrap();
        local.unexport(&spoilt.id, &rig.host(0).name).await.unwrap();
    });
}

fn a_lost_record_deletes_nothing() {
    run(async {
        let rig = Rig::new(|_, _| {}).await;
        let (volume, mut disk) = attached(&rig, "a").await;
        let local = rig.open().await;
        disk.write(0, MIB, 7).await.unwrap();
        let frozen = local.snapshot("s", &volume.id).await.unwrap();
        local.unexport(&volume.id, &rig.host(0).name).await.unwrap();
        drop(local);
        rig.close().await;
        // That of the image which takes the writes: it says what lies below.
        let files = std::fs::read_dir(rig.config.dir.join("catalogue/files")).unwrap();
        let mut files = files.map(|entry| entry.unwrap().path());
        let record = files.find(|path| {
            std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"backing\": \""))
        });
        let record = record.unwrap();
        let was = std::fs::read(&record).unwrap();
        std::fs::remove_file(&record).unwrap();
        let local = rig.open().await;
        local.delete_snapshot(&frozen.id).await.unwrap();
        local.tidy().await;
        assert_eq!(rig.images().len(), 2, "who knows what it rests on");
        drop(local);
        rig.close().await;
        std::fs::write(&record, was).unwrap();
        let host = rig.host(0);
        let local = rig.open().await;
        let mut disk = exported(&rig, &volume).await;
        assert_eq!(disk.read(0).await, Ok(7));
        local.unexport(&volume.id, &host.name).await.unwrap();
    });
}

/// Snapshots, clones, deletions and merges of the same volumes by several callers, while hosts write.
fn operations_at_the_same_time() {
    run(async {
        let rig = Rig::new(|_, _| {}).await;
        let (a, mut of_a) = attached(&rig, "a").await;
        let (b, mut of_b) = attached(&rig, "b").await;
        let local = rig.open().await;
        let ended = std::sync::atomic::AtomicBool::new(false);
        let writer = async {
            let mut number = 0u8;
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                number = number % 250 + 1;
                for disk in [&mut of_a, &mut of_b] {
                    disk.write(u64::from(number % 7) * MIB, 65536, number)
                        .await
                        .unwrap();
                    assert_eq!(disk.read(u64::from(number % 7) * MIB).await, Ok(number));
                }
                tokio::task::yield_now().await;
            }
            number
        };
        let (local, ids) = (&local, [a.id.clone(), b.id.clone()]);
        let ids = &ids;
        let caller = |n: usize| async move {
            for round in 0..6 {
                let name = format!("{n}-{round}");
                let of = &ids[(n + round) % 2];
                let snapshot = patient(async || local.snapshot(&name, of).await).await;
                let source = match n % 2 {
                    0 => Source::Snapshot(snapshot.id.clone()),
                    _ => Source::Volume(of.clone()),
                };
                let wanted = CreateVolume::from(&name, 0, source);
                let copy = patient(async || local.create(wanted.clone()).await).await;
                if n == 0 {
                    let group = patient(async || local.group_snapshot(&name, ids).await).await;
                    patient(async || local.delete_group_snapshot(&group.id).await).await;
                }
                patient(async || local.delete_snapshot(&snapshot.id).await).await;
                patient(async || local.delete(&copy.id).await).await;
            }
        };
        let callers = async {
            futures::future::join_all((0..4).map(caller)).await;
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
        };
        let (last, ()) = futures::join!(writer, callers);
        for (volume, disk) in [(&a, &mut of_a), (&b, &mut of_b)] {
            assert_eq!(disk.read(u64::from(last % 7) * MIB).await, Ok(last));
            local.unexport(&volume.id, &rig.host(0).name).await.unwrap();
        }
        for _ in 0..20 {
            local.tidy().await;
        }
        assert_eq!(rig.images().len(), 2, "{:?}", rig.images());
    });
}

/// Repeats a call that meets another one, as the sidecars do.
async fn patient<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        match call().await {
            Err(Error::Busy { .. }) => {}
            other => return other.unwrap(),
        }
    }
}
