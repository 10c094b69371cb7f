//! What storage must do, as checks with evidence: claims of a StorageClass on both nodes, and what becomes of the data.
//!
//! The checks are steps of a story: each stands on what an earlier one has left. One whose ground is not there is not
//! tried, and says so.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{NAMESPACE, Seen};
use crate::lab::Lab;
use crate::volumes::{Claim, From, Log, Mode, User, Volumes};

/// A class of its own: the file system that grows while it is mounted wherever the lab runs.
const CLASS: &str = "demo-xfs";
const WRITES: &str = "claim → pod, ext4: written and read back";
const MOVES: &str = "pod moved to the other node, with its data";
/// Mebibytes of random data.
const SOME: u32 = 32;
const LOG: Log<'static> = Log {
    path: "/data/log",
    ring: 0,
};
/// Of the volume that grows, before and after.
const SIZES: [&str; 2] = ["384Mi", "768Mi"];
/// So much has the writer to write after the volume has grown.
const MORE: u64 = 20;
const LIMIT: Duration = Duration::from_secs(120);

/// One row of the table.
pub struct VolumeCheck {
    /// What is shown.
    pub what: &'static str,
    /// Who uses it.
    pub from: &'static str,
    /// What is used.
    pub to: &'static str,
    /// The check that must have been good before.
    needs: Option<&'static str>,
    probe: fn(&mut VolumeScene<'_>) -> Result<Seen>,
}

/// Claims and pods that use them.
pub struct VolumeScene<'a> {
    lab: &'a Lab,
    volumes: Volumes<'a>,
    begun: Instant,
    good: BTreeSet<&'static str>,
    /// MD5 of what is on the first volume.
    md5: String,
}

/// All checks, in the order of the table.
pub fn of_volumes() -> Vec<VolumeCheck> {
    let check = |what, from, to, needs, probe| VolumeCheck {
        what,
        from,
        to,
        needs,
        probe,
    };
    vec![
        check(WRITES, "writer (n1)", "claim data", None, |s| s.writes()),
        check(MOVES, "reader (n2)", "claim data", Some(WRITES), |s| {
            s.moves()
        }),
        check(
            "snapshot → restored as another volume",
            "restored (n1)",
            "snapshot of data",
            Some(MOVES),
            |s| s.restores(),
        ),
        check(
            "volume grows under a writer, xfs",
            "logger (n1)",
            "claim log",
            Some(WRITES),
            |s| s.grows(),
        ),
        check(
            "raw disk, written and read back",
            "raw (n2)",
            "claim disk",
            Some(WRITES),
            |s| s.raw(),
        ),
        check(
            "one raw disk on two nodes at once",
            "left (n1), right (n2)",
            "claim shared",
            Some(WRITES),
            |s| s.shared(),
        ),
    ]
}

impl VolumeCheck {
    /// Does it. Unlike a question over the network it is not asked again.
    ///
    /// # Errors
    /// It does not work: the message has what the cluster says of it.
    pub fn run(&self, scene: &mut VolumeScene<'_>) -> Result<Seen> {
        if let Some(ground) = self.needs.filter(|ground| !scene.good.contains(ground)) {
            bail!("not tried: it stands on {ground:?}, which is not good");
        }
        let seen = (self.probe)(scene)?;
        scene.good.insert(self.what);
        Ok(seen)
    }
}

impl<'a> VolumeScene<'a> {
    /// Makes a class, the claims and their first pods, in the scene's namespace; waits for none of them.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn deploy(lab: &'a Lab) -> Result<Self> {
        lab.apply(&format!(
            "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: {CLASS}}}\n\
             provisioner: csi.iaas.yusur.io\nallowVolumeExpansion: true\n\
             parameters: {{csi.storage.k8s.io/fstype: xfs}}\n"
        ))?;
        let volumes = Volumes::new(lab, NAMESPACE);
        let begun = Instant::now();
        let file = |name, size| Claim::new(name, size, Mode::Filesystem);
        let disk = |name| Claim::new(name, "64Mi", Mode::Block);
        let grows = Claim {
            class: CLASS,
            ..file("log", SIZES[0])
        };
        let shared = Claim {
            access: "ReadWriteMany",
            ..disk("shared")
        };
        for claim in [file("data", "128Mi"), grows, disk("disk"), shared] {
            volumes.claim(&claim)?;
        }
        let users = [
            User::new("writer", "data", Mode::Filesystem).on("n1"),
            User::new("logger", "log", Mode::Filesystem)
                .on("n1")
                .writing(LOG),
            User::new("raw", "disk", Mode::Block).on("n2"),
            User::new("left", "shared", Mode::Block).on("n1"),
            User::new("right", "shared", Mode::Block).on("n2"),
        ];
        for user in users {
            volumes.create(&user)?;
        }
        Ok(Self {
            lab,
            volumes,
            begun,
            good: BTreeSet::new(),
            md5: String::new(),
        })
    }

    fn writes(&mut self) -> Result<Seen> {
        self.volumes.ready("writer")?;
        let ready = self.begun.elapsed();
        let begun = Instant::now();
        self.md5 = self.volumes.fill("writer", "/data/bytes", SOME)?;
        let seen = self.same("writer", begun)?;
        Ok(Seen::new(
            format!(
                "{}; its first pod was Ready within {:.0} s",
                seen.text,
                ready.as_secs_f64()
            ),
            seen.ms,
        ))
    }

    fn moves(&mut self) -> Result<Seen> {
        let begun = Instant::now();
        let reader = User::new("reader", "data", Mode::Filesystem).on("n2");
        self.volumes.replace("writer", &reader)?;
        self.same("reader", begun)
    }

    /// What is written after the snapshot is not in it.
    fn restores(&mut self) -> Result<Seen> {
        let begun = Instant::now();
        self.volumes.snapshot("before", "data")?;
        let new = self.volumes.fill("reader", "/data/bytes", SOME)?;
        let claim = Claim {
            from: Some(From::Snapshot("before")),
            ..Claim::new("restored", "128Mi", Mode::Filesystem)
        };
        self.volumes.claim(&claim)?;
        let user = User::new("restored", "restored", Mode::Filesystem).on("n1");
        self.volumes.start(&user)?;
        let seen = self.same("restored", begun)?;
        self.volumes.holds("reader", "/data/bytes", SOME, &new)?;
        let text = format!("{}, and {} in its source", seen.text, short(&new));
        Ok(Seen::new(text, seen.ms))
    }

    fn grows(&mut self) -> Result<Seen> {
        let volumes = &self.volumes;
        volumes.ready("logger")?;
        volumes.advance("logger", MORE)?;
        let size = || -> Result<u64> {
            let script = "df -k /data | tail -n 1 | awk '{print $2}'";
            let text = volumes.sh("logger", script)?;
            let kib: u64 = text.parse().with_context(|| format!("df says {text:?}"))?;
            Ok(kib / 1024)
        };
        let before = size()?;
        let begun = Instant::now();
        self.ask_for_more()?;
        let capacity = format!("jsonpath={{.status.capacity.storage}}={}", SIZES[1]);
        volumes.wait("pvc/log", &capacity, LIMIT)?;
        let time = begun.elapsed();
        let after = size()?;
        ensure!(
            after > before + before / 2,
            "the claim says {}, but df in the pod says {before} MiB before and {after} after",
            SIZES[1]
        );
        volumes.advance("logger", MORE)?;
        let written = volumes.stop_writer("logger")?;
        let blocks = volumes.verify("logger", LOG, written)?;
        let text = format!(
            "{before} → {after} MiB, {blocks} blocks intact, the slowest took {} ms",
            written.longest.as_millis()
        );
        Ok(Seen::new(text, milliseconds(time)))
    }

    /// kubelet looks at a pod's claims when the pod is synchronized: once a minute, or when it changes. It is changed.
    fn ask_for_more(&self) -> Result<()> {
        let patch = format!(
            r#"{{"spec":{{"resources":{{"requests":{{"storage":"{}"}}}}}}}}"#,
            SIZES[1]
        );
        let lab = self.lab;
        lab.kubectl(&["patch", "-n", NAMESPACE, "pvc", "log", "-p", &patch])?;
        let disk = "jsonpath={.status.conditions[?(@.type==\"FileSystemResizePending\")].status}";
        lab.wait_for("the disk of claim log to grow", LIMIT, |lab| {
            Ok(lab.kubectl(&["get", "-n", NAMESPACE, "pvc", "log", "-o", disk])? == "True")
        })?;
        let touch = ["annotate", "-n", NAMESPACE, "pod", "logger", "grows=now"];
        lab.kubectl(&touch).map(drop)
    }

    fn raw(&mut self) -> Result<Seen> {
        self.volumes.ready("raw")?;
        let begun = Instant::now();
        let md5 = self.volumes.fill("raw", "/dev/disk", SOME)?;
        self.volumes.holds("raw", "/dev/disk", SOME, &md5)?;
        let time = begun.elapsed();
        Ok(Seen::new(sum(&md5), milliseconds(time)))
    }

    /// Each reads, past its node's page cache, what the other one wrote.
    fn shared(&mut self) -> Result<Seen> {
        let volumes = &self.volumes;
        volumes.ready("left")?;
        volumes.ready("right")?;
        let begun = Instant::now();
        let mut sums = Vec::new();
        for (writer, reader) in [("left", "right"), ("right", "left")] {
            let md5 = volumes.fill(writer, "/dev/disk", 4)?;
            volumes.holds(reader, "/dev/disk", 4, &md5)?;
            sums.push(format!("{reader} reads {}", short(&md5)));
        }
        Ok(Seen::new(sums.join(", "), milliseconds(begun.elapsed())))
    }

    /// The first volume's bytes, or a copy of them, as `pod` reads them from the disk.
    fn same(&self, pod: &str, begun: Instant) -> Result<Seen> {
        let md5 = &self.md5;
        self.volumes.holds(pod, "/data/bytes", SOME, md5)?;
        Ok(Seen::new(sum(md5), milliseconds(begun.elapsed())))
    }

    /// Deletes pods, claims, snapshots and the class, and waits until no volume of theirs is left in the cluster.
    ///
    /// # Errors
    /// Something stays.
    pub fn remove(self) -> Result<()> {
        let delete = |what: &[&str]| {
            let always = ["delete", "--ignore-not-found", "--wait", "--timeout=90s"];
            self.lab.kubectl(&[&always, what].concat())
        };
        delete(&[
            "-n",
            NAMESPACE,
            "pod",
            "-l",
            "app in (writer,reader,restored,logger,raw,left,right)",
        ])?;
        delete(&["-n", NAMESPACE, "volumesnapshot", "--all"])?;
        delete(&["-n", NAMESPACE, "pvc", "--all"])?;
        let kinds = "persistentvolumes,volumeattachments,volumesnapshotcontents";
        self.lab.wait_for("the volumes to go", LIMIT, |lab| {
            let left = lab.kubectl(&["get", kinds, "-o", "name"])?;
            ensure!(left.is_empty(), "there still are:\n{left}");
            Ok(true)
        })?;
        delete(&["storageclass", CLASS])?;
        Ok(())
    }
}

fn sum(md5: &str) -> String {
    format!("{SOME} MiB, MD5 {}", short(md5))
}

/// Enough to tell sums apart by eye.
fn short(md5: &str) -> &str {
    md5.get(..8).unwrap_or(md5)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
