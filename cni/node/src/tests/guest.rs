//! Tests that need another kernel: the calling test once more, in a QEMU guest with Debian's.

use std::process::Command;
use std::time::Duration;

use lab::host_vm::{HostVm, HostVmSpec};

const MARK: &str = "OUTBOARD_TEST_GUEST";
/// Seconds of the guest are minutes where others compile.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs `body` in a guest, of which `machine` says more. `test` is the full name of the calling test, without the crate.
/// Scripts in it call iproute2's `ip` by its path, `/bin/ip`.
pub(crate) fn in_guest(
    test: &str,
    machine: impl FnOnce(&mut HostVmSpec),
    body: impl Future<Output = ()>,
) {
    if std::env::var_os(MARK).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(body);
    }
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("test");
    // Nine tenths of it are for debuggers, and the guest has its files in memory.
    let stripped = Command::new("strip")
        .arg("-o")
        .arg(&program)
        .arg(std::env::current_exe().unwrap())
        .status()
        .expect("strip of binutils runs (make setup)");
    assert!(stripped.success(), "strip");
    let mut spec = HostVmSpec::new(dir.path());
    spec.functions = 1;
    spec.cpus = 1;
    spec.memory = 1024;
    spec.programs = vec!["/bin/ip".into(), "/sbin/devlink".into(), program.clone()];
    machine(&mut spec);
    let vm = HostVm::boot(spec).unwrap_or_else(|why| panic!("{why:#}"));
    let script = format!(
        "{MARK}=1 {} --exact {test} --nocapture --test-threads=1 2>&1",
        program.display()
    );
    let output = vm
        .start(&script)
        .and_then(|task| task.finish(LIMIT))
        .unwrap_or_else(|why| panic!("{test} in its guest: {why:#}"));
    let said = output.out;
    assert_eq!(output.code, 0, "{test} in its guest: {said}");
    assert!(
        said.contains("1 passed"),
        "no test is called {test}: {said}"
    );
}
