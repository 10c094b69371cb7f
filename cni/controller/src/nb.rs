//! What is read of the northbound database, and how its tables hang together (ovn-nb(5)).

use ovsdb::MonitorSpec;

/// Tables with the columns that are watched: all that a unit ever writes, and our marks.
pub const TABLES: &[(&str, &[&str])] = &[
    ("NB_Global", &["external_ids"]),
    (
        "Logical_Switch",
        &[
            "name",
            "ports",
            "load_balancer_group",
            "other_config",
            "external_ids",
        ],
    ),
    (
        "Logical_Switch_Port",
        &[
            "name",
            "type",
            "addresses",
            "port_security",
            "dhcpv4_options",
            "dhcpv6_options",
            "options",
            "external_ids",
        ],
    ),
    (
        "Logical_Router",
        &[
            "name",
            "ports",
            "static_routes",
            "policies",
            "options",
            "external_ids",
        ],
    ),
    (
        "Logical_Router_Port",
        &[
            "name",
            "mac",
            "networks",
            "ipv6_ra_configs",
            "options",
            "external_ids",
        ],
    ),
    (
        "Logical_Router_Policy",
        &[
            "priority",
            "match",
            "action",
            "nexthops",
            "options",
            "external_ids",
        ],
    ),
    (
        "Logical_Router_Static_Route",
        &[
            "ip_prefix",
            "nexthop",
            "output_port",
            "policy",
            "route_table",
            "options",
            "external_ids",
        ],
    ),
    (
        "Load_Balancer",
        &[
            "name",
            "vips",
            "protocol",
            "selection_fields",
            "options",
            "external_ids",
        ],
    ),
    ("DHCP_Options", &["cidr", "options", "external_ids"]),
    ("Load_Balancer_Group", &["name", "load_balancer"]),
];

/// The tables whose rows live only as long as another row refers to them, with that row's column.
const CHILDREN: &[(&str, &str, &str)] = &[
    ("Logical_Switch_Port", "Logical_Switch", "ports"),
    ("Logical_Router_Port", "Logical_Router", "ports"),
    ("Logical_Router_Policy", "Logical_Router", "policies"),
    (
        "Logical_Router_Static_Route",
        "Logical_Router",
        "static_routes",
    ),
];

/// The one table of ours that has no external_ids: its rows are known by name, and the name is
/// both the unit and the identity.
pub const LOAD_BALANCER_GROUP: &str = "Load_Balancer_Group";

/// What the replica holds.
pub fn monitor_spec() -> MonitorSpec {
    TABLES
        .iter()
        .fold(MonitorSpec::new(), |spec, (table, columns)| {
            spec.columns(*table, columns.iter().copied())
        })
}

/// The table's name with a static lifetime, if it is one of ours.
pub fn table(name: &str) -> Option<&'static str> {
    TABLES
        .iter()
        .map(|(table, _)| *table)
        .find(|table| *table == name)
}

/// Whether the column is watched. A unit that writes one that is not would be written again for
/// ever.
pub fn watches(table: &str, column: &str) -> bool {
    TABLES
        .iter()
        .any(|(name, columns)| *name == table && columns.contains(&column))
}

/// For a non-root table, who refers to its rows.
pub fn parent_of(table: &str) -> Option<(&'static str, &'static str)> {
    let of = CHILDREN.iter().find(|(child, ..)| *child == table);
    of.map(|(_, parent, column)| (*parent, *column))
}

/// Whether rows of this table have children or members.
pub fn is_parent(table: &str) -> bool {
    table == LOAD_BALANCER_GROUP || CHILDREN.iter().any(|(_, parent, _)| *parent == table)
}
