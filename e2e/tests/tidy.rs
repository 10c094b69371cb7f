//! The invariants of ARCHITECTURE.md that a machine can check.
//!
//! Each test reads the tree as text or `cargo metadata`; none builds or starts anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Lines a source file may have before it answers more than one question.
const FILE_LINES: usize = 400;
/// Lines of a `main.rs`: parse the configuration, call `run`.
const MAIN_LINES: usize = 30;
/// Module names that say nothing.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "common", "helpers", "manager", "types"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e/ lies in the workspace")
        .into()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

/// Every Rust file that git tracks or would track.
fn sources() -> Vec<PathBuf> {
    let out = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "*.rs",
        ])
        .current_dir(root())
        .output()
        .expect("run git (`make setup` installs it)");
    assert!(
        out.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    let list = String::from_utf8(out.stdout).expect("file names are UTF-8");
    let files: Vec<_> = list
        .lines()
        .map(PathBuf::from)
        .filter(|f| root().join(f).exists())
        .collect();
    assert!(
        files.len() > 20,
        "git ls-files found only {} sources",
        files.len()
    );
    files
}

fn metadata() -> Value {
    let out = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--all-features",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(root())
        .output()
        .expect("run cargo metadata");
    assert!(
        out.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON")
}

fn packages(metadata: &Value) -> &Vec<Value> {
    metadata["packages"].as_array().expect("packages")
}

/// The workspace's own packages.
fn members(metadata: &Value) -> Vec<&Value> {
    let ids = metadata["workspace_members"].as_array().expect("members");
    packages(metadata)
        .iter()
        .filter(|p| ids.contains(&p["id"]))
        .collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// A file that is compiled only for tests, benches or examples.
fn is_test(file: &Path) -> bool {
    file.components().any(|c| {
        ["tests", "benches", "examples"]
            .iter()
            .any(|d| c.as_os_str() == *d)
    }) || file.file_stem().is_some_and(|s| s == "tests")
}

fn assert_none(what: &str, offenders: &[String]) {
    assert!(
        offenders.is_empty(),
        "{what}:\n  {}",
        offenders.join("\n  ")
    );
}

/// The fenced block `arrows` of ARCHITECTURE.md: `crate -> crates it may use`.
fn allowed_arrows() -> BTreeMap<String, BTreeSet<String>> {
    let text = read(&root().join("ARCHITECTURE.md"));
    let block = text
        .split("```arrows\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let block = block.expect("ARCHITECTURE.md has a fenced block `arrows`");
    block
        .lines()
        .filter(|l| !l.trim().is_empty())
        .map(|line| {
            let (from, to) = line
                .split_once("->")
                .unwrap_or_else(|| panic!("no arrow in `{line}`"));
            (
                from.trim().into(),
                to.split_whitespace().map(Into::into).collect(),
            )
        })
        .collect()
}

#[test]
fn arrows_are_those_of_architecture_md() {
    let metadata = metadata();
    let allowed = allowed_arrows();
    let ours: BTreeSet<_> = members(&metadata)
        .iter()
        .map(|p| text(p, "name").to_owned())
        .collect();
    assert_eq!(
        allowed.keys().cloned().collect::<BTreeSet<_>>(),
        ours,
        "crates in the arrows table"
    );
    let mut offenders = Vec::new();
    for package in members(&metadata) {
        let from = text(package, "name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = text(dependency, "name");
            // What a test uses does not shape the programs; only the lab may be used from tests.
            let tests_only = text(dependency, "kind") == "dev" && to == "e2e";
            if ours.contains(to) && !tests_only && !allowed[from].contains(to) {
                offenders.push(format!("{from} -> {to}"));
            }
        }
    }
    assert_none("edges that ARCHITECTURE.md does not list", &offenders);
}

#[test]
fn crates_with_one_user_keep_one_user() {
    let only = [("rtnetlink", "cni-node"), ("rscni-types", "cni-bin")];
    let metadata = metadata();
    let mut offenders = Vec::new();
    for package in members(&metadata) {
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            for (crate_name, user) in only {
                if text(dependency, "name") == crate_name && text(package, "name") != user {
                    offenders.push(format!("{} uses {crate_name}", text(package, "name")));
                }
            }
        }
    }
    assert_none("only one crate may use these", &offenders);
}

#[test]
fn plugin_has_no_async_runtime_and_no_kubernetes() {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "-p", "cni-bin", "-e", "normal", "--prefix", "none"])
        .current_dir(root())
        .output()
        .expect("run cargo tree");
    assert!(
        out.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    let tree = String::from_utf8(out.stdout).expect("UTF-8");
    let bad: Vec<_> = tree
        .lines()
        .filter(|l| {
            ["tokio", "kube", "tonic", "hyper"]
                .iter()
                .any(|c| l.split(' ').next() == Some(c))
        })
        .map(Into::into)
        .collect();
    assert_none("crates that the exec'd plugin must not load", &bad);
}

#[test]
fn files_answer_one_question() {
    let mut offenders = Vec::new();
    for file in sources() {
        let lines = read(&root().join(&file)).lines().count();
        let cap = if file.file_name().is_some_and(|n| n == "main.rs") {
            MAIN_LINES
        } else {
            FILE_LINES
        };
        if !is_test(&file) && lines > cap {
            offenders.push(format!("{}: {lines} lines, at most {cap}", file.display()));
        }
        if file
            .file_stem()
            .is_some_and(|s| EMPTY_NAMES.iter().any(|n| s == *n))
        {
            offenders.push(format!("{}: the name says nothing", file.display()));
        }
    }
    assert_none("files", &offenders);
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    // Put together here so that this file does not find itself.
    let banned: Vec<String> = [
        ("todo", "!("),
        ("unimplemented", "!("),
        ("#[ig", "nore"),
        ("#[should", "_panic"),
        ("TO", "DO:"),
        ("FIX", "ME"),
    ]
    .iter()
    .map(|(a, b)| format!("{a}{b}"))
    .collect();
    let mut offenders = Vec::new();
    for file in sources() {
        for (number, line) in read(&root().join(&file)).lines().enumerate() {
            if let Some(word) = banned.iter().find(|w| line.contains(w.as_str())) {
                offenders.push(format!("{}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    assert_none("unfinished work", &offenders);
}

/// `(path prefix, file that may, word)`: outside that one file the word must not appear.
const ONE_PLACE: [(&str, &str, &str); 3] = [
    ("cni/", "cni/node/src/netns.rs", "setns("),
    ("cni/", "cni/node/src/netlink", "rtnetlink::"),
    ("lib/api/", "lib/api/src/port.rs", "\"node.\""),
];

#[test]
fn dangerous_words_have_one_home() {
    let mut offenders = Vec::new();
    for file in sources().iter().filter(|f| !is_test(f)) {
        let name = file.to_string_lossy();
        let body = read(&root().join(file));
        for (prefix, home, word) in ONE_PLACE {
            if name.starts_with(prefix) && !name.starts_with(home) && body.contains(word) {
                offenders.push(format!("{name} says `{word}`: that belongs into {home}"));
            }
        }
    }
    assert_none("words out of place", &offenders);
}

/// Files that decide: no I/O, no waiting, no Kubernetes client.
const PURE: [&str; 3] = ["desired.rs", "plan.rs", "ipam.rs"];

#[test]
fn deciding_files_are_pure() {
    let mut offenders = Vec::new();
    for file in sources().iter().filter(|f| !is_test(f)) {
        if !file
            .file_name()
            .is_some_and(|n| PURE.iter().any(|p| n == *p))
        {
            continue;
        }
        for (number, line) in read(&root().join(file)).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if ["async ", ".await", "kube::Client", "tokio::"]
                .iter()
                .any(|w| code.contains(w))
            {
                offenders.push(format!(
                    "{}:{}: {}",
                    file.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert_none("effects in a pure file", &offenders);
}

#[test]
fn failpoints_are_not_in_a_release() {
    let metadata = metadata();
    let mut offenders = Vec::new();
    for package in members(&metadata) {
        let features = package["features"].as_object().expect("features");
        let default = features
            .get("default")
            .map(ToString::to_string)
            .unwrap_or_default();
        if default.contains("fail") {
            offenders.push(format!("{}: on by default", text(package, "name")));
        }
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            if text(dependency, "name") == "fail"
                && dependency["features"].to_string().contains("failpoints")
            {
                offenders.push(format!(
                    "{}: `fail` with failpoints always on",
                    text(package, "name")
                ));
            }
        }
    }
    for file in ["Makefile", "e2e/Cargo.toml"] {
        let body = read(&root().join(file));
        for line in body
            .lines()
            .filter(|l| l.contains("--release") || l.contains("--profile plugin"))
        {
            if line.contains("features") {
                offenders.push(format!("{file}: `{}` names features", line.trim()));
            }
        }
    }
    assert_none("failpoints in a release", &offenders);
}

/// Whether an SPDX expression can be met with the licences of deny.toml.
fn licence_allowed(expression: &str, allow: &BTreeSet<String>) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    // `A AND B` needs both, `A OR B` one; no package here nests deeper than AND over OR.
    flat.split(" AND ")
        .all(|part| part.split(" OR ").any(|one| allow.contains(one.trim())))
}

#[test]
fn licences_are_those_of_deny_toml() {
    let deny = read(&root().join("deny.toml"));
    let list = deny
        .split("allow = [")
        .nth(1)
        .and_then(|r| r.split(']').next())
        .expect("allow list");
    let allow: BTreeSet<_> = list
        .split('"')
        .skip(1)
        .step_by(2)
        .map(ToOwned::to_owned)
        .collect();
    let metadata = metadata();
    let offenders: Vec<_> = packages(&metadata)
        .iter()
        .filter(|p| !licence_allowed(text(p, "license"), &allow))
        .map(|p| {
            format!(
                "{} {}: {}",
                text(p, "name"),
                text(p, "version"),
                p["license"]
            )
        })
        .collect();
    assert_none("licences that deny.toml does not allow", &offenders);
}
