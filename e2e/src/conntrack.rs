//! A bug of the distribution's Open vSwitch that a userspace datapath has to be kept away from.
//!
//! OVS before 3.1.3 and 3.0.5 (`conntrack: Remove nat_conn introducing key directionality` is the repair) keeps two entries
//! for a connection with NAT. OVN commits every connection of a switch with load balancers with an all-zero SNAT, which
//! translates nothing, so that both entries have one hash. When the first has expired and its ports are used again, the second
//! is found in its place and ovs-vswitchd aborts: `assertion conn->conn_type == CT_CONN_TYPE_DEFAULT`. A minute of kubelet's
//! probes of 60 pods suffices. ovn-controller leaves the all-zero SNAT out where the datapath says it cannot do it. The kernel's
//! datapath has no such bug.

use anyhow::Result;

use crate::node::Node;

/// ovs-vswitchd writes its datapath's capabilities each time it starts: they are corrected as soon as they appear.
const SCRIPT: &str = r#"
db=unix:/run/openvswitch/db.sock
while ovs-vsctl --db="$db" --retry --no-wait get-manager >/dev/null; do
    ovsdb-client -vsyslog:off monitor "$db" Open_vSwitch Datapath capabilities | while read -r _; do
        for row in $(ovs-vsctl --db="$db" --no-wait --bare --columns=_uuid find Datapath capabilities:ct_zero_snat=true); do
            echo "datapath $row: without all-zero SNAT"
            ovs-vsctl --db="$db" --no-wait set Datapath "$row" capabilities:ct_zero_snat=false
        done
    done
done
"#;

/// Keeps ovn-controller from using the all-zero SNAT, from now on and also after restarts.
pub(crate) fn without_zero_snat(node: &Node) -> Result<()> {
    node.start("ovs-capabilities", &["sh", "-c", SCRIPT])
        .map(drop)
}
