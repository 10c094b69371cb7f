//! Asks the crate about the cards of the machine that it runs on and prints JSON: the eyes of `tests/guest` in a guest.
//!
//!     card-probe inventory                     PFs with their VFs
//!     card-probe function DEVICE-ID            one function, as a deviceID names it
//!     card-probe eswitch PF                    legacy or switchdev
//!     card-probe bind DEVICE DRIVER            to a driver alone
//!     card-probe release DEVICE                to the one that fits
//!     card-probe ports [sysfs]                 ports of switches; `sysfs`: without devlink
//!     card-probe find PF VF [UPLINK]           the representor of a VF
//!     card-probe events SCRIPT                 whether anything happens to PCI devices while it runs

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use sriov::devlink::Devlink;
use sriov::{DeviceId, PciEvents, Physical, Port, Scope, Sysfs, Virtual};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match answer(&words) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why:#}");
            ExitCode::FAILURE
        }
    }
}

fn answer(words: &[&str]) -> Result<Value> {
    let sysfs = Sysfs::default();
    Ok(match words {
        ["inventory"] => {
            let mut cards = Vec::new();
            for card in sysfs.physical_functions()? {
                let functions = sysfs.virtual_functions(card.address)?;
                let functions: Vec<Value> = functions.iter().map(virtual_function).collect();
                cards.push(physical(&card, &functions));
            }
            cards.into()
        }
        ["function", id] => {
            let address = id.parse::<DeviceId>()?.pci()?;
            let mut said = virtual_function(&sysfs.virtual_at(address)?);
            said["iommu_group"] = json!(sysfs.iommu_group(address)?);
            said
        }
        ["eswitch", pf] => {
            let address = sysfs.physical(pf)?.address;
            let mode = sysfs.eswitch(address, Devlink::open()?.as_mut())?;
            mode.to_string().into()
        }
        // A device of another bus than PCI: devlink alone knows its mode.
        ["eswitch", bus, device] => {
            let mut devlink = Devlink::open()?.context("this kernel has no devlink")?;
            json!(devlink.eswitch(bus, device)?.map(|mode| mode.to_string()))
        }
        ["bind", device, driver] => {
            sysfs.bind(device.parse()?, driver)?;
            Value::Null
        }
        ["release", device] => json!(sysfs.release(device.parse()?)?),
        ["ports"] => {
            let ports = sysfs.ports(Devlink::open()?.as_mut())?;
            ports.iter().map(port).collect()
        }
        ["ports", "sysfs"] => sysfs.ports(None)?.iter().map(port).collect(),
        ["find", pf, vf, uplinks @ ..] => {
            let scope = Scope {
                uplinks: uplinks.iter().map(|uplink| (*uplink).to_owned()).collect(),
                controller: None,
            };
            let ports = sysfs.ports(Devlink::open()?.as_mut())?;
            let found = ports.find(pf.parse()?, Some(vf.parse()?), &scope)?;
            json!(found.map(port))
        }
        ["events", script] => {
            let events = PciEvents::open()?;
            let done = Command::new("sh").args(["-c", script]).status()?;
            ensure!(done.success(), "{script}: {done}");
            events.take()?.into()
        }
        _ => bail!("the head of this file says what can be asked"),
    })
}

fn physical(card: &Physical, functions: &[Value]) -> Value {
    json!({
        "address": card.address.to_string(),
        "number": card.number,
        "link": card.link,
        "driver": card.driver,
        "total": card.total,
        "enabled": card.enabled,
        "functions": functions,
    })
}

fn virtual_function(function: &Virtual) -> Value {
    json!({
        "address": function.address.to_string(),
        "physical": function.physical.to_string(),
        "number": function.number,
        "link": function.link,
        "mac": function.mac,
        "driver": function.driver,
        "vfio": function.is_vfio(),
    })
}

fn port(port: &Port) -> Value {
    json!({
        "link": port.link,
        "switch": port.switch,
        "device": port.device,
        "name": port.name.to_string(),
        "source": format!("{:?}", port.source).to_lowercase(),
    })
}
