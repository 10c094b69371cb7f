//! What must hold for any bytes that the other side could send. Used by the replay of the seeds and by the fuzz target
//! `channel_messages`.

use channel::proto::attach_progress::Progress;
use channel::proto::attachment::Subject;
use channel::proto::synced_attachment::Outcome;
use channel::proto::{
    self, AttachProgress, AttachRequest, Attachment, AttachmentKey, CheckResponse, SessionRequest,
    SessionResponse, Wiring, session_request, session_response,
};
use channel::{Failure, shape};
use prost::Message;
use tonic::Status;

/// A message whose kind the first byte says: `A` AttachRequest, `H` SessionRequest, `D` SessionResponse, `P` AttachProgress,
/// `C` CheckResponse, `F` Failure. True if it is accepted.
///
/// # Panics
/// What was accepted is not accepted again from its own encoding, or is not what the protocol promises to those behind it.
pub(crate) fn message(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else {
        return false;
    };
    match kind {
        b'A' => attach(bytes).is_some(),
        b'H' => whole(bytes, host),
        b'D' => whole(bytes, dpu),
        b'P' => whole(bytes, |message: &AttachProgress| match &message.progress {
            Some(Progress::Wiring(wiring)) => self::wiring(wiring),
            Some(Progress::Installed(_)) => true,
            None => false,
        }),
        b'C' => whole(bytes, |message: &CheckResponse| {
            message.wiring.as_ref().is_some_and(wiring)
        }),
        b'F' => whole(bytes, |message: &proto::Failure| {
            crosses(&Failure::from(message.clone()));
            true
        }),
        _ => false,
    }
}

/// The request, if it is accepted.
///
/// # Panics
/// As [`message`].
pub(crate) fn attach(bytes: &[u8]) -> Option<AttachRequest> {
    let request = match shape::attach_request(bytes) {
        Ok(request) => request,
        Err(failure) => {
            crosses(&failure);
            return None;
        }
    };
    let again = shape::attach_request(&request.encode_to_vec());
    assert_eq!(again.as_ref(), Ok(&request));
    promised(request.attachment.as_ref().expect("it was looked at"));
    Some(request)
}

/// Decodes, judges, and judges again what was encoded.
fn whole<M>(bytes: &[u8], judge: impl Fn(&M) -> bool) -> bool
where
    M: Message + Default + PartialEq + std::fmt::Debug,
{
    let Ok(message) = M::decode(bytes) else {
        return false;
    };
    let accepted = judge(&message);
    let again = M::decode(message.encode_to_vec().as_slice()).expect("our own encoding");
    assert_eq!(again, message);
    assert_eq!(judge(&again), accepted);
    accepted
}

fn host(message: &SessionRequest) -> bool {
    match &message.message {
        Some(session_request::Message::Hello(hello)) => accepted(shape::hello(hello)),
        Some(session_request::Message::FullSet(set)) => {
            let one = |attachment: &Attachment| {
                let good = accepted(shape::attachment(attachment));
                if good {
                    promised(attachment);
                }
                good
            };
            let members = set.attachments.iter().filter(|attachment| one(attachment));
            let good = members.count() == set.attachments.len();
            accepted(shape::set(set)) && good
        }
        Some(session_request::Message::Heartbeat(_)) => true,
        None => false,
    }
}

fn dpu(message: &SessionResponse) -> bool {
    match &message.message {
        Some(session_response::Message::Synced(synced)) => {
            synced.attachments.iter().all(|one| match &one.outcome {
                Some(Outcome::Wiring(wiring)) => self::wiring(wiring),
                Some(Outcome::Failure(failure)) => {
                    crosses(&Failure::from(failure.clone()));
                    true
                }
                None => false,
            })
        }
        Some(session_response::Message::Welcome(_) | session_response::Message::Heartbeat(_)) => {
            true
        }
        None => false,
    }
}

fn accepted(judged: Result<(), Failure>) -> bool {
    judged.map_err(|failure| crosses(&failure)).is_ok()
}

/// What those rely on who get an attachment from the channel: its words become file names, names of links and sentences.
fn promised(attachment: &Attachment) {
    let AttachmentKey { sandbox, ifname } = attachment.key.as_ref().expect("a key");
    let plain = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && text
                .chars()
                .all(|c| c.is_ascii_graphic() && !"/\\\"'`$;=:".contains(c))
    };
    assert!(sandbox.len() <= 253 && plain(sandbox), "{sandbox:?}");
    assert!((1..=15).contains(&ifname.len()), "{ifname:?}");
    assert!(
        ifname.chars().all(|c| c.is_ascii_graphic() && c != '/'),
        "{ifname:?}"
    );
    assert!(ifname != "." && ifname != "..");
    assert!(attachment.attempt > 0);
    let function = attachment.function.as_ref().expect("a function");
    assert!(function.physical < 4096 && function.r#virtual.unwrap_or_default() < 4096);
    match attachment.subject.as_ref().expect("a subject") {
        Subject::Pod(pod) => {
            assert_ne!(sandbox, shape::HOST_SANDBOX);
            for name in [&pod.namespace, &pod.name] {
                assert!(name.len() <= 253 && plain(name), "{name:?}");
            }
            // A UID is never a file's name: it may begin with a dot.
            let uid = pod.uid.trim_start_matches('.');
            assert!(
                pod.uid.len() <= 253 && (uid.is_empty() || plain(uid)),
                "{uid:?}"
            );
            assert!(pod.subnet.is_empty() || plain(&pod.subnet));
        }
        Subject::Host(_) => assert_eq!(
            (sandbox.as_str(), ifname.as_str()),
            (shape::HOST_SANDBOX, shape::HOST_INTERFACE)
        ),
    }
}

/// What is accepted of a Wiring can be set on a link.
fn wiring(wiring: &Wiring) -> bool {
    if !accepted(shape::wiring(wiring)) {
        return false;
    }
    let hex = |c: char| c.is_ascii_hexdigit();
    let mut octets = wiring.mac.split(':');
    assert!(
        octets.all(|octet| octet.len() == 2 && octet.chars().all(hex)),
        "{:?}",
        wiring.mac
    );
    assert!((68..=65535).contains(&wiring.mtu));
    let routes = wiring.routes.iter().map(|route| &route.destination);
    for prefix in wiring.ips.iter().chain(routes) {
        let (address, length) = prefix.split_once('/').expect("a prefix");
        let address: std::net::IpAddr = address.parse().expect("an address");
        let most = if address.is_ipv4() { 32 } else { 128 };
        assert!(length.chars().all(|c| c.is_ascii_digit()), "{prefix:?}");
        assert!(length.parse::<u8>().expect("a number") <= most);
    }
    true
}

/// A failure arrives as it was sent, over HTTP/2's headers too; only what is very long is cut.
fn crosses(failure: &Failure) {
    if proto::Failure::from(failure.clone()) == proto::Failure::default() {
        // Nobody says that; in no bytes it would be no failure.
        return;
    }
    let sent = Status::from(failure.clone());
    assert!(sent.message().len() <= 256);
    let response = sent.clone().into_http::<()>();
    let received = Status::from_header_map(response.headers()).expect("a status");
    assert_eq!(received.code(), sent.code());
    for status in [sent, received] {
        let read = Failure::of(&status).expect("the status has details");
        assert_eq!((read.reason, read.code), (failure.reason, failure.code));
        let (raw, again) = (
            proto::Failure::from(failure.clone()).reason,
            proto::Failure::from(read.clone()).reason,
        );
        assert_eq!(raw, again);
        for (read, sent) in [(read.cause, &failure.cause), (read.remedy, &failure.remedy)] {
            assert!(sent.starts_with(&read), "{read:?} of {sent:?}");
            assert!(read.len() == sent.len() || read.len() > 2000);
        }
    }
}
