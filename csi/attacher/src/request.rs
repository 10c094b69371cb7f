//! What callers say, checked: INVALID_ARGUMENT names the field and what is allowed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use proto::attacher::v1::{AttachmentId, AttachmentSpec};
use proto::volume::v1::file_source::Format;
use proto::volume::v1::nbd_source::Address;
use proto::volume::v1::nvmeof_path::Transport;
use proto::volume::v1::{
    BlockDeviceSource, EngineSource, FileSource, NbdSource, NvmeofSource, Source, TcpAddress, Tls,
    source,
};
use tonic::Code;
use uuid::Uuid;

use crate::failure::Failure;
use crate::id::{self, Id};

const HOST: usize = 253;
const EXPORT_NAME: usize = 4096;
const NQN: usize = 223;
const SERIAL: usize = 20;
const LABELS: usize = 16;
const LABEL_BYTES: usize = 4096;

type Checked<T> = Result<T, Failure>;

fn bad(sentence: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidArgument, sentence)
}

fn need(holds: bool, sentence: &str) -> Checked<()> {
    if holds { Ok(()) } else { Err(bad(sentence)) }
}

/// A host of this card.
pub(crate) fn host(host: &str, served: &[String]) -> Checked<String> {
    need(
        !host.is_empty() && host.len() <= HOST,
        "host: must have 1 to 253 characters",
    )?;
    if served.iter().any(|name| name == host) {
        return Ok(host.to_owned());
    }
    Err(Failure::new(
        Code::NotFound,
        format!(
            "host {host}: this card serves {}; ask the attacher of that host's card",
            served.join(", ")
        ),
    ))
}

/// An attachment of a host of this card.
pub(crate) fn id(message: Option<AttachmentId>, served: &[String]) -> Checked<Id> {
    let message = message.ok_or_else(|| bad("id: is missing"))?;
    let uuid = Uuid::try_parse(&message.volume_uuid).ok();
    let uuid = uuid.filter(|uuid| uuid.to_string() == message.volume_uuid);
    let uuid = uuid.ok_or_else(|| {
        bad("id.volume_uuid: must be a UUID in lower case, such as 6ba7b810-9dad-41d1-80b4-00c04fd430c8")
    })?;
    need(!message.host.is_empty(), "id.host: is missing")?;
    Ok(Id {
        host: host(&message.host, served)?,
        uuid,
    })
}

/// What is to be attached, with the defaults filled in.
pub(crate) fn spec(message: Option<AttachmentSpec>, id: &Id) -> Checked<AttachmentSpec> {
    let mut spec = message.ok_or_else(|| bad("spec: is missing"))?;
    source(spec.source.as_ref())?;
    let exposure = spec.exposure.and_then(|exposure| exposure.kind);
    need(
        exposure.is_some(),
        "spec.exposure: must be one of local_block_device, vhost_user_blk, nvme_function, virtio_blk_function",
    )?;
    if spec.serial.is_empty() {
        spec.serial = id::serial(id.uuid);
    }
    let printable = |b: u8| (b' '..=b'~').contains(&b);
    need(
        spec.serial.len() <= SERIAL && spec.serial.bytes().all(printable),
        "spec.serial: must have at most 20 characters of printable ASCII",
    )?;
    labels(&spec.labels)?;
    // "No limits" has one form.
    spec.limits = spec.limits.filter(|limits| *limits != Default::default());
    Ok(spec)
}

fn labels(labels: &BTreeMap<String, String>) -> Checked<()> {
    let bytes: usize = labels
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    need(
        labels.len() <= LABELS && bytes <= LABEL_BYTES,
        "spec.labels: must be at most 16 keys and 4 KiB in all",
    )
}

fn source(source: Option<&Source>) -> Checked<()> {
    match source.and_then(|source| source.kind.as_ref()) {
        None => Err(bad(
            "spec.source: must be one of nbd, file, block_device, engine, nvmeof",
        )),
        Some(source::Kind::Nbd(nbd)) => self::nbd(nbd),
        Some(source::Kind::File(file)) => self::file(file),
        Some(source::Kind::BlockDevice(BlockDeviceSource { path })) => absolute(
            path,
            "spec.source.block_device.path: must be an absolute path",
        ),
        Some(source::Kind::Engine(EngineSource { engine_id, .. })) => need(
            !engine_id.is_empty(),
            "spec.source.engine.engine_id: is missing",
        ),
        Some(source::Kind::Nvmeof(nvmeof)) => self::nvmeof(nvmeof),
    }
}

fn nbd(nbd: &NbdSource) -> Checked<()> {
    need(
        nbd.export_name.len() <= EXPORT_NAME,
        "spec.source.nbd.export_name: must have at most 4096 bytes",
    )?;
    tls(nbd.tls.as_ref(), "spec.source.nbd.tls")?;
    match &nbd.address {
        None => Err(bad(
            "spec.source.nbd.address: must be one of tcp, unix_path",
        )),
        Some(Address::UnixPath(path)) => {
            absolute(path, "spec.source.nbd.unix_path: must be an absolute path")
        }
        Some(Address::Tcp(address)) => {
            let ip = tcp(address, "spec.source.nbd.tcp")?;
            need(
                nbd.tls.is_some() || ip.is_loopback(),
                "spec.source.nbd.tls: is missing; without it the address must be a unix socket or a loopback address",
            )
        }
    }
}

fn file(file: &FileSource) -> Checked<()> {
    absolute(
        &file.path,
        "spec.source.file.path: must be an absolute path",
    )?;
    need(
        matches!(file.format(), Format::Raw | Format::Qcow2),
        "spec.source.file.format: must be FORMAT_RAW or FORMAT_QCOW2; it is never guessed",
    )
}

fn nvmeof(nvmeof: &NvmeofSource) -> Checked<()> {
    need(
        !nvmeof.paths.is_empty(),
        "spec.source.nvmeof.paths: must have at least one",
    )?;
    for path in &nvmeof.paths {
        need(
            matches!(path.transport(), Transport::Tcp | Transport::Rdma),
            "spec.source.nvmeof.paths.transport: must be TRANSPORT_TCP or TRANSPORT_RDMA",
        )?;
        let address = path.address.as_ref();
        let address = address.ok_or_else(|| bad("spec.source.nvmeof.paths.address: is missing"))?;
        tcp(address, "spec.source.nvmeof.paths.address")?;
    }
    let fits = |nqn: &str| !nqn.is_empty() && nqn.len() <= NQN;
    need(
        fits(&nvmeof.subsystem_nqn) && fits(&nvmeof.host_nqn),
        "spec.source.nvmeof: subsystem_nqn and host_nqn must have 1 to 223 bytes",
    )?;
    need(
        Uuid::try_parse(&nvmeof.namespace_uuid).is_ok(),
        "spec.source.nvmeof.namespace_uuid: must be a UUID",
    )?;
    tls(nvmeof.tls.as_ref(), "spec.source.nvmeof.tls")
}

fn tcp(address: &TcpAddress, field: &str) -> Checked<IpAddr> {
    need(
        (1..=65535).contains(&address.port),
        &format!("{field}.port: must be 1 to 65535"),
    )?;
    let ip = address.ip.parse();
    ip.map_err(|_| bad(format!("{field}.ip: must be an IP address, not a name")))
}

fn tls(tls: Option<&Tls>, field: &str) -> Checked<()> {
    let Some(tls) = tls else { return Ok(()) };
    let name = tls.credentials.as_str();
    need(
        !name.is_empty() && !name.contains('/') && name != "." && name != "..",
        &format!(
            "{field}.credentials: must be the name of a directory below the card's credentials, without `/`"
        ),
    )
}

fn absolute(path: &str, sentence: &str) -> Checked<()> {
    need(
        Path::new(path).is_absolute() && !path.contains('\0'),
        sentence,
    )
}

/// The first field in which `asked` contradicts `present`. Limits and labels may change; so may the size, by growing.
pub(crate) fn contradiction(
    present: &AttachmentSpec,
    asked: &AttachmentSpec,
) -> Option<&'static str> {
    [
        ("source", present.source != asked.source),
        ("exposure", present.exposure != asked.exposure),
        ("read_only", present.read_only != asked.read_only),
        ("serial", present.serial != asked.serial),
    ]
    .into_iter()
    .find_map(|(field, differs)| differs.then_some(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::volume::v1::{Exposure, LocalBlockDevice, exposure};
    use rstest::rstest;

    fn good() -> AttachmentSpec {
        let file = FileSource {
            path: "/v".to_owned(),
            format: Format::Raw.into(),
        };
        AttachmentSpec {
            source: from(source::Kind::File(file)),
            exposure: Some(Exposure {
                kind: Some(exposure::Kind::LocalBlockDevice(LocalBlockDevice::default())),
            }),
            ..AttachmentSpec::default()
        }
    }

    fn from(kind: source::Kind) -> Option<Source> {
        Some(Source { kind: Some(kind) })
    }

    fn nbd_at(ip: &str, port: u32, name: usize, credentials: Option<&str>) -> Option<Source> {
        from(source::Kind::Nbd(NbdSource {
            address: Some(Address::Tcp(TcpAddress {
                ip: ip.to_owned(),
                port,
            })),
            export_name: "x".repeat(name),
            tls: credentials.map(|name| Tls {
                credentials: name.to_owned(),
                ..Tls::default()
            }),
            reconnect_delay_seconds: 0,
        }))
    }

    fn nvme_at(change: impl FnOnce(&mut NvmeofSource)) -> Option<Source> {
        let mut source = NvmeofSource {
            paths: vec![proto::volume::v1::NvmeofPath {
                transport: Transport::Tcp.into(),
                address: Some(TcpAddress {
                    ip: "fd00::9".to_owned(),
                    port: 4420,
                }),
            }],
            subsystem_nqn: "nqn.2025-01.x:a".to_owned(),
            host_nqn: "nqn.2025-01.x:b".to_owned(),
            namespace_uuid: Uuid::nil().to_string(),
            ..NvmeofSource::default()
        };
        change(&mut source);
        from(source::Kind::Nvmeof(source))
    }

    fn some_id() -> Id {
        Id {
            host: "n1".to_owned(),
            uuid: Uuid::from_u128(1),
        }
    }

    #[rstest]
    #[case("spec.source:", |s: &mut AttachmentSpec| s.source = None)]
    #[case("spec.source:", |s: &mut AttachmentSpec| s.source = Some(Source::default()))]
    #[case("spec.exposure:", |s: &mut AttachmentSpec| s.exposure = None)]
    #[case("spec.exposure:", |s: &mut AttachmentSpec| s.exposure = Some(Exposure::default()))]
    #[case("spec.serial:", |s: &mut AttachmentSpec| s.serial = "x".repeat(21))]
    #[case("spec.serial:", |s: &mut AttachmentSpec| s.serial = "é".to_owned())]
    #[case("spec.labels:", |s: &mut AttachmentSpec| s.labels = (0..17).map(|n| (n.to_string(), String::new())).collect())]
    #[case("spec.labels:", |s: &mut AttachmentSpec| s.labels = [("k".to_owned(), "v".repeat(4096))].into())]
    #[case("spec.source.file.path:", |s: &mut AttachmentSpec| s.source = from(source::Kind::File(FileSource::default())))]
    #[case("spec.source.file.format:", |s: &mut AttachmentSpec| s.source = from(source::Kind::File(FileSource { path: "/x".into(), format: 0 })))]
    #[case("spec.source.block_device.path:", |s: &mut AttachmentSpec| s.source = from(source::Kind::BlockDevice(BlockDeviceSource { path: "sda".into() })))]
    #[case("spec.source.engine.engine_id:", |s: &mut AttachmentSpec| s.source = from(source::Kind::Engine(EngineSource::default())))]
    #[case("spec.source.nbd.address:", |s: &mut AttachmentSpec| s.source = from(source::Kind::Nbd(NbdSource::default())))]
    #[case("spec.source.nbd.tcp.port:", |s: &mut AttachmentSpec| s.source = nbd_at("127.0.0.1", 0, 1, None))]
    #[case("spec.source.nbd.tcp.ip:", |s: &mut AttachmentSpec| s.source = nbd_at("target", 1, 1, None))]
    #[case("spec.source.nbd.tls:", |s: &mut AttachmentSpec| s.source = nbd_at("198.18.0.1", 1, 1, None))]
    #[case("spec.source.nbd.tls.credentials:", |s: &mut AttachmentSpec| s.source = nbd_at("198.18.0.1", 1, 1, Some("../x")))]
    #[case("spec.source.nbd.export_name:", |s: &mut AttachmentSpec| s.source = nbd_at("127.0.0.1", 1, 4097, None))]
    #[case("spec.source.nvmeof.paths:", |s: &mut AttachmentSpec| s.source = nvme_at(|n| n.paths.clear()))]
    #[case("spec.source.nvmeof.paths.transport:", |s: &mut AttachmentSpec| s.source = nvme_at(|n| n.paths[0].transport = 0))]
    #[case("spec.source.nvmeof.paths.address:", |s: &mut AttachmentSpec| s.source = nvme_at(|n| n.paths[0].address = None))]
    #[case("spec.source.nvmeof: subsystem_nqn", |s: &mut AttachmentSpec| s.source = nvme_at(|n| n.host_nqn = "x".repeat(224)))]
    #[case("spec.source.nvmeof.namespace_uuid:", |s: &mut AttachmentSpec| s.source = nvme_at(|n| n.namespace_uuid.clear()))]
    fn what_is_wrong_is_named(#[case] field: &str, #[case] change: fn(&mut AttachmentSpec)) {
        let mut asked = good();
        change(&mut asked);
        let failure = spec(Some(asked), &some_id()).unwrap_err();
        assert_eq!(failure.code, Code::InvalidArgument);
        assert!(failure.sentence.starts_with(field), "{failure}");
    }

    #[rstest]
    #[case("", "", Code::InvalidArgument, "id.volume_uuid:")]
    #[case(
        "n1",
        "6BA7B810-9DAD-41D1-80B4-00C04FD430C8",
        Code::InvalidArgument,
        "id.volume_uuid:"
    )]
    #[case(
        "n1",
        "6ba7b8109dad41d180b400c04fd430c8",
        Code::InvalidArgument,
        "id.volume_uuid:"
    )]
    #[case(
        "",
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
        Code::InvalidArgument,
        "id.host:"
    )]
    #[case(
        "n2",
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
        Code::NotFound,
        "host n2: this card serves n1"
    )]
    fn an_id_is_a_host_of_ours_and_a_uuid(
        #[case] host: &str,
        #[case] uuid: &str,
        #[case] code: Code,
        #[case] says: &str,
    ) {
        let message = AttachmentId {
            host: host.to_owned(),
            volume_uuid: uuid.to_owned(),
        };
        let failure = id(Some(message), &["n1".to_owned()]).unwrap_err();
        assert_eq!(failure.code, code);
        assert!(failure.sentence.starts_with(says), "{failure}");
        assert!(id(None, &[]).is_err());
    }

    #[test]
    fn only_limits_labels_and_size_may_change() {
        let base = spec(Some(good()), &some_id()).unwrap();
        assert_eq!(base.serial.len(), 20);
        let mut other = base.clone();
        other.size_bytes = 7;
        other.labels = [("owner".to_owned(), "csi".to_owned())].into();
        assert_eq!(contradiction(&base, &other), None);
        other.read_only = true;
        assert_eq!(contradiction(&base, &other), Some("read_only"));
    }
}
