//! What must hold for any bytes that a runtime or a peer could send. Used by the replay of the seeds and by the fuzz targets `cni_*`.

use cni_bin::cni::{
    CNI_ARGS, CNI_CONTAINERID, CNI_IFNAME, CNIResult, ContainerId, Dns, InterfaceName, NetConf,
    SUPPORTED, SpecVersion, render,
};
use cni_bin::wire::{Command, Reply, Request, WireError};
use cni_bin::{args, code, conf};
use serde_json::{Value, json};

/// A configuration under the verb that its first line names: `ADD\n{…}`. True if it was accepted.
///
/// # Panics
/// As [`configuration`].
pub(crate) fn named_configuration(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let (verb, config) = text.split_once('\n').unwrap_or((text, ""));
    let command = match verb {
        "DEL" => Command::Del,
        "CHECK" => Command::Check,
        "GC" => Command::Gc,
        "STATUS" => Command::Status,
        _ => Command::Add,
    };
    configuration(command, config)
}

/// Both halves judge a configuration alike; what was read of it is read again from what is written of it; and what was
/// printed as the result of an ADD is accepted as the `prevResult` of the CHECK. True if it was accepted.
///
/// # Panics
/// Something of it does not hold.
pub(crate) fn configuration(command: Command, config: &str) -> bool {
    let head = conf::Head::parse(command, config);
    let (conf, version) = match conf::parse(command, config) {
        Ok(parsed) => parsed,
        Err(failure) => {
            assert!(
                [
                    code::INCOMPATIBLE_VERSION,
                    code::DECODING_FAILURE,
                    code::INVALID_CONFIG
                ]
                .contains(&failure.code),
                "{failure}"
            );
            assert!(!failure.msg.is_empty() && !failure.details.is_empty());
            assert!(!failure.msg.ends_with('.'), "{failure}");
            let reply = Reply::Error(failure);
            let bytes = reply.encode().expect("a failure goes over the wire");
            assert!(matches!(Reply::decode(&bytes), Ok(Reply::Error(_))));
            return false;
        }
    };
    let head = head.expect("the plugin accepts what the daemon accepts");
    assert_eq!(head.name.as_deref(), Some(conf.name.as_str()));
    assert_eq!(head.version(), conf.cni_version);
    assert!(SUPPORTED.contains(&version), "{version}");
    assert!(head.socket().starts_with('/'));
    assert!((1..=conf::MAX_TIMEOUT_SECONDS).contains(&head.timeout_seconds()));

    let written = serde_json::to_string(&conf).expect("a configuration is written as JSON");
    let (again, _) =
        conf::parse(command, &written).unwrap_or_else(|failure| panic!("{written}: {failure}"));
    if repeatable(&conf) {
        assert_eq!(normal(again), normal(conf.clone()), "{written}");
    }
    if let Some(result) = &conf.prev_result {
        for version in SUPPORTED {
            printed_and_checked(version, result);
        }
    }
    true
}

/// No DNS and one that says nothing are the same, and are written the same.
fn normal(mut conf: NetConf) -> NetConf {
    if let Some(result) = &mut conf.prev_result {
        result.dns = result.dns.take().filter(|dns| *dns != Dns::default());
    }
    conf
}

/// What was printed in the layout of `version` comes back as `prevResult`.
fn printed_and_checked(version: SpecVersion, result: &CNIResult) {
    let printed = render(version, result).expect("a result is written as JSON");
    let document: Value = serde_json::from_str(printed.get()).expect("JSON");
    assert_eq!(document["cniVersion"], version.to_string());
    // CHECK does not exist before 0.4.0, and DEL does without a prevResult: ask an ADD in a chain.
    let config = json!({
        "cniVersion": version.to_string(), "name": "n", "type": "outboard", "prevResult": document,
    });
    let (conf, _) = conf::parse(Command::Add, &config.to_string())
        .unwrap_or_else(|failure| panic!("{config}: {failure}"));
    let read = conf.prev_result.expect("it was there");
    let kept = |result: &CNIResult| {
        let mut result = result.clone();
        result.dns = None;
        if version < SpecVersion::new(1, 1, 0) {
            for interface in &mut result.interfaces {
                (interface.mtu, interface.socket_path, interface.pci_id) = (None, None, None);
            }
            for route in &mut result.routes {
                (route.mtu, route.advmss, route.priority) = (None, None, None);
                (route.table, route.scope) = (None, None);
            }
        }
        result
    };
    assert_eq!(kept(&read), kept(result), "{config}");
}

/// Whether JSON keeps all numbers of the keys that we do not know: serde_json may lose the last digit of those that have many.
fn repeatable(conf: &NetConf) -> bool {
    let value = serde_json::to_value(conf).expect("a configuration is written as JSON");
    serde_json::from_str::<Value>(&value.to_string()).is_ok_and(|read| read == value)
}

/// Bytes as a request and as a reply: what was decoded is encoded to what decodes as the same, and what is cut off is
/// known as such. The variables and the configuration of a request are read as well. True if it was either.
///
/// # Panics
/// Something of it does not hold.
pub(crate) fn message(bytes: &[u8]) -> bool {
    let request = Request::decode(bytes);
    if let Ok(request) = &request {
        let encoded = request.encode().expect("it was no larger when it came");
        let again = Request::decode(&encoded).expect("our own encoding");
        assert_eq!(&again, request);
        cut(&encoded, |bytes| Request::decode(bytes).err());
        configuration(request.command, &request.config);
        variables(request);
    }
    let reply = Reply::decode(bytes);
    if let Ok(reply) = &reply {
        let encoded = reply.encode().expect("it was no larger when it came");
        let again = Reply::decode(&encoded).expect("our own encoding");
        match (reply, &again) {
            (Reply::Result(a), Reply::Result(b)) => {
                let text = |raw: &Option<Box<serde_json::value::RawValue>>| {
                    raw.as_ref().map(|raw| raw.get().to_owned())
                };
                assert_eq!(text(a), text(b));
            }
            (Reply::Error(a), Reply::Error(b)) => assert_eq!(a, b),
            _ => panic!("a result is no error"),
        }
        cut(&encoded, |bytes| Reply::decode(bytes).err());
    }
    request.is_ok() || reply.is_ok()
}

/// Whatever a whole message is cut to, the receiver knows that the end is missing: only that is tried again.
fn cut(whole: &[u8], decode: impl Fn(&[u8]) -> Option<WireError>) {
    let end = whole.len();
    // Everywhere, unless that takes long.
    let step = (end / 64).max(1);
    for length in (0..end).step_by(step).chain([end - 1]) {
        let error = decode(&whole[..length]);
        assert!(
            matches!(
                error,
                Some(WireError::Malformed {
                    truncated: true,
                    ..
                })
            ),
            "cut to {length} of {}: {error:?}",
            String::from_utf8_lossy(whole)
        );
    }
}

/// What is accepted of the environment says the same when it is written again.
fn variables(request: &Request) {
    if let Some(text) = request.var(CNI_CONTAINERID)
        && let Ok(container) = text.parse::<ContainerId>()
    {
        assert_eq!(container.to_string(), text);
        assert!(!text.contains('/') && !text.starts_with('.'), "{text:?}");
    }
    if let Some(text) = request.var(CNI_IFNAME)
        && let Ok(ifname) = text.parse::<InterfaceName>()
    {
        assert_eq!(ifname.to_string(), text);
        assert!(text.len() <= 15 && !text.contains('/'), "{text:?}");
    }
    arguments(request.var(CNI_ARGS).unwrap_or_default());
}

/// `CNI_ARGS` that was read is read again from its pairs.
///
/// # Panics
/// It is not.
pub(crate) fn arguments(text: &str) {
    let Ok(read) = args::parse(text) else {
        return;
    };
    let pairs = read.iter().map(|(key, value)| format!("{key}={value}"));
    let written = pairs.collect::<Vec<_>>().join(";");
    assert_eq!(args::parse(&written).as_ref(), Ok(&read), "{written:?}");
    assert!(read.len() <= text.split(';').count());
}
