//! A northbound and a southbound database with ovn-northd between them, in a directory of its own.

use cni_controller::rows::{Cell, DesiredRow, RowId};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

pub(crate) struct Ovn {
    dir: TempDir,
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| {
            panic!("{program}: {error}; `make setup` installs it (apt-get install ovn-central)")
        });
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {args:?}: {stdout}{stderr}"
    );
    stdout
}

impl Ovn {
    pub(crate) fn start() -> Self {
        let ovn = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for side in ["nb", "sb"] {
            let file = ovn.path(&format!("{side}.db"));
            run(
                "ovsdb-tool",
                &[
                    "create",
                    &file,
                    &format!("/usr/share/ovn/ovn-{side}.ovsschema"),
                ],
            );
            let remote = format!("--remote=punix:{}", ovn.path(&format!("{side}.sock")));
            run(
                "ovsdb-server",
                &[
                    &ovn.control(side),
                    &ovn.pid(side),
                    &remote,
                    "--detach",
                    "--no-chdir",
                    &file,
                ],
            );
        }
        let (nb, sb) = (ovn.db("nb"), ovn.db("sb"));
        run(
            "ovn-northd",
            &[
                &ovn.control("northd"),
                &ovn.pid("northd"),
                &format!("--ovnnb-{nb}"),
                &format!("--ovnsb-{sb}"),
                "--detach",
                "--no-chdir",
            ],
        );
        ovn
    }

    fn path(&self, file: &str) -> String {
        self.dir.path().join(file).display().to_string()
    }

    fn control(&self, program: &str) -> String {
        format!("--unixctl={}", self.path(&format!("{program}.ctl")))
    }

    fn pid(&self, program: &str) -> String {
        format!("--pidfile={}", self.path(&format!("{program}.pid")))
    }

    fn db(&self, side: &str) -> String {
        format!("db=unix:{}", self.path(&format!("{side}.sock")))
    }

    pub(crate) fn nbctl(&self, args: &[&str]) -> String {
        let db = format!("--{}", self.db("nb"));
        run(
            "ovn-nbctl",
            &[&[db.as_str(), "--no-leader-only", "--timeout=60"], args].concat(),
        )
    }

    pub(crate) fn sbctl(&self, args: &[&str]) -> String {
        let db = format!("--{}", self.db("sb"));
        run(
            "ovn-sbctl",
            &[&[db.as_str(), "--no-leader-only", "--timeout=60"], args].concat(),
        )
    }

    /// The fate of a packet that comes in by the port.
    pub(crate) fn trace(&self, port: &str, flow: &str) -> String {
        let db = format!("--{}", self.db("sb"));
        let flow = format!("inport == \"{port}\" && {flow}");
        run(
            "ovn-trace",
            &[&db, "--no-leader-only", "--minimal", "--ct=new", &flow],
        )
    }

    /// Inserts the rows in one transaction and waits until northd has digested them.
    pub(crate) fn write(&self, rows: &[DesiredRow]) {
        let names: HashMap<&RowId, Value> = rows
            .iter()
            .enumerate()
            .map(|(index, row)| (&row.id, json!(["named-uuid", format!("row{index}")])))
            .collect();
        let mut children: HashMap<&RowId, BTreeMap<&str, Vec<Value>>> = HashMap::new();
        for row in rows {
            for parent in &row.parents {
                assert!(
                    names.contains_key(&parent.row),
                    "{} has no parent {}",
                    row.id,
                    parent.row
                );
                let columns = children.entry(&parent.row).or_default();
                columns
                    .entry(parent.column)
                    .or_default()
                    .push(names[&row.id].clone());
            }
        }
        let mut operations = vec![json!("OVN_Northbound")];
        for (index, row) in rows.iter().enumerate() {
            let mut columns = Map::new();
            for (column, cell) in &row.columns {
                let value = match cell {
                    Cell::Datum(datum) => serde_json::to_value(datum).unwrap(),
                    Cell::Keys(keys) => json!(["map", keys.iter().collect::<Vec<_>>()]),
                    Cell::Refs(rows) => {
                        json!(["set", rows.iter().map(|r| &names[r]).collect::<Vec<_>>()])
                    }
                };
                columns.insert((*column).to_owned(), value);
            }
            for (column, members) in children.remove(&row.id).unwrap_or_default() {
                columns.insert(column.to_owned(), json!(["set", members]));
            }
            operations.push(json!({
                "op": "insert", "table": row.id.table, "uuid-name": format!("row{index}"), "row": columns,
            }));
        }
        let remote = format!("unix:{}", self.path("nb.sock"));
        let answer = run(
            "ovsdb-client",
            &["transact", &remote, &Value::Array(operations).to_string()],
        );
        assert!(!answer.contains("\"error\""), "{answer}");
        self.nbctl(&["--wait=sb", "sync"]);
    }
}

impl Drop for Ovn {
    fn drop(&mut self) {
        for program in ["northd", "sb", "nb"] {
            let control: PathBuf = self.dir.path().join(format!("{program}.ctl"));
            let _ = Command::new("ovs-appctl")
                .arg("-t")
                .arg(control)
                .arg("exit")
                .output();
        }
    }
}

/// The ports at which the packet leaves the network.
pub(crate) fn outputs(trace: &str) -> Vec<&str> {
    let after = |line: &'_ str| line.trim().strip_prefix("output(\"").map(str::len);
    trace
        .lines()
        .filter(|line| after(line).is_some())
        .filter_map(|line| line.split('"').nth(1))
        .collect()
}
