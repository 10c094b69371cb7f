//! The guest, and this crate's eyes in it.

use std::path::PathBuf;

use lab::host_vm::{HostVm, HostVmSpec};
use serde_json::Value;

/// A guest that has the program `card-probe`.
pub(crate) struct Machine {
    vm: HostVm,
    probe: PathBuf,
    _dir: tempfile::TempDir,
}

impl Machine {
    /// Boots it with `modules` and what `change` adds.
    pub(crate) fn boot(modules: &[&str], change: impl FnOnce(&mut HostVmSpec)) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the machine");
        let probe = PathBuf::from(env!("CARGO_BIN_EXE_card-probe"));
        let mut spec = HostVmSpec::new(dir.path());
        spec.functions = 1;
        spec.cpus = 1;
        spec.programs = vec!["/bin/ip".into(), "/sbin/devlink".into(), probe.clone()];
        spec.modules = modules.iter().map(|module| (*module).to_owned()).collect();
        change(&mut spec);
        let vm = HostVm::boot(spec).unwrap_or_else(|why| panic!("{why:#}"));
        Self {
            vm,
            probe,
            _dir: dir,
        }
    }

    /// Runs a script; `ip` in it is the real one.
    pub(crate) fn run(&self, script: &str) -> String {
        // A function goes before busybox's own.
        let script = format!("set -e\nip() {{ /bin/ip \"$@\"; }}\n{script}");
        self.vm.run(&script).unwrap_or_else(|why| panic!("{why:#}"))
    }

    /// What `card-probe` answers.
    pub(crate) fn ask(&self, question: &str) -> Value {
        let said = self.run(&format!("{} {question}", self.probe.display()));
        serde_json::from_str(&said).unwrap_or_else(|why| panic!("{question}: {why}: {said}"))
    }

    /// The sentence in which `card-probe` refuses.
    pub(crate) fn refusal(&self, question: &str) -> String {
        self.run(&format!("! {} {question} 2>&1", self.probe.display()))
    }
}
