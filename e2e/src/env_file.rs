//! The shell file that gives people and scripts the way into a lab.

use anyhow::Result;

use crate::lab::Lab;

/// `KUBECONFIG`, `NBCTL`, `SBCTL`, `NODES`, `ROLES`, `IMAGE`, …, quoted for a POSIX shell.
pub(crate) fn text(lab: &Lab) -> Result<String> {
    let nodes: Vec<String> = lab
        .nodes()
        .iter()
        .map(|n| format!("{}={}", n.name(), n.netns()))
        .collect();
    let roles: Vec<String> = lab
        .nodes()
        .iter()
        .map(|n| format!("{}={}", n.name(), n.role().word()))
        .collect();
    let (outside4, outside6) = lab.site.outside();
    let lines = [
        ("KUBECONFIG", lab.kubeconfig().display().to_string()),
        ("NBCTL", lab.central.nbctl_line()),
        ("SBCTL", lab.central.sbctl_line()),
        ("NODES", nodes.join(" ")),
        ("ROLES", roles.join(" ")),
        ("IMAGE", lab.image().to_string()),
        ("LAB_ID", lab.site.id().to_string()),
        ("OUTSIDE", outside4),
        ("OUTSIDE6", outside6),
    ];
    Ok(lines
        .iter()
        .map(|(name, value)| format!("export {name}='{value}'\n"))
        .collect())
}
