//! Does a secret get out of a message by printing it?
//!
//! Messages are filled by their descriptors: every secret with a marker, every other string with a word that must show.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fmt::Debug;
use std::sync::LazyLock;

use prost_reflect::prost::Message;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    Value,
};

const MARKER: &str = "hunter2-3f9c";
const SHOWN: &str = "shown-77ab";

/// Sounds secret and is not.
const HARMLESS: [&str; 6] = [
    "starting_token",
    "next_token",
    "page_token",
    "next_page_token",
    // Name of a directory with credentials, not what is in it.
    "credentials",
    // Names a secret field, is none: the option itself.
    "csi_secret",
];

/// Decoded once: a pool is a handle.
fn pool() -> DescriptorPool {
    static POOL: LazyLock<DescriptorPool> =
        LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).unwrap());
    POOL.clone()
}

/// Marked by the interface, or kept secret by our table (there is no option for these).
fn is_secret(field: &FieldDescriptor) -> bool {
    let option = pool().get_extension_by_name("csi.v1.csi_secret");
    let marked = option.is_some_and(|o| field.options().get_extension(&o).as_bool() == Some(true));
    // A message of that name is no secret itself; what is in it may be.
    let plain = !matches!(field.kind(), Kind::Message(_));
    let names = [
        "psk",
        "key",
        "mount_flags",
        "cloudInitData",
        "cloudInitNoCloudSource",
        "vmi",
    ];
    marked || plain && names.contains(&field.name())
}

/// A message in which everything is set, two levels of nesting deep at least.
fn filled(of: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields() {
        let word = if is_secret(&field) { MARKER } else { SHOWN };
        let value = if field.is_map() {
            let entry = (MapKey::String(word.into()), Value::String(word.into()));
            Value::Map([entry].into_iter().collect())
        } else {
            let Some(value) = one(&field, word, depth) else {
                continue;
            };
            if field.cardinality() == Cardinality::Repeated {
                Value::List(vec![value])
            } else {
                value
            }
        };
        message.set_field(&field, value);
    }
    message
}

fn one(field: &FieldDescriptor, word: &str, depth: usize) -> Option<Value> {
    Some(match field.kind() {
        Kind::String => Value::String(word.into()),
        Kind::Bytes => Value::Bytes(word.as_bytes().to_vec().into()),
        Kind::Bool => Value::Bool(true),
        Kind::Int32 => Value::I32(1),
        Kind::Int64 => Value::I64(1),
        Kind::Uint32 => Value::U32(1),
        Kind::Uint64 => Value::U64(1),
        Kind::Enum(_) => Value::EnumNumber(1),
        Kind::Message(m) if depth > 0 => Value::Message(filled(&m, depth - 1)),
        _ => return None,
    })
}

/// Fills message `name`, decodes it as `T`, prints it in both forms. Answers the short one.
fn printed<T: Message + Default + Debug>(name: &str) -> String {
    let of = pool()
        .get_message_by_name(name)
        .unwrap_or_else(|| panic!("{name}: no such message"));
    let bytes = filled(&of, 4).encode_to_vec();
    assert!(
        bytes.windows(MARKER.len()).any(|w| w == MARKER.as_bytes()),
        "{name}: nothing secret was filled in"
    );
    let message = T::decode(bytes.as_slice()).unwrap();
    let numbers = format!("{:?}", MARKER.as_bytes());
    let numbers = numbers.trim_matches(['[', ']']).to_owned();
    let lines = numbers.replace(", ", ",");
    for text in [format!("{message:?}"), format!("{message:#?}")] {
        let dense: String = text.split_whitespace().collect();
        for secret in [MARKER, numbers.as_str()] {
            assert!(!text.contains(secret), "{name} prints its secret: {text}");
        }
        assert!(
            !dense.contains(&lines),
            "{name} prints its secret as numbers: {text}"
        );
        assert!(
            text.contains("[redacted, 1"),
            "{name} does not say that something is there: {text}"
        );
        for field in of.fields().filter(|f| f.containing_oneof().is_none()) {
            assert!(
                text.contains(field.name()),
                "{name}: {} is not printed: {text}",
                field.name()
            );
        }
    }
    format!("{message:?}")
}

/// Runs [`printed`] on each and answers their names.
macro_rules! check {
    ($package:literal, $module:path, [$($message:ident),* $(,)?]) => {{
        use $module as module;
        $(printed::<module::$message>(concat!($package, ".", stringify!($message)));)*
        [$(concat!($package, ".", stringify!($message))),*]
    }};
}

/// Messages of a package that hold a field with the given test.
fn holders(package: &str, test: impl Fn(&FieldDescriptor) -> bool) -> Vec<String> {
    let messages = pool()
        .all_messages()
        .filter(|m| m.package_name() == package && !m.is_map_entry())
        .collect::<Vec<_>>();
    let mut names: Vec<_> = messages
        .iter()
        .filter(|m| m.fields().any(|f| test(&f)))
        .map(|m| m.full_name().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn no_request_of_csi_prints_its_secrets() {
    let mut checked = check!(
        "csi.v1",
        proto::csi::v1,
        [
            ControllerExpandVolumeRequest,
            ControllerGetVolumeHealthRequest,
            ControllerListVolumeHealthRequest,
            ControllerModifyVolumeRequest,
            ControllerPublishVolumeRequest,
            ControllerUnpublishVolumeRequest,
            CreateSnapshotRequest,
            CreateVolumeGroupSnapshotRequest,
            CreateVolumeRequest,
            DeleteSnapshotRequest,
            DeleteVolumeGroupSnapshotRequest,
            DeleteVolumeRequest,
            GetMetadataAllocatedRequest,
            GetMetadataDeltaRequest,
            GetSnapshotRequest,
            GetVolumeGroupSnapshotRequest,
            ListSnapshotsRequest,
            NodeExpandVolumeRequest,
            NodeGetStorageHealthRequest,
            NodePublishVolumeRequest,
            NodeStageVolumeRequest,
            ValidateVolumeCapabilitiesRequest,
        ]
    );
    checked.sort_unstable();
    assert_eq!(checked.len(), 22);
    let expected = holders("csi.v1", |f| f.name() == "secrets");
    assert_eq!(
        checked.to_vec(),
        expected,
        "every message with secrets is checked"
    );
}

#[test]
fn mount_flags_are_secret_wherever_a_capability_lies() {
    use proto::csi::v1::volume_capability::MountVolume;
    printed::<MountVolume>("csi.v1.VolumeCapability.MountVolume");
    check!(
        "csi.v1",
        proto::csi::v1,
        [
            VolumeCapability,
            GetCapacityRequest,
            NodeGetStorageHealthResponse,
            ValidateVolumeCapabilitiesResponse
        ]
    );
}

#[test]
fn what_is_not_secret_still_prints() {
    let text = printed::<proto::csi::v1::NodeStageVolumeRequest>("csi.v1.NodeStageVolumeRequest");
    assert!(
        text.contains(&format!("publish_context: {{\"{SHOWN}\": \"{SHOWN}\"}}")),
        "{text}"
    );
    assert!(text.contains("secrets: [redacted, 1 keys]"), "{text}");
    let request = tonic::Request::new(proto::csi::v1::DeleteVolumeRequest {
        volume_id: SHOWN.into(),
        secrets: [("a".into(), MARKER.into()), ("b".into(), MARKER.into())].into(),
    });
    let text = format!("{request:?}");
    assert!(
        text.contains(SHOWN) && !text.contains(MARKER) && text.contains("[redacted, 2 keys]"),
        "{text}"
    );
}

#[test]
fn no_object_of_opi_prints_its_keys() {
    let mut checked = check!(
        "opi_api.storage.v1",
        proto::opi::storage::v1,
        [EncryptedVolume, NvmeSubsystemSpec, TcpController]
    );
    checked.sort_unstable();
    assert_eq!(checked.to_vec(), holders("opi_api.storage.v1", is_secret));
    check!(
        "opi_api.storage.v1",
        proto::opi::storage::v1,
        [
            CreateEncryptedVolumeRequest,
            CreateNvmeRemoteControllerRequest,
            CreateNvmeSubsystemRequest,
            ListEncryptedVolumesResponse,
            ListNvmeRemoteControllersResponse,
            ListNvmeSubsystemsResponse,
            NvmeRemoteController,
            NvmeSubsystem,
            UpdateNvmeSubsystemRequest,
        ]
    );
    let text =
        printed::<proto::opi::storage::v1::EncryptedVolume>("opi_api.storage.v1.EncryptedVolume");
    assert!(text.contains("cipher: AesCbc128"), "{text}");
}

#[test]
fn no_callback_of_kubevirt_prints_what_the_guest_is_told() {
    let checked = check!(
        "kubevirt.hooks.v1alpha1",
        proto::kubevirt::hooks::v1alpha1,
        [OnDefineDomainParams]
    );
    assert_eq!(
        checked.to_vec(),
        holders("kubevirt.hooks.v1alpha1", is_secret)
    );
    let checked = check!(
        "kubevirt.hooks.v1alpha2",
        proto::kubevirt::hooks::v1alpha2,
        [
            OnDefineDomainParams,
            PreCloudInitIsoParams,
            PreCloudInitIsoResult
        ]
    );
    assert_eq!(
        checked.to_vec(),
        holders("kubevirt.hooks.v1alpha2", is_secret)
    );
    let checked = check!(
        "kubevirt.hooks.v1alpha3",
        proto::kubevirt::hooks::v1alpha3,
        [
            OnDefineDomainParams,
            PreCloudInitIsoParams,
            PreCloudInitIsoResult
        ]
    );
    assert_eq!(
        checked.to_vec(),
        holders("kubevirt.hooks.v1alpha3", is_secret)
    );
}

/// A field that comes later and sounds secret has to be judged by somebody.
#[test]
fn every_field_that_sounds_secret_is_secret_or_known_to_be_harmless() {
    let sounds = [
        "secret",
        "psk",
        "key",
        "password",
        "passphrase",
        "token",
        "credential",
        "private",
        "dhchap",
    ];
    let packages = ["csi.v1", "opi_api.storage.v1", "pluginregistration"];
    let offenders: Vec<_> = pool()
        .all_messages()
        .filter(|m| {
            packages.contains(&m.package_name())
                || m.package_name().starts_with("outboard.")
                || m.package_name().starts_with("kubevirt.")
        })
        .filter(|m| !m.is_map_entry())
        .flat_map(|m| m.fields().collect::<Vec<_>>())
        .filter(|f| sounds.iter().any(|s| f.name().contains(s)))
        .filter(|f| !matches!(f.kind(), Kind::Message(_)))
        .filter(|f| !is_secret(f) && !HARMLESS.contains(&f.name()))
        .map(|f| f.full_name().to_owned())
        .collect();
    assert!(
        offenders.is_empty(),
        "build/debug.rs has to redact these, or they are harmless: {offenders:#?}"
    );
}

/// Our own messages carry names of files, not what is in them: then there is nothing to redact.
#[test]
fn our_own_messages_have_no_secrets() {
    for package in [
        "outboard.attacher.v1",
        "outboard.card.v1",
        "outboard.dpu.v1",
        "outboard.node.v1",
        "outboard.volume.v1",
    ] {
        assert_eq!(holders(package, is_secret), Vec::<String>::new());
    }
}

/// `Debug` is the only way from a message to text.
#[test]
fn nothing_here_knows_serde() {
    let manifest = include_str!("../Cargo.toml");
    assert!(
        !manifest.contains("serde"),
        "messages would get a second way to text that does not redact"
    );
}
