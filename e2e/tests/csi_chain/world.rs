//! What the tests do beside the steps of CSI.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use e2e::storage::{Chain, ChainConfig};

pub(crate) const MIB: u64 = 1 << 20;

/// Two hosts; the volumes' target is on the first one.
pub(crate) fn two_hosts(tls: bool) -> Chain {
    let config = ChainConfig {
        hosts: vec!["n1", "n2"],
        tls,
        ..ChainConfig::default()
    };
    Chain::start(config).unwrap()
}

/// What a script prints that runs among the host's mounts.
#[track_caller]
pub(crate) fn sh(chain: &Chain, host: usize, script: &str) -> String {
    let output = chain
        .command(host, "sh")
        .args(["-ec", script])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Fills a file, or the beginning of a disk, with so many MiB that nobody has seen before, durably; gives their sum.
#[track_caller]
pub(crate) fn fill(chain: &Chain, host: usize, path: &Path, mib: u64) -> String {
    let path = path.display();
    sh(
        chain,
        host,
        &format!("dd if=/dev/urandom of={path} bs=1M count={mib} conv=fsync,notrunc 2>/dev/null"),
    );
    // From the volume, not from the cache.
    sh(chain, host, "echo 3 >/proc/sys/vm/drop_caches");
    sum(chain, host, Path::new(&path.to_string()), mib)
}

/// The md5 sum of a file's first MiB.
#[track_caller]
pub(crate) fn sum(chain: &Chain, host: usize, path: &Path, mib: u64) -> String {
    let script = format!("head -c {} {} | md5sum", mib * MIB, path.display());
    sh(chain, host, &script)
}

/// Nothing is left, and nobody has said one of these.
#[track_caller]
pub(crate) fn sweep(chain: &Chain, secrets: &[&str]) {
    let logs = chain.logs().unwrap();
    for secret in secrets {
        assert!(!logs.contains(secret), "a secret is in a log");
    }
    for key in keys(chain.dir()) {
        assert!(!logs.contains(&key), "a private key is in a log");
    }
    assert_eq!(chain.leaks().unwrap(), Vec::<String>::new());
}

/// A line of every private key below a directory.
fn keys(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(keys(&path));
        } else if path.to_string_lossy().ends_with("-key.pem") {
            let text = std::fs::read_to_string(path).unwrap();
            found.push(text.lines().nth(1).unwrap().to_owned());
        }
    }
    found
}

/// Writes numbered records, each durable before the next; an error is one of the test.
pub(crate) struct Writer {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

const RECORD: usize = 4096;

fn record(number: u64) -> Vec<u8> {
    let word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    word.iter().copied().cycle().take(RECORD).collect()
}

impl Writer {
    /// Into a file as this process sees it.
    pub(crate) fn start(path: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, to) = (Arc::clone(&stop), path.clone());
        let thread = std::thread::spawn(move || {
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(to)
                .unwrap();
            let mut written = 0;
            while !told.load(Ordering::Relaxed) {
                file.write_all(&record(written)).unwrap();
                file.sync_data().unwrap();
                written += 1;
            }
            written
        });
        Self { path, stop, thread }
    }

    /// All that was acknowledged is there: how many records.
    pub(crate) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let written = self.thread.join().unwrap();
        let mut file = File::open(&self.path).unwrap();
        let mut bytes = vec![0; RECORD];
        for number in 0..written {
            std::io::Read::read_exact(&mut file, &mut bytes).unwrap();
            assert!(bytes == record(number), "record {number} of {written}");
        }
        written
    }
}
