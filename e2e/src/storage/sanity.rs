//! `csi-sanity`, run and counted.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::images;

/// The calls for which the suite takes secrets.
const SECRETS: [&str; 13] = [
    "CreateVolumeSecret",
    "DeleteVolumeSecret",
    "ControllerPublishVolumeSecret",
    "ControllerUnpublishVolumeSecret",
    "ControllerValidateVolumeCapabilitiesSecret",
    "NodeStageVolumeSecret",
    "NodePublishVolumeSecret",
    "CreateSnapshotSecret",
    "DeleteSnapshotSecret",
    "ControllerExpandVolumeSecret",
    "ListSnapshotsSecret",
    "ControllerModifyVolumeSecret",
    "GetSnapshotSecret",
];

/// What is run. Everything optional in the suite is on: attach limit, modify, expand, secrets.
#[derive(Debug, Clone)]
pub struct Suite {
    /// An existing directory for the suite's files; staging and target paths are made below it.
    pub dir: PathBuf,
    /// `--csi.endpoint`: the node's.
    pub node: PathBuf,
    /// `--csi.controllerendpoint`, if it is another.
    pub controller: Option<PathBuf>,
    /// Raw disks instead of file systems (`--csi.testvolumeaccesstype`).
    pub block: bool,
    /// Bytes of a volume, and of one that has grown.
    pub sizes: (u64, u64),
    /// Given as secret of every call; for the search of the logs.
    pub secret: String,
    /// Regular expression of the specs to be run; empty: all.
    pub focus: String,
    /// Regular expression of those not to be run; empty: none.
    pub skip: String,
}

/// How the specs ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many passed.
    pub passed: usize,
    /// Those that failed, and why.
    pub failed: Vec<Spec>,
    /// Those that found nothing to do, and why. (Not those that focus and skip left out.)
    pub skipped: Vec<Spec>,
}

/// A spec that did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its full name.
    pub name: String,
    /// In its own words.
    pub why: String,
}

impl Suite {
    /// Everything, with file systems.
    pub fn new(dir: impl Into<PathBuf>, node: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            node: node.into(),
            controller: None,
            block: false,
            sizes: (16 << 20, 32 << 20),
            secret: "hunter2".to_owned(),
            focus: String::new(),
            skip: String::new(),
        }
    }

    /// Runs it. Specs that fail are no error.
    ///
    /// # Errors
    /// The suite can't be run, or says nothing of how it ended.
    pub fn run(&self) -> Result<Outcome> {
        self.run_in(|program| Command::new(program))
    }

    /// The same, the program being run by what `command` makes of its path: elsewhere, say, in a mount namespace.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_in(&self, command: impl FnOnce(&str) -> Command) -> Result<Outcome> {
        let report = self.dir.join("sanity.json");
        let _ = std::fs::remove_file(&report);
        let program = images::tool("csi-sanity")?;
        let mut command = command(&program);
        command.args(self.arguments(&report)?);
        let output = command
            .output()
            .with_context(|| format!("cannot run {program}"))?;
        let said = || {
            let text = [output.stdout.as_slice(), &output.stderr].concat();
            String::from_utf8_lossy(&text).into_owned()
        };
        let report = std::fs::read(&report).with_context(|| format!("no report\n{}", said()))?;
        let outcome = Outcome::read(&serde_json::from_slice(&report)?);
        let fine = output.status.success() || !outcome.failed.is_empty();
        ensure!(fine, "csi-sanity: {}\n{}", output.status, said());
        Ok(outcome)
    }

    fn arguments(&self, report: &Path) -> Result<Vec<String>> {
        let write = |name: &str, text: &str| -> Result<String> {
            let path = self.dir.join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path.display().to_string())
        };
        let mut secrets = String::new();
        for name in SECRETS {
            writeln!(secrets, "{name}: {{password: {}}}", self.secret)?;
        }
        let access = if self.block { "block" } else { "mount" };
        let mut all = vec![
            format!("--csi.endpoint={}", self.node.display()),
            // Not there yet: the suite makes them.
            format!("--csi.mountdir={}", self.dir.join("target").display()),
            format!("--csi.stagingdir={}", self.dir.join("staging").display()),
            format!("--csi.secrets={}", write("secrets.yaml", &secrets)?),
            format!(
                "--csi.testvolumemutableparameters={}",
                write("mutable.yaml", "iops: \"1000\"\n")?
            ),
            format!("--csi.testvolumeaccesstype={access}"),
            format!("--csi.testvolumesize={}", self.sizes.0),
            format!("--csi.testvolumeexpandsize={}", self.sizes.1),
            "--csi.testnodevolumeattachlimit".to_owned(),
            format!("--ginkgo.json-report={}", report.display()),
            "--ginkgo.no-color".to_owned(),
            "--ginkgo.timeout=10m".to_owned(),
        ];
        if let Some(controller) = &self.controller {
            all.push(format!("--csi.controllerendpoint={}", controller.display()));
        }
        if !self.focus.is_empty() {
            all.push(format!("--ginkgo.focus={}", self.focus));
        }
        if !self.skip.is_empty() {
            all.push(format!("--ginkgo.skip={}", self.skip));
        }
        Ok(all)
    }
}

impl Outcome {
    /// From ginkgo's report.
    fn read(report: &Value) -> Self {
        let mut outcome = Self::default();
        for spec in report[0]["SpecReports"].as_array().into_iter().flatten() {
            if spec["LeafNodeType"] != "It" {
                continue;
            }
            let containers = spec["ContainerHierarchyTexts"].as_array();
            let mut name: Vec<&str> = containers
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            name.extend(spec["LeafNodeText"].as_str());
            let of = |why: &str| Spec {
                name: name.join(" "),
                why: why.to_owned(),
            };
            let why = spec["Failure"]["Message"].as_str().unwrap_or_default();
            match spec["State"].as_str() {
                Some("passed") => outcome.passed += 1,
                Some("pending") => outcome.skipped.push(of("pending in the suite itself")),
                // Without a message: left out by focus or skip.
                Some("skipped") if why.is_empty() => {}
                Some("skipped") => outcome.skipped.push(of(why)),
                _ => outcome.failed.push(of(why)),
            }
        }
        outcome
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "csi-sanity: {} passed, {} failed, {} skipped",
            self.passed,
            self.failed.len(),
            self.skipped.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_is_counted() {
        let spec = |state: &str, text: &str, why: &str| {
            json!({ "LeafNodeType": "It", "LeafNodeText": text, "ContainerHierarchyTexts": ["Node Service"],
                "State": state, "Failure": { "Message": why } })
        };
        let report = json!([{ "SpecReports": [
            spec("passed", "a", ""),
            spec("failed", "b", "no"),
            spec("skipped", "c", ""),
            spec("skipped", "d", "not supported"),
            spec("pending", "e", ""),
            { "LeafNodeType": "ReportAfterSuite", "State": "passed" },
        ]}]);
        let outcome = Outcome::read(&report);
        let spec = |name: &str, why: &str| Spec {
            name: name.into(),
            why: why.into(),
        };
        assert_eq!(outcome.passed, 1);
        assert_eq!(outcome.failed, [spec("Node Service b", "no")]);
        let pending = spec("Node Service e", "pending in the suite itself");
        assert_eq!(
            outcome.skipped,
            [spec("Node Service d", "not supported"), pending]
        );
        assert_eq!(outcome.line(), "csi-sanity: 1 passed, 1 failed, 2 skipped");
    }
}
