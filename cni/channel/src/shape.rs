//! Is a message what the protocol says? Pure: nothing here knows what exists.
//!
//! The host is not believed: whatever it says is looked at here before anything is done with it. What a field means, and whether the thing
//! is there, is the business of [`Ports`](crate::Ports).

use std::collections::HashSet;
use std::net::IpAddr;

use prost::Message;

use crate::code::{DECODING_FAILURE, INVALID_CONFIG, INVALID_ENVIRONMENT};
use crate::proto::attachment::Subject;
use crate::proto::{
    AttachRequest, Attachment, AttachmentKey, FullSet, Function, Hello, PodInterface, Reason,
    Wiring,
};
use crate::{Failure, epoch};

/// The sandbox of the host's own interface. No pod's has this name.
pub const HOST_SANDBOX: &str = "host";
/// The host's own interface.
pub const HOST_INTERFACE: &str = "ob0";

/// A FullSet has so many attachments at most.
pub const SET: usize = 4096;
/// Functions are counted up to here, as PCI does.
const FUNCTION: u32 = 4095;
const NAME: usize = 253;
const LABEL: usize = 63;
/// dev_valid_name of the kernel: IFNAMSIZ with its zero.
const IFNAME: usize = 15;
const FEATURES: usize = 64;
const WORD: usize = 64;
/// Lists in a Wiring.
const LIST: usize = 256;

/// Decodes and looks at an AttachRequest, whatever the bytes are: the whole way of untrusted bytes, for fuzzing.
///
/// # Errors
/// It is malformed.
pub fn attach_request(bytes: &[u8]) -> Result<AttachRequest, Failure> {
    let request = AttachRequest::decode(bytes)
        .map_err(|why| malformed(format!("the request can't be decoded: {why}")))?;
    let given = request.attachment.as_ref();
    attachment(given.ok_or_else(|| malformed("the request names no attachment"))?)?;
    Ok(request)
}

/// An attachment, as a host says it.
///
/// # Errors
/// `REASON_MALFORMED`: a field is missing or not what it should be. Code 4 for what came in a `CNI_*` variable, else 7.
pub fn attachment(attachment: &Attachment) -> Result<(), Failure> {
    let id = attachment.key.as_ref();
    let id = id.ok_or_else(|| malformed("the attachment has no key"))?;
    key(id)?;
    attempt(attachment.attempt)?;
    function(attachment.function.as_ref())?;
    match &attachment.subject {
        Some(Subject::Pod(pod)) if id.sandbox == HOST_SANDBOX => Err(malformed(format!(
            "sandbox {HOST_SANDBOX} is the host's own, not that of pod {:?}",
            brief(&pod.name)
        ))),
        Some(Subject::Pod(pod)) => pod_interface(pod),
        Some(Subject::Host(_)) if (&*id.sandbox, &*id.ifname) == (HOST_SANDBOX, HOST_INTERFACE) => {
            Ok(())
        }
        Some(Subject::Host(_)) => Err(malformed(format!(
            "the host's own interface has the key {HOST_SANDBOX}/{HOST_INTERFACE}, not {}/{}",
            id.sandbox, id.ifname
        ))),
        None => Err(malformed(
            "the attachment is neither a pod's nor the host's own",
        )),
    }
}

/// The key of an attachment: as CNI has `CNI_CONTAINERID` and `CNI_IFNAME`.
///
/// # Errors
/// `REASON_MALFORMED`, code 4.
pub fn key(key: &AttachmentKey) -> Result<(), Failure> {
    let AttachmentKey { sandbox, ifname } = key;
    let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    let first = sandbox
        .bytes()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric());
    if !first || sandbox.len() > NAME || !sandbox.bytes().all(word) {
        return Err(environment(format!(
            "sandbox {:?} is no CNI_CONTAINERID",
            brief(sandbox)
        )));
    }
    let letter = |c: u8| c.is_ascii_graphic() && !matches!(c, b'/' | b':');
    let named = !ifname.is_empty() && ifname.len() <= IFNAME && ifname.bytes().all(letter);
    if !named || matches!(&**ifname, "." | "..") {
        return Err(environment(format!(
            "interface {:?} is no CNI_IFNAME",
            brief(ifname)
        )));
    }
    Ok(())
}

/// An attempt.
///
/// # Errors
/// `REASON_MALFORMED`: there is none with number 0.
pub fn attempt(attempt: u64) -> Result<(), Failure> {
    if attempt == 0 {
        return Err(malformed("attempts count from 1"));
    }
    Ok(())
}

fn function(function: Option<&Function>) -> Result<(), Failure> {
    let function = function.ok_or_else(|| malformed("the attachment names no function"))?;
    let (physical, number) = (function.physical, function.r#virtual.unwrap_or_default());
    if physical > FUNCTION || number > FUNCTION {
        return Err(malformed(format!(
            "function {physical}.{number}: functions are counted up to {FUNCTION}"
        )));
    }
    Ok(())
}

fn pod_interface(pod: &PodInterface) -> Result<(), Failure> {
    let of = |what: &str, value: &str| malformed(format!("{what} {:?} is none", brief(value)));
    if !dns(&pod.namespace, LABEL) || pod.namespace.contains('.') {
        return Err(of("namespace", &pod.namespace));
    }
    if !dns(&pod.name, NAME) {
        return Err(of("pod name", &pod.name));
    }
    let letter = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if pod.uid.is_empty() || pod.uid.len() > NAME || !pod.uid.bytes().all(letter) {
        return Err(of("pod UID", &pod.uid));
    }
    if !pod.subnet.is_empty() && !dns(&pod.subnet, NAME) {
        return Err(of("name of a Subnet", &pod.subnet));
    }
    Ok(())
}

/// RFC 1123, as Kubernetes has it: lower case.
fn dns(name: &str, most: usize) -> bool {
    let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |label: &str| {
        let ends = label.bytes().next().zip(label.bytes().last());
        ends.is_some_and(|(first, last)| letter(first) && letter(last))
            && label.bytes().all(|c| letter(c) || c == b'-')
    };
    name.len() <= most && name.split('.').all(label)
}

/// A set as a whole; its members one by one are looked at by [`attachment`].
///
/// # Errors
/// `REASON_MALFORMED`: too many, or two with one key.
pub fn set(set: &FullSet) -> Result<(), Failure> {
    let count = set.attachments.len();
    if count > SET {
        return Err(malformed(format!(
            "a set of {count} attachments: {SET} at most"
        )));
    }
    let mut keys = HashSet::new();
    for key in set.attachments.iter().filter_map(|one| one.key.as_ref()) {
        if !keys.insert((&key.sandbox, &key.ifname)) {
            return Err(malformed(format!(
                "the set has two attachments {}/{}",
                brief(&key.sandbox),
                brief(&key.ifname)
            )));
        }
    }
    Ok(())
}

/// Who the other side says it is.
///
/// # Errors
/// `REASON_MALFORMED`: no version, no epoch, or something is too long.
pub fn hello(hello: &Hello) -> Result<(), Failure> {
    if hello.version == 0 {
        return Err(malformed("Hello without a version"));
    }
    let long = |words: &[String]| words.iter().any(|word| word.len() > WORD);
    if hello.features.len() > FEATURES || long(&hello.features) || hello.release.len() > WORD {
        return Err(malformed("Hello with too many or too long features"));
    }
    let given = hello.epoch.as_ref();
    let given = given.ok_or_else(|| malformed("Hello without an epoch"))?;
    let text = epoch::text(given);
    if given.boot_id.is_empty()
        || text.len() > 2 * WORD
        || !text.bytes().all(|c| c.is_ascii_graphic())
    {
        return Err(malformed(format!(
            "Hello whose boot id is {:?}",
            brief(&given.boot_id)
        )));
    }
    Ok(())
}

/// What the DPU says of an interface: addresses are addresses.
///
/// # Errors
/// `REASON_MALFORMED`, code 6.
pub fn wiring(wiring: &Wiring) -> Result<(), Failure> {
    let bad = |what: &str, value: &str| {
        Failure::new(
            Reason::Malformed,
            DECODING_FAILURE,
            format!("the DPU answered {what} {:?}", brief(value)),
            "the DPU's release may be broken: look at its log",
        )
    };
    if wiring.logical_port.is_empty() || wiring.logical_port.len() > 2 * NAME {
        return Err(bad("the logical port", &wiring.logical_port));
    }
    let octets: Vec<_> = wiring.mac.split(':').collect();
    let octet = |text: &&str| text.len() == 2 && text.bytes().all(|c| c.is_ascii_hexdigit());
    if octets.len() != 6 || !octets.iter().all(octet) {
        return Err(bad("the MAC address", &wiring.mac));
    }
    // RFC 791: every link carries 68 bytes.
    if !(68..=65535).contains(&wiring.mtu) {
        return Err(bad("the MTU", &wiring.mtu.to_string()));
    }
    let lists = [wiring.ips.len(), wiring.gateways.len(), wiring.routes.len()];
    if lists.iter().any(|&length| length > LIST) {
        return Err(bad(
            "a list of",
            &lists.iter().max().map_or(0, |l| *l).to_string(),
        ));
    }
    for ip in &wiring.ips {
        prefix(ip).ok_or_else(|| bad("the address", ip))?;
    }
    if let Some(cluster) = &wiring.cluster {
        for cidr in cluster
            .pods
            .iter()
            .chain(&cluster.services)
            .chain(&cluster.join)
        {
            prefix(cidr).ok_or_else(|| bad("the range", cidr))?;
        }
    }
    for gateway in &wiring.gateways {
        gateway
            .parse::<IpAddr>()
            .map_err(|_| bad("the gateway", gateway))?;
    }
    for route in &wiring.routes {
        prefix(&route.destination).ok_or_else(|| bad("the destination", &route.destination))?;
        route
            .via
            .parse::<IpAddr>()
            .map_err(|_| bad("the next hop", &route.via))?;
    }
    Ok(())
}

/// An address with the length of its prefix.
fn prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    // Not a sign, which `parse` would take.
    let digits = length.bytes().all(|c| c.is_ascii_digit());
    let length: u8 = length.parse().ok().filter(|_| digits)?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// Enough of it for a sentence.
fn brief(text: &str) -> &str {
    crate::failure::cut(text, WORD)
}

fn malformed(cause: impl Into<String>) -> Failure {
    Failure::new(Reason::Malformed, INVALID_CONFIG, cause, REMEDY)
}

fn environment(cause: impl Into<String>) -> Failure {
    Failure::new(Reason::Malformed, INVALID_ENVIRONMENT, cause, REMEDY)
}

const REMEDY: &str = "the host's cni-node may be broken or not be who it says: look at its log";
