//! Volumes on several hosts at once, and volumes that are only read.

use e2e::storage::calls::Usage;
use proto::csi::v1::volume_capability::access_mode::Mode;
use tonic::Code;

use crate::world::{MIB, fill, sh, sum, sweep, two_hosts};

/// Past the cache of the host.
fn write(script_disk: &std::path::Path, at: u64, word: &str) -> String {
    let disk = script_disk.display();
    format!(
        "printf '%-4096s' {word} | dd of={disk} bs=4k seek={at} iflag=fullblock oflag=direct conv=notrunc 2>/dev/null"
    )
}

fn read(disk: &std::path::Path, at: u64) -> String {
    let disk = disk.display();
    format!("dd if={disk} bs=4k skip={at} count=1 iflag=direct 2>/dev/null")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_disk_on_two_hosts_at_once() {
    let chain = two_hosts(true);
    let calls = chain.clients();
    let usage = Usage::block().mode(Mode::MultiNodeMultiWriter);
    let volume = calls.create_for("shared", 32 * MIB, usage).await.unwrap();
    let a = calls.up(&volume, 0, "a").await.unwrap().target;
    let b = calls.up(&volume, 1, "b").await.unwrap().target;
    for round in 0..8 {
        sh(&chain, 0, &write(&a, round, &format!("from-a-{round}")));
        assert_eq!(
            sh(&chain, 1, &read(&b, round)).trim(),
            format!("from-a-{round}")
        );
        sh(
            &chain,
            1,
            &write(&b, 100 + round, &format!("from-b-{round}")),
        );
        assert_eq!(
            sh(&chain, 0, &read(&a, 100 + round)).trim(),
            format!("from-b-{round}")
        );
    }
    // One goes: the other one does not notice.
    calls.down(&volume, 0, "a").await.unwrap();
    sh(&chain, 1, &write(&b, 200, "alone"));
    assert_eq!(sh(&chain, 1, &read(&b, 200)).trim(), "alone");
    let grown = calls.expand(&volume, 48 * MIB).await.unwrap();
    calls.node_expand(&volume, 1, "b", grown).await.unwrap();
    let a = calls.up(&volume, 0, "a").await.unwrap().target;
    assert_eq!(sh(&chain, 0, &read(&a, 200)).trim(), "alone");
    let size = sh(&chain, 0, &format!("blockdev --getsize64 {}", a.display()));
    assert_eq!(size, grown.to_string());
    calls.down(&volume, 1, "b").await.unwrap();
    calls.down(&volume, 0, "a").await.unwrap();
    calls.delete(&volume).await.unwrap();
    sweep(&chain, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_reading_alone_can_not_be_written() {
    let chain = two_hosts(true);
    let calls = chain.clients();
    let volume = calls.create("read", 32 * MIB, &[]).await.unwrap();
    let there = calls.up(&volume, 0, "a").await.unwrap();
    let written = fill(&chain, 0, &there.target.join("data"), 8);

    // A second host while the first one writes: no.
    let other = calls.once().publish(&volume, 1).await.unwrap_err();
    assert_eq!(other.code(), Code::FailedPrecondition, "{other}");
    assert!(other.message().contains("n1"), "{other}");
    calls.down(&volume, 0, "a").await.unwrap();

    let many = volume
        .clone()
        .with(Usage::files("ext4").mode(Mode::MultiNodeReaderOnly));
    let one = volume.clone().with(Usage::files("ext4").read_only());
    for (volume, hosts) in [(&one, vec![1]), (&many, vec![0, 1])] {
        for &host in &hosts {
            let there = calls.up(volume, host, "r").await.unwrap();
            assert_eq!(sum(&chain, host, &there.target.join("data"), 8), written);
            let refused = std::fs::write(there.seen.join("new"), "").unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
            // Not even by who takes the disk itself.
            let disk = sh(
                &chain,
                host,
                &format!("findmnt -no SOURCE {}", there.target.display()),
            );
            let disk = disk.lines().next().unwrap();
            assert_eq!(sh(&chain, host, &format!("blockdev --getro {disk}")), "1");
        }
        for &host in &hosts {
            calls.down(volume, host, "r").await.unwrap();
        }
    }
    calls.delete(&volume).await.unwrap();
    sweep(&chain, &[]);
}
