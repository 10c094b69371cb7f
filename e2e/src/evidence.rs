//! Why a cluster is not what it should be: what a person would look at first, as text for an error's end.

use crate::lab::Lab;
use crate::pods;

const SYSTEM: &str = "outboard-system";
/// Of each part the last ones.
const LINES: usize = 30;

/// Pods, Outboard's last log lines and the events that warn. Never fails: what cannot be asked is left out.
pub(crate) fn of_cluster(lab: &Lab) -> String {
    let mut text = String::new();
    let mut part = |title: &str, arguments: &[&str]| {
        if let Ok(said) = lab.kubectl(arguments) {
            let lines: Vec<&str> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES)..];
            text += &format!("--- {title}\n{}\n", last.join("\n"));
        }
    };
    part("pods", &["get", "pods", "-A", "-o", "wide"]);
    part("warnings", &["events", "-A", "--types=Warning"]);
    for pod in pods::all(lab).unwrap_or_default() {
        if pod.namespace == SYSTEM {
            let arguments = [
                "logs",
                "-n",
                SYSTEM,
                &pod.name,
                "--all-containers",
                "--prefix",
                "--tail=15",
            ];
            part(&pod.name, &arguments);
        }
    }
    text
}
