//! `Debug` for messages with secrets: every field prints but those, which print how many values they hold.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::Path;

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

/// Secret fields that no option marks. The CSI spec says of `mount_flags` that they may be sensitive; OPI has no option; cloud-init's
/// data hold passwords, and a VirtualMachineInstance may hold them too. `tests/secrets.rs` fails for a field that sounds secret and is
/// neither here nor on its list of harmless ones.
const TABLE: [&str; 17] = [
    "csi.v1.VolumeCapability.MountVolume.mount_flags",
    "kubevirt.hooks.v1alpha1.OnDefineDomainParams.vmi",
    "kubevirt.hooks.v1alpha2.OnDefineDomainParams.vmi",
    "kubevirt.hooks.v1alpha2.PreCloudInitIsoParams.cloudInitData",
    "kubevirt.hooks.v1alpha2.PreCloudInitIsoParams.cloudInitNoCloudSource",
    "kubevirt.hooks.v1alpha2.PreCloudInitIsoParams.vmi",
    "kubevirt.hooks.v1alpha2.PreCloudInitIsoResult.cloudInitData",
    "kubevirt.hooks.v1alpha2.PreCloudInitIsoResult.cloudInitNoCloudSource",
    "kubevirt.hooks.v1alpha3.OnDefineDomainParams.vmi",
    "kubevirt.hooks.v1alpha3.PreCloudInitIsoParams.cloudInitData",
    "kubevirt.hooks.v1alpha3.PreCloudInitIsoParams.cloudInitNoCloudSource",
    "kubevirt.hooks.v1alpha3.PreCloudInitIsoParams.vmi",
    "kubevirt.hooks.v1alpha3.PreCloudInitIsoResult.cloudInitData",
    "kubevirt.hooks.v1alpha3.PreCloudInitIsoResult.cloudInitNoCloudSource",
    "opi_api.storage.v1.EncryptedVolume.key",
    "opi_api.storage.v1.NvmeSubsystemSpec.psk",
    "opi_api.storage.v1.TcpController.psk",
];

/// The messages that have such a field themselves.
pub(crate) fn messages(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    pool.all_messages()
        .filter(|m| m.fields().any(|f| is_secret(&f)))
        .collect()
}

fn is_secret(field: &FieldDescriptor) -> bool {
    let option = field
        .parent_pool()
        .get_extension_by_name("csi.v1.csi_secret");
    let marked =
        option.is_some_and(|option| field.options().get_extension(&option).as_bool() == Some(true));
    marked || TABLE.contains(&field.full_name())
}

/// Writes `<package>.debug.rs` for every package, empty where nothing is secret.
pub(crate) fn write(
    out: &Path,
    pool: &DescriptorPool,
    secret: &[MessageDescriptor],
) -> Result<(), Box<dyn Error>> {
    let packages = pool
        .files()
        .map(|f| (f.package_name().to_owned(), String::new()));
    let mut packages: BTreeMap<String, String> = packages.collect();
    for message in secret {
        let code = packages
            .entry(message.package_name().to_owned())
            .or_default();
        implement(code, message)?;
    }
    for (package, code) in packages {
        std::fs::write(out.join(format!("{package}.debug.rs")), code)?;
    }
    Ok(())
}

fn implement(code: &mut String, message: &MessageDescriptor) -> Result<(), Box<dyn Error>> {
    writeln!(code, "impl ::core::fmt::Debug for {} {{", path(message))?;
    writeln!(
        code,
        "    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{"
    )?;
    writeln!(code, "        f.debug_struct({:?})", message.name())?;
    for field in message.fields() {
        let name = field.name();
        let value = value(&field)?;
        writeln!(code, "            .field({name:?}, &{value})")?;
    }
    writeln!(code, "            .finish()\n    }}\n}}")?;
    Ok(())
}

/// The expression that is printed for a field.
fn value(field: &FieldDescriptor) -> Result<String, Box<dyn Error>> {
    let name = snake(field.name());
    if field.containing_oneof().is_some_and(|o| !o.is_synthetic()) || name == "type" {
        return Err(format!(
            "{}: this form of field is not provided for",
            field.full_name()
        )
        .into());
    }
    Ok(match (is_secret(field), field.kind()) {
        (true, _) if field.is_map() => format!("crate::redact::Redacted::keys(self.{name}.len())"),
        (true, _) if field.is_list() => {
            format!("crate::redact::Redacted::values(self.{name}.len())")
        }
        (true, Kind::Bytes | Kind::String) => {
            format!("crate::redact::Redacted::bytes(self.{name}.len())")
        }
        (true, _) => return Err(format!("{}: a secret of this type", field.full_name()).into()),
        // The getter: an enum is stored as a number, which says nothing to a reader.
        (false, Kind::Enum(_)) if !field.is_list() && !field.is_map() => format!("self.{name}()"),
        (false, _) => format!("self.{name}"),
    })
}

/// Where prost puts a message: a nested one lies in a module named after its parent.
fn path(message: &MessageDescriptor) -> String {
    let mut path = message.name().to_owned();
    let mut parent = message.parent_message();
    while let Some(outer) = parent {
        path = format!("{}::{path}", snake(outer.name()));
        parent = outer.parent_message();
    }
    path
}

/// As prost does: `domainXML` is `domain_xml`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    let mut upper = true;
    for c in name.chars() {
        if c.is_ascii_uppercase() && !upper {
            snake.push('_');
        }
        upper = c.is_ascii_uppercase();
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
