//! Whole lives of volumes, from their creation to the last trace, with data that is looked at after each step.

use std::path::Path;
use std::time::Duration;

use e2e::storage::calls::Usage;

use crate::world::{MIB, Writer, fill, sh, sum, sweep, two_hosts};

const SECRET: &str = "correct-horse-battery-staple";

/// The size of the file system at a path, in MiB.
fn size(chain: &e2e::storage::Chain, host: usize, path: &std::path::Path) -> u64 {
    let script = format!(
        "df --block-size=1M --output=size {} | tail -n 1",
        path.display()
    );
    sh(chain, host, &script).trim().parse().unwrap()
}

fn ids(chain: &e2e::storage::Chain, host: usize) -> Vec<String> {
    let daemons = chain.daemons(host).unwrap();
    daemons.into_iter().map(|daemon| daemon.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_moves_is_copied_grows_and_goes() {
    let chain = two_hosts(true);
    let calls = chain.clients().with_secret(SECRET);
    // xfs: growing ext4 while it is mounted needs a capability that containers do not have.
    let usage = Usage::files("xfs");
    let volume = calls
        .create_for("life", 320 * MIB, usage.clone())
        .await
        .unwrap();

    // At the target's own host: no NBD, one daemon.
    let at_home = calls.up(&volume, 0, "a").await.unwrap();
    let written = fill(&chain, 0, &at_home.target.join("data"), 64);
    assert_eq!(ids(&chain, 0), [format!("v-{}", volume.uuid())]);
    calls.down(&volume, 0, "a").await.unwrap();

    // Over the network, which is TLS.
    let moved = calls.up(&volume, 1, "b").await.unwrap();
    assert_eq!(sum(&chain, 1, &moved.target.join("data"), 64), written);
    assert_eq!(ids(&chain, 1), [format!("c-{}", volume.uuid())]);

    let snapshot = calls.snapshot("before", &volume).await.unwrap();
    std::fs::write(moved.seen.join("later"), "later").unwrap();
    sh(&chain, 1, &format!("sync -f {}", moved.target.display()));
    let restored = calls
        .restore("restored", &snapshot, 320 * MIB, usage)
        .await
        .unwrap();
    let back = calls.up(&restored, 0, "c").await.unwrap();
    assert_eq!(sum(&chain, 0, &back.target.join("data"), 64), written);
    assert!(!back.seen.join("later").exists());

    // A copy that is larger than its source shows its whole size.
    let larger = calls.clone_of("larger", &volume, 400 * MIB).await.unwrap();
    let copy = calls.up(&larger, 0, "d").await.unwrap();
    assert_eq!(sum(&chain, 0, &copy.target.join("data"), 64), written);
    assert!(copy.seen.join("later").exists());
    let before = size(&chain, 1, &moved.target);
    assert!(size(&chain, 0, &copy.target) > before + 60);

    // It grows while somebody writes.
    let writer = Writer::start(moved.seen.join("log"));
    let bytes = calls.expand(&volume, 512 * MIB).await.unwrap();
    assert_eq!(bytes, 512 * MIB);
    calls.node_expand(&volume, 1, "b", bytes).await.unwrap();
    assert!(size(&chain, 1, &moved.target) > before + 170);
    let more = fill(&chain, 1, &moved.target.join("more"), 32);
    assert!(writer.finish() > 0);
    assert_eq!(sum(&chain, 1, &moved.target.join("more"), 32), more);
    assert_eq!(sum(&chain, 1, &moved.target.join("data"), 64), written);

    // What copies rest on may go before them.
    calls.down(&volume, 1, "b").await.unwrap();
    calls.delete(&volume).await.unwrap();
    calls.delete_snapshot(&snapshot).await.unwrap();
    assert_eq!(sum(&chain, 0, &back.target.join("data"), 64), written);
    for (volume, pod) in [(&restored, "c"), (&larger, "d")] {
        calls.down(volume, 0, pod).await.unwrap();
        calls.delete(volume).await.unwrap();
    }
    sweep(&chain, &[SECRET]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_disk_moves_grows_and_goes() {
    let chain = two_hosts(true);
    let calls = chain.clients().with_secret(SECRET);
    let volume = calls
        .create_for("raw", 64 * MIB, Usage::block())
        .await
        .unwrap();
    let here = calls.up(&volume, 1, "a").await.unwrap();
    let written = fill(&chain, 1, &here.target, 32);
    calls.down(&volume, 1, "a").await.unwrap();
    for host in [0, 1] {
        let there = calls.up(&volume, host, "b").await.unwrap();
        assert_eq!(sum(&chain, host, &there.target, 32), written);
        let bytes = (96 + 32 * host as u64) * MIB;
        let stop = chain.dir().join("stop");
        // Past the cache, into the part that nobody sums.
        let script = format!(
            "i=0; while [ ! -e {stop} ]; do dd if=/dev/zero of={disk} bs=4k seek=12288 count=256 oflag=direct conv=notrunc \
             2>/dev/null; i=$((i + 1)); done; echo $i",
            stop = stop.display(),
            disk = there.target.display()
        );
        let mut writer = chain.command(host, "sh");
        let writer = writer
            .args(["-ec", &script])
            .stdout(std::process::Stdio::piped())
            .spawn();
        assert_eq!(calls.expand(&volume, bytes).await.unwrap(), bytes);
        calls.node_expand(&volume, host, "b", bytes).await.unwrap();
        std::fs::write(&stop, "").unwrap();
        let writer = writer.unwrap().wait_with_output().unwrap();
        std::fs::remove_file(&stop).unwrap();
        let rounds = String::from_utf8(writer.stdout).unwrap();
        assert!(writer.status.success() && rounds.trim() != "0", "{rounds}");
        let seen = sh(
            &chain,
            host,
            &format!("blockdev --getsize64 {}", there.target.display()),
        );
        assert_eq!(seen, bytes.to_string());
        calls.down(&volume, host, "b").await.unwrap();
    }
    calls.delete(&volume).await.unwrap();
    sweep(&chain, &[SECRET]);
}

/// Two volumes at one moment: what was written to the second only after the first is never there alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_cut_at_one_moment() {
    let chain = two_hosts(false);
    let calls = chain.clients();
    let mut volumes = Vec::new();
    let mut disks = Vec::new();
    for (name, host) in [("first", 0), ("second", 1)] {
        let volume = calls
            .create_for(name, 16 * MIB, Usage::block())
            .await
            .unwrap();
        disks.push(calls.up(&volume, host, "a").await.unwrap().target);
        volumes.push(volume);
    }
    // One number after the other, each on both, in order.
    let stop = chain.dir().join("stop");
    let script = format!(
        "i=0; while [ ! -e {stop} ]; do i=$((i + 1)); for disk in {first} {second}; do printf '%-4096d' $i | \
         dd of=$disk bs=4k count=1 iflag=fullblock oflag=direct conv=notrunc 2>/dev/null; done; done; echo $i",
        stop = stop.display(),
        first = disks[0].display(),
        second = chain.seen(1, &disks[1]).display(),
    );
    let writer = chain
        .command(0, "sh")
        .args(["-ec", &script])
        .stdout(std::process::Stdio::piped())
        .spawn();
    let number = |host: usize, disk: &Path| -> u64 {
        let script = format!(
            "dd if={} bs=4k count=1 iflag=direct 2>/dev/null | tr -d '\\000'",
            disk.display()
        );
        sh(&chain, host, &script).trim().parse().unwrap_or(0)
    };
    e2e::until("the first writes", Duration::from_secs(20), || {
        Ok((number(1, &disks[1]) > 2).then_some(()))
    })
    .unwrap();
    let (group, members) = calls
        .group("both", &[&volumes[0], &volumes[1]])
        .await
        .unwrap();
    std::fs::write(&stop, "").unwrap();
    let rounds = writer.unwrap().wait_with_output().unwrap();
    assert!(rounds.status.success());
    let mut numbers = Vec::new();
    for (n, member) in members.iter().enumerate() {
        let name = format!("restored-{n}");
        let copy = calls
            .restore(&name, member, 16 * MIB, Usage::block())
            .await
            .unwrap();
        let there = calls.up(&copy, 0, "b").await.unwrap();
        numbers.push(number(0, &there.target));
        calls.down(&copy, 0, "b").await.unwrap();
        calls.delete(&copy).await.unwrap();
    }
    let in_order = numbers[0] == numbers[1] || numbers[0] == numbers[1] + 1;
    assert!(numbers[1] > 2 && in_order, "{numbers:?}");
    let rounds = String::from_utf8(rounds.stdout).unwrap();
    assert!(rounds.trim().parse::<u64>().unwrap() >= numbers[0]);
    calls.delete_group(&group, &members).await.unwrap();
    for (host, volume) in volumes.iter().enumerate() {
        calls.down(volume, host, "a").await.unwrap();
        calls.delete(volume).await.unwrap();
    }
    sweep(&chain, &[]);
}
