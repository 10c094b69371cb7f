//! Parameters of a StorageClass, of a VolumeAttributesClass, and of snapshot classes: the one table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use api::storage::volume_context::{VHOST_USER_BLK as VHOST, VHOST_USER_BLK_QUEUES as QUEUES};
use framework::Qos;
use tonic::Status;

use super::{invalid, map, vhost};
use crate::status::Answer;

/// As requests carry them.
pub(crate) type Parameters = BTreeMap<String, String>;

/// What sidecars add; the rest of the prefix is reserved.
const RESERVED: &str = "csi.storage.k8s.io/";
/// Keys that sidecars add for people and logs (`--extra-create-metadata`), and which change nothing.
const METADATA: [&str; 10] = [
    "pvc/name",
    "pvc/namespace",
    "pv/name",
    "volumesnapshot/name",
    "volumesnapshot/namespace",
    "volumesnapshotcontent/name",
    "volumegroupsnapshot/name",
    "volumegroupsnapshot/namespace",
    "volumegroupsnapshotcontent/name",
    "fstype",
];
/// The claim's name, as external-provisioner adds it: it counts where the volume has a socket.
pub(crate) const CLAIM: &str = "csi.storage.k8s.io/pvc/name";
/// What QEMU's throttling takes, and 0 for no limit.
const LIMIT: &str = "0 (no limit) to 1000000000000000";
const MOST: u64 = 1_000_000_000_000_000;

/// A parameter.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) allowed: &'static str,
    pub(crate) default: &'static str,
    /// May stand in a VolumeAttributesClass, too, and change.
    pub(crate) mutable: bool,
    pub(crate) meaning: &'static str,
}

const fn key(
    name: &'static str,
    allowed: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        name,
        allowed,
        default,
        mutable: false,
        meaning,
    }
}

const fn limit(name: &'static str, meaning: &'static str) -> Key {
    Key {
        name,
        allowed: LIMIT,
        default: "0",
        mutable: true,
        meaning,
    }
}

const RECONNECT: &str = "reconnectDelaySeconds";
const MKFS: &str = "mkfsOptions";
const WRITE_CACHE: &str = "writeCache";

/// All parameters. `PARAMETERS.md` is made of this table.
pub(crate) const TABLE: [Key; 13] = [
    key(
        "backend",
        "the name of a configured backend",
        "the first",
        "Which storage system holds the volume.",
    ),
    key(
        "blockSize",
        "512 or 4096",
        "512",
        "Bytes of a logical block.",
    ),
    key(
        MKFS,
        "options of mkfs.ext4 or mkfs.xfs, separated by blanks",
        "none",
        "How a new file system is made. Checked by the node, which knows the file system.",
    ),
    key(
        RECONNECT,
        "0 (the card's default) to 86400",
        "0",
        "How long requests wait for a lost connection to the target before they fail.",
    ),
    key(
        VHOST,
        "true or false",
        "false",
        "Beside its block device a raw volume has a vhost-user-blk socket in the pod of a virtual machine, for the disk in its place. Rules \
         out live migration, hot-plug and QEMU's own snapshots; VolumeSnapshots work.",
    ),
    key(
        QUEUES,
        "1 to 64",
        "1",
        "Request queues of that socket. Only with `vhostUserBlk`.",
    ),
    key(
        WRITE_CACHE,
        "true or false",
        "false",
        "Writes are answered sooner. If the target's storage daemon or node dies while another node uses the volume, and comes again in time \
         (`reconnectDelaySeconds`), what was written and not yet flushed is lost without an error.",
    ),
    limit(
        "iops",
        "Operations per second. Not with a limit of reads or writes.",
    ),
    limit("readIops", "Reads per second."),
    limit("writeIops", "Writes per second."),
    limit(
        "bytesPerSecond",
        "Bytes per second. Not with a limit of bytes read or written.",
    ),
    limit("readBytesPerSecond", "Bytes read per second."),
    limit("writeBytesPerSecond", "Bytes written per second."),
];

fn wrong(field: &str, key: &Key, value: &str) -> Status {
    // A value that is longer than any right one is not repeated.
    let value: String = value.chars().take(64).collect();
    invalid(format!(
        "{field}.{} = {value:?} is not allowed; allowed: {}",
        key.name, key.allowed
    ))
}

/// The entry of each key that is given, but not the sidecars' metadata.
fn known<'a>(
    field: &'a str,
    given: &'a Parameters,
    may_stand: fn(&Key) -> bool,
) -> impl Iterator<Item = Answer<(&'static Key, &'a str)>> + 'a {
    let ours = given.iter().filter(|(name, _)| {
        let metadata = name.strip_prefix(RESERVED);
        !metadata.is_some_and(|rest| METADATA.contains(&rest))
    });
    ours.map(move |(name, value)| {
        let found = TABLE.iter().find(|key| key.name == name.as_str());
        match found.filter(|key| may_stand(key)) {
            Some(key) => Ok((key, value.as_str())),
            None => Err(unknown(field, name, found.is_some(), may_stand)),
        }
    })
}

fn unknown(field: &str, name: &str, elsewhere: bool, may_stand: fn(&Key) -> bool) -> Status {
    let name: String = name.chars().take(64).collect();
    let why = if name.starts_with(RESERVED) {
        "is reserved for the sidecars, and none of theirs"
    } else if elsewhere {
        "can't change: it may stand in a StorageClass only"
    } else {
        "is not a parameter of this driver"
    };
    let allowed: Vec<_> = TABLE
        .iter()
        .filter(|key| may_stand(key))
        .map(|key| key.name)
        .collect();
    let allowed = if allowed.is_empty() {
        "none".to_owned()
    } else {
        allowed.join(", ")
    };
    invalid(format!("{field}: {name:?} {why}; allowed: {allowed}"))
}

/// What a StorageClass asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Class {
    /// Of which backend; `None`: the first.
    pub(crate) backend: Option<String>,
    pub(crate) block_size: u32,
    pub(crate) write_cache: bool,
    /// What the node and later calls need to know.
    pub(crate) context: BTreeMap<String, String>,
    pub(crate) limits: Limits,
}

/// Limits as they are given: what is not named stays as it is; `None` takes a limit away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Limits(BTreeMap<&'static str, Option<u64>>);

impl Class {
    /// Of `parameters` of a CreateVolume, with `mutable_parameters`, which win.
    pub(crate) fn new(parameters: &Parameters, mutable: &Parameters) -> Answer<Self> {
        let field = "parameters";
        map(field, parameters)?;
        let mut class = Self {
            backend: None,
            block_size: 512,
            write_cache: false,
            context: BTreeMap::new(),
            limits: Limits::default(),
        };
        for entry in known(field, parameters, |_| true) {
            let (key, value) = entry?;
            let wrong = || wrong(field, key, value);
            match key.name {
                "backend" => class.backend = Some(value.to_owned()).filter(|v| !v.is_empty()),
                "blockSize" => {
                    let size = value.parse().ok().filter(|size| [512, 4096].contains(size));
                    class.block_size = size.ok_or_else(wrong)?;
                }
                RECONNECT => {
                    seconds(value).ok_or_else(wrong)?;
                    class.context.insert(RECONNECT.to_owned(), value.to_owned());
                }
                VHOST => {
                    if yes(value).ok_or_else(wrong)? {
                        class.context.insert(VHOST.to_owned(), value.to_owned());
                    }
                }
                WRITE_CACHE => class.write_cache = yes(value).ok_or_else(wrong)?,
                QUEUES => {
                    vhost::queues(value).ok_or_else(wrong)?;
                    class.context.insert(QUEUES.to_owned(), value.to_owned());
                }
                MKFS => {
                    if value.chars().any(char::is_control) {
                        return Err(wrong());
                    }
                    class.context.insert(MKFS.to_owned(), value.to_owned());
                }
                _ => class.limits.add(field, key, value)?,
            }
        }
        if class.context.contains_key(QUEUES) && !class.context.contains_key(VHOST) {
            return Err(invalid(format!(
                "{field}.{QUEUES} is of a socket that the volume has not got; allowed: with {VHOST} = \"true\" alone"
            )));
        }
        class.limits.0.extend(Limits::new(mutable)?.0);
        class.limits.apply(Qos::default())?;
        Ok(class)
    }
}

impl Limits {
    /// Of `mutable_parameters`.
    pub(crate) fn new(given: &Parameters) -> Answer<Self> {
        let field = "mutable_parameters";
        map(field, given)?;
        let mut limits = Self::default();
        for entry in known(field, given, |key| key.mutable) {
            let (key, value) = entry?;
            limits.add(field, key, value)?;
        }
        Ok(limits)
    }

    fn add(&mut self, field: &str, key: &'static Key, value: &str) -> Answer<()> {
        let plain = value.bytes().all(|b| b.is_ascii_digit());
        let number = plain
            .then(|| value.parse::<u64>().ok())
            .flatten()
            .filter(|n| *n <= MOST);
        let number = number.ok_or_else(|| wrong(field, key, value))?;
        self.0.insert(key.name, Some(number).filter(|n| *n != 0));
        Ok(())
    }

    /// These limits over those that a volume has.
    ///
    /// # Errors
    /// A limit of a sum and one of its parts.
    pub(crate) fn apply(&self, mut qos: Qos) -> Answer<Qos> {
        for (name, value) in &self.0 {
            let limit = match *name {
                "iops" => &mut qos.iops,
                "readIops" => &mut qos.read_iops,
                "writeIops" => &mut qos.write_iops,
                "bytesPerSecond" => &mut qos.bytes,
                "readBytesPerSecond" => &mut qos.read_bytes,
                _ => &mut qos.write_bytes,
            };
            *limit = *value;
        }
        for (sum, whole, parts) in [
            (
                "iops",
                qos.iops,
                ["readIops", "writeIops"]
                    .into_iter()
                    .zip([qos.read_iops, qos.write_iops]),
            ),
            (
                "bytesPerSecond",
                qos.bytes,
                ["readBytesPerSecond", "writeBytesPerSecond"]
                    .into_iter()
                    .zip([qos.read_bytes, qos.write_bytes]),
            ),
        ] {
            for (part, value) in parts {
                if whole.is_some() && value.is_some() {
                    return Err(invalid(format!(
                        "{sum} and {part} exclude each other; allowed: one of them, with the other one \"0\" where the \
                         volume has it already"
                    )));
                }
            }
        }
        Ok(qos)
    }
}

/// Without what the sidecars add.
pub(crate) fn own(given: &Parameters) -> Parameters {
    let ours = given.iter().filter(|(name, _)| !name.starts_with(RESERVED));
    ours.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Parameters of snapshots and groups: this driver has none.
pub(crate) fn none(parameters: &Parameters) -> Answer<()> {
    map("parameters", parameters)?;
    known("parameters", parameters, |_| false).try_for_each(|entry| entry.map(drop))
}

fn yes(value: &str) -> Option<bool> {
    value.parse().ok()
}

fn seconds(value: &str) -> Option<u32> {
    let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    plain
        .then(|| value.parse().ok())?
        .filter(|seconds| *seconds <= 86400)
}

/// What `volume_context` says about lost connections.
pub(crate) fn reconnect(context: &BTreeMap<String, String>) -> Answer<u32> {
    let Some(value) = context.get(RECONNECT) else {
        return Ok(0);
    };
    seconds(value).ok_or_else(|| {
        invalid(format!(
            "volume_context.{RECONNECT} is malformed: give the context that CreateVolume answered"
        ))
    })
}

/// `PARAMETERS.md`.
#[cfg_attr(
    not(test),
    allow(dead_code, reason = "a test compares it with the file")
)]
pub(crate) fn document() -> String {
    let mut text = String::from(
        "# Parameters\n\n<!-- Made from src/request/parameters/mod.rs; `BLESS=1 cargo test -p csi-controller parameters` writes it. -->\n\n\
         All may stand in a StorageClass. Those marked mutable may stand in a VolumeAttributesClass, too, where they win, and\n\
         where only the ones that are given change. Snapshot classes have none.\n\n\
         | parameter | allowed | default | mutable | meaning |\n|---|---|---|---|---|\n",
    );
    for key in &TABLE {
        let mutable = if key.mutable { "yes" } else { "" };
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {mutable} | {} |",
            key.name, key.allowed, key.default, key.meaning
        );
    }
    let _ = writeln!(
        text,
        "\nKeys with the prefix `{RESERVED}` belong to the sidecars. Those that reach the driver as metadata\n\
         ({}) are accepted and change nothing, but that a volume with `{VHOST}` remembers its claim; any other one is an error.",
        METADATA.map(|key| format!("`{key}`")).join(", ")
    );
    text
}

#[cfg(test)]
mod tests;
