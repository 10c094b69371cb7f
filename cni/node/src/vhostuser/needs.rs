//! What Open vSwitch must be able to do for a vhost-user port, and which command makes it. The judgement is pure.
//!
//! Seen with 3.1: a port that cannot be is no error of the transaction, only a column of its row ("Address family not supported by
//! protocol"); what is missing is said here, from the columns of the root row. A memory pool is made when the machine connects, long
//! after the ADD: what fails then is seen in the port's own row.

use std::fs;
use std::path::Path;

use cni_bin::code;

use super::VhostUser;
use crate::error::Error;
use crate::node::Node;
use crate::vswitch::{Abilities, Interface};

pub(crate) const TYPE: &str = "dpdkvhostuserclient";

/// Huge pages of the machine, MiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hugepages {
    pub(crate) total: u64,
    pub(crate) free: u64,
}

/// One thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lack {
    /// A sentence without its full stop.
    pub(crate) what: String,
    /// It is asked for and does not work: somebody has to look, and nothing may hide it.
    pub(crate) broken: bool,
}

/// Whether the node simply has no DPDK, as opposed to one that does not work. A kernel datapath needs none.
pub(crate) fn without_dpdk(missing: &[Lack]) -> bool {
    missing.iter().any(|lack| !lack.broken)
}

/// One for each thing that is missing; none = a port can be made. `userspace`: what --datapath-type says.
pub(crate) fn missing(userspace: bool, seen: &Abilities, hugepages: Hugepages) -> Vec<Lack> {
    let mut missing = Vec::new();
    let mut absent = |what: &str| {
        missing.push(Lack {
            what: what.to_owned(),
            broken: false,
        });
    };
    if !userspace {
        absent(
            "br-int has the kernel's datapath, and vhost-user ports are of the userspace one: start cni-node with --datapath-type=netdev \
             (OUTBOARD_DATAPATH_TYPE)",
        );
    }
    if seen.iface_types.iter().any(|kind| kind == TYPE) && seen.dpdk_initialized {
        return missing;
    }
    let config = |key: &str| seen.other_config.get(key).map(String::as_str);
    let asked = matches!(config("dpdk-init"), Some("true" | "try"));
    if seen.dpdk_version.as_deref() == Some("none") {
        absent(
            "ovs-vswitchd of this node is the program without DPDK: `apt-get install openvswitch-switch-dpdk librte-mempool-ring23`, \
             `update-alternatives --set ovs-vswitchd /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk`, and restart it",
        );
    }
    if !asked {
        absent(
            "DPDK is off in Open vSwitch: `ovs-vsctl set Open_vSwitch . other_config:dpdk-init=true \
             other_config:per-port-memory=true`, and restart ovs-vswitchd",
        );
    }
    if hugepages.total == 0 {
        absent(
            "this node has no huge pages, which DPDK and the machines' memory need: `sysctl -w vm.nr_hugepages=1024` (and a file in \
             /etc/sysctl.d)",
        );
    }
    if asked && hugepages.total > 0 && seen.dpdk_version.as_deref() != Some("none") {
        let wanted = config("dpdk-socket-mem").unwrap_or("1024");
        let what = format!(
            "ovs-vswitchd has not initialised DPDK, though other_config:dpdk-init asks for it: it wants {wanted} MiB of huge pages \
             (other_config:dpdk-socket-mem), and {} of {} MiB are free; `sysctl -w vm.nr_hugepages=<more>` or `ovs-vsctl set Open_vSwitch \
             . other_config:dpdk-socket-mem=<less>`, restart ovs-vswitchd and see its log",
            hugepages.free, hugepages.total
        );
        missing.push(Lack { what, broken: true });
    }
    missing
}

/// What keeps a port from carrying packets, as Open vSwitch says it in the port's row, with what to do about it.
pub(crate) fn of_port(error: &str) -> String {
    let memory = ["memory", "Invalid argument", "mempool"];
    if memory.iter().any(|word| error.contains(word)) {
        return format!(
            "{error}: DPDK has no memory pool for the port; see that librte-mempool-ring23 is installed, that huge pages are free \
             (`sysctl -w vm.nr_hugepages=<more>`, `ovs-vsctl set Open_vSwitch . other_config:per-port-memory=true`), and \
             ovs-vswitchd's log"
        );
    }
    format!("{error}: see ovs-vswitchd's log")
}

/// What is wrong with a port of this kind.
///
/// A memory pool is made when the machine's driver is there, and of one that cannot be had only ovs-vswitchd's log tells (seen with
/// 3.1: no error in the row, ofport as before). Such a port has rings and not the MTU that was asked for.
fn fault(port: &Interface) -> Option<String> {
    if port.r#type != TYPE {
        return None;
    }
    let in_use = port.status.contains_key("num_of_vrings");
    let without_pool = in_use && port.mtu_request.is_some() && port.mtu != port.mtu_request;
    let no_pool = "its machine is there, and Open vSwitch has no memory for its packets";
    port.error
        .clone()
        .or_else(|| without_pool.then(|| no_pool.to_owned()))
}

/// The machine's huge pages, of all sizes.
pub(crate) fn hugepages(sysfs: &Path) -> Hugepages {
    let mut sum = Hugepages::default();
    let sizes = fs::read_dir(sysfs.join("kernel/mm/hugepages"));
    for size in sizes.into_iter().flatten().flatten() {
        let name = size.file_name();
        let name = name.to_string_lossy();
        let kib = name
            .strip_prefix("hugepages-")
            .and_then(|rest| rest.strip_suffix("kB")?.parse::<u64>().ok());
        let read = |file: &str| -> u64 {
            let text = fs::read_to_string(size.path().join(file)).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        let kib = kib.unwrap_or(0);
        sum.total += read("nr_hugepages") * kib / 1024;
        sum.free += read("free_hugepages") * kib / 1024;
    }
    sum
}

impl VhostUser {
    /// What this node misses; none = a port can be made. Nothing is said while the database is away.
    pub(crate) fn missing(&self, node: &Node) -> Vec<Lack> {
        let Some(seen) = node.vswitch.abilities() else {
            return Vec::new();
        };
        missing(node.vswitch.userspace(), &seen, hugepages(&self.sysfs))
    }

    /// Ports of this kind that Open vSwitch cannot use, a sentence each.
    pub(crate) fn faulty(&self, node: &Node) -> Vec<String> {
        let ports = node.vswitch.interfaces().into_iter();
        let faulty = |port: Interface| {
            let error = fault(&port)?;
            let pod = port.external_ids.get("pod").cloned().unwrap_or_default();
            Some(format!(
                "port {} of pod {pod}: {}",
                port.name,
                of_port(&error)
            ))
        };
        ports.filter_map(faulty).collect()
    }
}

/// The error of an ADD that this node cannot serve.
pub(crate) fn unable(missing: &[Lack]) -> Error {
    Error::new(
        code::TRY_AGAIN_LATER,
        format!(
            "This node cannot plug a vhost-user interface: {}.",
            sentences(missing).join("; ")
        ),
        "docs/vhostuser.md says what a node needs; without it, keep such pods off the node by a label.",
    )
}

/// The sentences alone.
pub(crate) fn sentences(missing: &[Lack]) -> Vec<&str> {
    missing.iter().map(|lack| lack.what.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const PAGES: Hugepages = Hugepages {
        total: 800,
        free: 672,
    };

    fn able() -> Abilities {
        Abilities {
            dpdk_initialized: true,
            dpdk_version: Some("DPDK 22.11.11".into()),
            iface_types: vec!["tap".into(), TYPE.into()],
            other_config: [("dpdk-init".to_owned(), "true".to_owned())].into(),
        }
    }

    /// As OVS 3.1 says it when DPDK is not there, not asked for, or could not be had.
    fn unable(version: Option<&str>, config: &[(&str, &str)]) -> Abilities {
        let config = config
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Abilities {
            dpdk_initialized: false,
            dpdk_version: version.map(str::to_owned),
            iface_types: vec!["tap".into()],
            other_config: config.collect(),
        }
    }

    #[test]
    fn a_node_that_has_everything_misses_nothing() {
        assert_eq!(missing(true, &able(), PAGES), Vec::new());
        // The pages are DPDK's by then.
        assert_eq!(missing(true, &able(), Hugepages::default()), Vec::new());
    }

    #[rstest]
    #[case(false, able(), PAGES, "--datapath-type=netdev")]
    #[case(true, unable(Some("none"), &[("dpdk-init", "true")]), PAGES, "update-alternatives --set")]
    #[case(true, unable(Some("DPDK 22.11.11"), &[]), PAGES, "other_config:dpdk-init=true")]
    #[case(true, unable(None, &[("dpdk-init", "true")]), Hugepages::default(), "sysctl -w vm.nr_hugepages")]
    #[case(true, unable(Some("DPDK 22.11.11"), &[("dpdk-init", "try"), ("dpdk-socket-mem", "4096")]), PAGES, "wants 4096 MiB")]
    #[case(true, unable(None, &[("dpdk-init", "true")]), PAGES, "672 of 800 MiB are free")]
    fn each_thing_missing_is_one_sentence_with_its_command(
        #[case] userspace: bool,
        #[case] seen: Abilities,
        #[case] hugepages: Hugepages,
        #[case] says: &str,
    ) {
        let missing = missing(userspace, &seen, hugepages);
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(missing[0].what.contains(says), "{missing:?}");
    }

    #[test]
    fn a_dpdk_that_does_not_work_is_not_one_that_is_not_there() {
        let broken = unable(Some("DPDK 22.11.11"), &[("dpdk-init", "try")]);
        assert!(!without_dpdk(&missing(true, &broken, PAGES)));
        // Nobody needs it under the kernel's datapath.
        assert!(without_dpdk(&missing(false, &broken, PAGES)));
        let off = unable(Some("DPDK 22.11.11"), &[]);
        let absent = [
            missing(true, &off, PAGES),
            missing(true, &broken, Hugepages::default()),
            missing(true, &unable(Some("none"), &[("dpdk-init", "true")]), PAGES),
            missing(false, &able(), PAGES),
        ];
        assert!(absent.iter().all(|missing| without_dpdk(missing)));
        assert!(!without_dpdk(&[]));
    }

    #[test]
    fn several_are_all_said() {
        let bare = unable(Some("none"), &[]);
        assert_eq!(missing(false, &bare, Hugepages::default()).len(), 4);
    }

    #[test]
    fn huge_pages_of_all_sizes_count() {
        let home = tempfile::tempdir().unwrap();
        for (size, total, free) in [("2048", "10", "4"), ("1048576", "2", "1")] {
            let dir = home
                .path()
                .join(format!("kernel/mm/hugepages/hugepages-{size}kB"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("nr_hugepages"), format!("{total}\n")).unwrap();
            fs::write(dir.join("free_hugepages"), format!("{free}\n")).unwrap();
        }
        let seen = hugepages(home.path());
        assert_eq!((seen.total, seen.free), (20 + 2048, 8 + 1024));
        assert_eq!(hugepages(Path::new("/nowhere")), Hugepages::default());
    }
}
