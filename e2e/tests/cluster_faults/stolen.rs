//! The certificate of n2's chassis, in other hands: what opens with it, and what does not.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use e2e::{run, until};

use crate::world::{START, World};

/// What OVN 23.03 lets a chassis write (RBAC_Permission): table, whose rows, whether it may insert and delete, columns. Where
/// "whose" is empty: everybody's.
const ROLE: &str = r#"BFD,"[""""]",false,[status]
Chassis,[name],true,"[encaps, external_ids, nb_cfg, other_config, transport_zones, vtep_logical_switches]"
Chassis_Private,[name],true,"[chassis, external_ids, nb_cfg, nb_cfg_timestamp]"
Controller_Event,"[""""]",true,"[chassis, event_info, event_type, seq_num]"
Encap,[chassis_name],true,"[ip, options, type]"
FDB,"[""""]",true,"[dp_key, mac, port_key]"
IGMP_Group,"[""""]",true,"[address, chassis, datapath, ports]"
MAC_Binding,"[""""]",true,"[datapath, ip, logical_port, mac, timestamp]"
Port_Binding,"[""""]",false,"[additional_chassis, additional_encap, chassis, encap, options, up, virtual_parent]"
Service_Monitor,"[""""]",false,[status]"#;

/// A thief with the three files of a node's identity.
struct Thief<'a> {
    world: &'a World<'a>,
    /// The options by which OVN's tools show them.
    loot: Vec<String>,
    _files: tempfile::TempDir,
}

/// It reads SB, may touch what OVN's role lets every chassis touch, and nothing else; what it spoils there that carries
/// traffic is put right. NB does not know it.
pub(crate) fn certificate(world: &World<'_>) -> Result<String> {
    world.start(&[("victim", "n1")])?;
    let role = world.lab.sbctl(&[
        "--format=csv",
        "--no-headings",
        "--columns=table,authorization,insert_delete,update",
        "list",
        "RBAC_Permission",
    ])?;
    let mut role: Vec<&str> = role.lines().collect();
    role.sort_unstable();
    ensure!(
        role.join("\n") == ROLE,
        "OVN's role is another one than the one that was judged:\n{}",
        role.join("\n")
    );
    let thief = Thief::rob(world, "n2")?;
    let port = format!("{}/victim/default", world.ns);
    let refused = thief.tries_what_is_closed(&port)?;
    thief.does_what_is_open(&port)?;
    thief.stands_before_the_northbound_database()?;
    world.connected()?;
    Ok(format!(
        "{refused} writes refused; options, up and chassis of a port written and put right; NB closed"
    ))
}

impl<'a> Thief<'a> {
    fn rob(world: &'a World<'a>, node: &str) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let mut loot = Vec::new();
        for (name, option) in [
            ("tls.key", "--private-key"),
            ("tls.crt", "--certificate"),
            ("ca.crt", "--ca-cert"),
        ] {
            let path = format!("/var/lib/outboard/identity/{name}");
            let text = world.lab.node(node).exec(&["cat", &path])?;
            let file = files.path().join(name);
            fs::write(&file, text + "\n")?;
            loot.push(format!("{option}={}", file.display()));
        }
        Ok(Self {
            world,
            loot,
            _files: files,
        })
    }

    /// ovn-sbctl, as the thief.
    fn sb(&self, arguments: &[&str]) -> Result<String> {
        let remote = format!("--db={}", self.world.lab.central.sb_remote());
        let mut argv = vec!["ovn-sbctl", "--timeout=10", &remote];
        argv.extend(self.loot.iter().map(String::as_str));
        run(&[&argv, arguments].concat())
    }

    fn uuid(&self, table: &str, condition: &str) -> Result<String> {
        let found = self.sb(&["--bare", "--columns=_uuid", "find", table, condition])?;
        let first = found.split_whitespace().next();
        first
            .map(str::to_owned)
            .with_context(|| format!("the thief sees no {table} with {condition}"))
    }

    /// What pods' addresses and owners are taken from, other chassis, flows: the number of refusals.
    fn tries_what_is_closed(&self, port: &str) -> Result<usize> {
        let binding = format!("logical_port={port}");
        let datapath = self.sb(&[
            "--bare",
            "--columns=datapath",
            "find",
            "Port_Binding",
            &binding,
        ])?;
        let at = format!("datapath={datapath}");
        let flow = self.uuid("Logical_Flow", "priority>=0")?;
        let forged_mac = "mac=\"0a:58:0a:f4:00:09 10.244.0.9\"";
        let port_of_own = [
            "create",
            "Port_Binding",
            "logical_port=forged",
            &at,
            "tunnel_key=77",
        ];
        let new_encap = ["--id=@e", "create", "Encap", "type=geneve", "ip=198.18.0.9"];
        let chassis_of_own = [
            &new_encap[..],
            &[
                "chassis_name=n9",
                "--",
                "create",
                "Chassis",
                "name=n9",
                "encaps=@e",
            ],
        ]
        .concat();
        let tunnel_for_n1 = [
            "create",
            "Encap",
            "type=vxlan",
            "ip=198.18.0.9",
            "chassis_name=n1",
        ];
        let closed: [&[&str]; 13] = [
            &["set", "Port_Binding", port, "external_ids:uid=forged"],
            &["set", "Port_Binding", port, "external_ids:node.n2=\"\""],
            &[
                "set",
                "Port_Binding",
                port,
                "external_ids:ips=10.244.0.9/16",
            ],
            &["set", "Port_Binding", port, forged_mac],
            &["destroy", "Port_Binding", port],
            &port_of_own,
            &["set", "Chassis", "n1", "external_ids:forged=1"],
            &["destroy", "Chassis", "n1"],
            &["destroy", "Chassis_Private", "n1"],
            &chassis_of_own,
            &tunnel_for_n1,
            &["set", "SB_Global", ".", "options:forged=1"],
            &["destroy", "Logical_Flow", &flow],
        ];
        for arguments in closed {
            let said = self.sb(arguments).err().map(|error| format!("{error:#}"));
            let said = said.with_context(|| format!("{arguments:?} was not refused"))?;
            ensure!(
                said.contains("permission error"),
                "{arguments:?} failed for another reason: {said}"
            );
        }
        Ok(closed.len())
    }

    /// What stock OVN leaves open to every chassis. northd and the port's own chassis put it right within moments; nothing
    /// of ours reads it.
    fn does_what_is_open(&self, port: &str) -> Result<()> {
        let lab = self.world.lab;
        let get = |column: &str| lab.sbctl(&["get", "Port_Binding", port, column]);
        self.sb(&["set", "Port_Binding", port, "options:forged=1"])?;
        until("northd to take the forged option off", START, || {
            Ok((!get("options")?.contains("forged")).then_some(()))
        })?;
        self.sb(&["set", "Port_Binding", port, "up=false"])?;
        until("the port to be up again", START, || {
            Ok((get("up")? == "true").then_some(()))
        })?;
        let home = self.uuid("Chassis", "name=n1")?;
        let claim = format!("chassis={}", self.uuid("Chassis", "name=n2")?);
        self.sb(&["set", "Port_Binding", port, &claim])?;
        until("the port to be its own chassis's again", START, || {
            Ok((get("chassis")? == home).then_some(()))
        })?;
        let second = format!("additional_{claim}");
        self.sb(&["set", "Port_Binding", port, &second])?;
        until("the port to be of one chassis again", START, || {
            Ok((get("additional_chassis")? == "[]").then_some(()))
        })?;
        self.world.serves("n2", "victim")?;
        // A neighbour of a router: OVN's own flows for known ports come before it, and northd may sweep it away first.
        let router = self.uuid("Datapath_Binding", "external_ids:name=default")?;
        let neighbour = [
            "create",
            "MAC_Binding",
            "logical_port=default/default",
            "ip=10.244.255.1",
            "mac=\"0a:58:00:00:00:01\"",
            &format!("datapath={router}"),
        ];
        let row = self.sb(&neighbour)?;
        self.sb(&["--if-exists", "destroy", "MAC_Binding", &row])
            .map(drop)
    }

    /// NB's server breaks the handshake off: it trusts another authority.
    fn stands_before_the_northbound_database(&self) -> Result<()> {
        let central = &self.world.lab.central;
        let remote = central.nb_remote();
        let first = format!("--db={}", remote.split(',').next().unwrap_or_default());
        let authority = format!("--ca-cert={}", central.nb_ca.certificate.display());
        let ask = |key: &str, certificate: &str| {
            let base = [
                "ovn-nbctl",
                "--no-leader-only",
                "--timeout=5",
                &first,
                &authority,
            ];
            run(&[&base[..], &[key, certificate, "list", "NB_Global"]].concat())
        };
        let own = &central.nb_client;
        let key = format!("--private-key={}", own.key.display());
        let certificate = format!("--certificate={}", own.certificate.display());
        ask(&key, &certificate)
            .context("cni-controller's own certificate at NB: the case shows nothing")?;
        let [key, certificate, _] = self.loot.as_slice() else {
            anyhow::bail!("the loot is not three files: {:?}", self.loot);
        };
        ensure!(
            ask(key, certificate).is_err(),
            "a chassis certificate opens NB"
        );
        Ok(())
    }
}
