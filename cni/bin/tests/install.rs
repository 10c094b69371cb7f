//! The installer: complete files or none, nothing rewritten for nothing, and a running plugin is not disturbed.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of a test program are tests, too"
)]

mod fake;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rstest::rstest;
use serde_json::{Value, json};

struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, program: impl AsRef<Path>, verb: &str, more: &[&str]) -> Output {
        Command::new(program.as_ref())
            .arg(verb)
            .args([Path::new("--bin-dir"), &self.path("opt/cni/bin")])
            .arg(format!("--conf-dir={}", self.path("net.d").display()))
            .args(more)
            .output()
            .unwrap()
    }

    fn install(&self, program: impl AsRef<Path>, more: &[&str]) -> String {
        let output = self.run(program, "install", more);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn program(&self) -> PathBuf {
        self.path("opt/cni/bin/outboard")
    }

    fn conflist(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("net.d/05-outboard.conflist")).unwrap()).unwrap()
    }

    /// A newer build: ELF does not mind bytes behind its end.
    fn next_build(&self) -> PathBuf {
        let path = self.path("next");
        // By another process: a file that this one has open for writing can't be executed, and a child that another
        // test is just starting may hold it open for a moment longer.
        let script = "cp \"$1\" \"$2\" && printf next >>\"$2\"";
        let made = Command::new("sh")
            .args(["-c", script, "sh", fake::PROGRAM])
            .arg(&path)
            .status();
        assert!(made.unwrap().success());
        path
    }
}

fn same(a: impl AsRef<Path>, b: impl AsRef<Path>) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}

#[test]
fn a_first_install_makes_directories_and_a_conflist_for_old_and_new_runtimes() {
    let host = Host::new();
    host.install(fake::PROGRAM, &[]);
    assert!(same(host.program(), fake::PROGRAM));
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(host.program()), 0o755);
    assert_eq!(mode(host.path("net.d/05-outboard.conflist")), 0o644);
    assert_eq!(
        host.conflist(),
        json!({
            "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "outboard",
            "plugins": [{"type": "outboard", "socket": "/run/outboard/cni.sock"}],
        })
    );
}

#[test]
fn a_second_install_touches_nothing_and_a_changed_one_only_what_changed() {
    let host = Host::new();
    host.install(fake::PROGRAM, &[]);
    let inodes = || {
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        (
            inode(host.program()),
            inode(host.path("net.d/05-outboard.conflist")),
        )
    };
    let before = inodes();
    let said = host.install(fake::PROGRAM, &[]);
    assert_eq!(said.matches("unchanged").count(), 2, "{said}");
    assert_eq!(inodes(), before);

    let said = host.install(
        fake::PROGRAM,
        &["--socket", "/run/x.sock", "--cni-version", "1.1.0"],
    );
    assert_eq!(
        (
            said.matches("unchanged").count(),
            said.matches("installed").count()
        ),
        (1, 1)
    );
    assert_eq!(inodes().0, before.0);
    assert_eq!(host.conflist()["plugins"][0]["socket"], "/run/x.sock");
    assert_eq!(host.conflist()["cniVersion"], "1.1.0");
    assert_eq!(host.conflist().get("cniVersions"), None);

    fs::set_permissions(host.program(), fs::Permissions::from_mode(0o644)).unwrap();
    host.install(fake::PROGRAM, &[]);
    assert_eq!(
        fs::metadata(host.program()).unwrap().permissions().mode() & 0o777,
        0o755
    );
}

#[test]
fn a_running_plugin_is_replaced_without_disturbing_it() {
    let host = Host::new();
    host.install(fake::PROGRAM, &[]);
    let home = fake::Home::new();
    home.serve(vec![fake::nothing()]);
    let mut old = Command::new(host.program())
        .env_clear()
        .envs(fake::attachment("DEL"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It waits for its standard input meanwhile.
    let next = host.next_build();
    host.install(&next, &[]);
    assert!(same(host.program(), &next));
    old.stdin
        .take()
        .unwrap()
        .write_all(home.config("1.0.0", &json!({})).as_bytes())
        .unwrap();
    let output = old.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_reader_sees_one_build_or_the_other_never_a_part() {
    let host = Host::new();
    host.install(fake::PROGRAM, &[]);
    let next = host.next_build();
    let builds = [fs::read(fake::PROGRAM).unwrap(), fs::read(&next).unwrap()];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert!(builds.contains(&fs::read(host.program()).unwrap()));
            }
        });
        let writers: Vec<_> = [PathBuf::from(fake::PROGRAM), next.clone()]
            .into_iter()
            .map(|build| {
                let host = &host;
                scope.spawn(move || (0..8).for_each(|_| drop(host.install(&build, &[]))))
            })
            .collect();
        let installed: Vec<_> = writers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        assert!(installed.iter().all(Result::is_ok));
    });
    let left: Vec<_> = fs::read_dir(host.path("opt/cni/bin")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn leftovers_of_a_killed_installer_go_and_a_symbolic_link_is_replaced_not_followed() {
    let host = Host::new();
    fs::create_dir_all(host.path("opt/cni/bin")).unwrap();
    let stale = host.path("opt/cni/bin/.outboard.7-7.tmp");
    let file = fs::File::create(&stale).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let elsewhere = host.path("elsewhere");
    fs::write(&elsewhere, "mine").unwrap();
    std::os::unix::fs::symlink(&elsewhere, host.program()).unwrap();
    host.install(fake::PROGRAM, &[]);
    assert!(!stale.exists());
    assert_eq!(fs::read(&elsewhere).unwrap(), b"mine");
    assert!(fs::symlink_metadata(host.program()).unwrap().is_file());
}

#[test]
fn uninstall_removes_both_and_says_when_there_is_nothing() {
    let host = Host::new();
    host.install(fake::PROGRAM, &["--conf-name", "07-x.conflist"]);
    for expected in ["removed", "not there"] {
        let output = host.run(fake::PROGRAM, "uninstall", &["--conf-name=07-x.conflist"]);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.matches(expected).count(), 2, "{said}");
    }
    assert!(!host.program().exists() && !host.path("net.d/07-x.conflist").exists());
}

#[rstest]
#[case(&["--socket", "run/x"], "is not an absolute path")]
#[case(&["--conf-name", "a/b.conflist"], "is not a file name")]
#[case(&["--conf-name", "05.json"], "ends in .conflist")]
#[case(&["--cni-version", "0.4.0"], "neither 1.0.0 nor 1.1.0")]
#[case(&["--socket"], "needs a value")]
#[case(&["--colour", "red"], "unknown argument")]
fn a_bad_flag_is_64_with_one_line(#[case] flags: &[&str], #[case] cause: &str) {
    let host = Host::new();
    let output = host.run(fake::PROGRAM, "install", flags);
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(cause) && said.lines().count() == 1, "{said}");
    assert!(!host.program().exists());
}

#[test]
fn a_directory_that_can_not_be_is_named() {
    let host = Host::new();
    fs::write(host.path("opt"), "").unwrap();
    let output = host.run(fake::PROGRAM, "install", &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("opt/cni/bin") && said.contains("writable"),
        "{said}"
    );
}

#[test]
fn help_and_version_are_there() {
    let said = |flag: &str| {
        let output = Command::new(fake::PROGRAM).arg(flag).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said("--help").contains("--conf-dir"));
    assert_eq!(
        said("--version"),
        format!("outboard {}\n", env!("CARGO_PKG_VERSION"))
    );
    let output = Command::new(fake::PROGRAM).arg("fly").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
}
