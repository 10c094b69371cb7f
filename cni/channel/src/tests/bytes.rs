//! Whatever bytes come: an answer, no panic; and what is let through is what the protocol says.

use proptest::prelude::*;
use prost::Message;

use super::card::{attachment, wiring};
use crate::Failure;
use crate::proto::attachment::Subject;
use crate::proto::{
    AttachRequest, Attachment, AttachmentKey, Cluster, FullSet, Function, Hello, HostInterface,
    PodInterface, Reason, Wiring,
};
use crate::shape;

#[test]
fn what_a_host_of_ours_says_is_fine() {
    shape::attachment(&attachment("0123456789abcdef", 1)).unwrap();
    shape::wiring(&wiring("a")).unwrap();
    let mut own = attachment(shape::HOST_SANDBOX, 1);
    own.key.as_mut().unwrap().ifname = shape::HOST_INTERFACE.to_owned();
    own.subject = Some(Subject::Host(HostInterface {}));
    shape::attachment(&own).unwrap();
    own.key.as_mut().unwrap().ifname = "eth0".to_owned();
    shape::attachment(&own).unwrap_err();
    let request = AttachRequest {
        session: "s".to_owned(),
        attachment: Some(attachment("a", 1)),
    };
    let decoded = shape::attach_request(&request.encode_to_vec());
    assert_eq!(decoded, Ok(request));
}

fn pod(attachment: &mut Attachment) -> &mut PodInterface {
    match &mut attachment.subject {
        Some(Subject::Pod(pod)) => pod,
        other => panic!("{other:?}"),
    }
}

fn id(attachment: &mut Attachment) -> &mut AttachmentKey {
    attachment.key.as_mut().unwrap()
}

#[rstest::rstest]
#[case::no_key(7, |a: &mut Attachment| a.key = None)]
#[case::empty_sandbox(4, |a: &mut Attachment| id(a).sandbox.clear())]
#[case::long_sandbox(4, |a: &mut Attachment| id(a).sandbox = "a".repeat(254))]
#[case::sandbox_with_a_slash(4, |a: &mut Attachment| id(a).sandbox = "h1/a".to_owned())]
#[case::sandbox_with_a_dot_in_front(4, |a: &mut Attachment| id(a).sandbox = "..".to_owned())]
#[case::no_interface(4, |a: &mut Attachment| id(a).ifname.clear())]
#[case::long_interface(4, |a: &mut Attachment| id(a).ifname = "e".repeat(16))]
#[case::interface_with_a_slash(4, |a: &mut Attachment| id(a).ifname = "../x".to_owned())]
#[case::interface_that_is_a_dot(4, |a: &mut Attachment| id(a).ifname = "..".to_owned())]
#[case::interface_with_a_blank(4, |a: &mut Attachment| id(a).ifname = "a b".to_owned())]
#[case::interface_with_a_colon(4, |a: &mut Attachment| id(a).ifname = "a:b".to_owned())]
#[case::no_attempt(7, |a: &mut Attachment| a.attempt = 0)]
#[case::no_function(7, |a: &mut Attachment| a.function = None)]
#[case::far_function(7, |a: &mut Attachment| a.function = Some(Function { physical: 0, r#virtual: Some(4096) }))]
#[case::far_card(7, |a: &mut Attachment| a.function = Some(Function { physical: u32::MAX, r#virtual: None }))]
#[case::no_subject(7, |a: &mut Attachment| a.subject = None)]
#[case::the_hosts_own_sandbox(7, |a: &mut Attachment| id(a).sandbox = "host".to_owned())]
#[case::no_namespace(7, |a: &mut Attachment| pod(a).namespace.clear())]
#[case::namespace_with_a_dot(7, |a: &mut Attachment| pod(a).namespace = "a.b".to_owned())]
#[case::upper_case_name(7, |a: &mut Attachment| pod(a).name = "Pod".to_owned())]
#[case::name_that_ends_in_a_dot(7, |a: &mut Attachment| pod(a).name = "pod.".to_owned())]
#[case::no_uid(7, |a: &mut Attachment| pod(a).uid.clear())]
#[case::long_uid(7, |a: &mut Attachment| pod(a).uid = "u".repeat(254))]
#[case::uid_with_a_newline(7, |a: &mut Attachment| pod(a).uid = "u\n".to_owned())]
#[case::subnet_with_a_quote(7, |a: &mut Attachment| pod(a).subnet = "a\"".to_owned())]
fn a_field_that_is_wrong_is_malformed(
    #[case] code: u32,
    #[case] change: impl FnOnce(&mut Attachment),
) {
    let mut changed = attachment("a", 1);
    change(&mut changed);
    let Failure {
        reason, code: got, ..
    } = shape::attachment(&changed).unwrap_err();
    assert_eq!((reason, got), (Reason::Malformed, code));
}

#[rstest::rstest]
#[case::no_port(|w: &mut Wiring| w.logical_port.clear())]
#[case::no_mac(|w: &mut Wiring| w.mac.clear())]
#[case::short_mac(|w: &mut Wiring| w.mac = "0a:58:0a:f4:00".to_owned())]
#[case::mac_with_signs(|w: &mut Wiring| w.mac = "+a:58:0a:f4:00:05".to_owned())]
#[case::no_mtu(|w: &mut Wiring| w.mtu = 0)]
#[case::large_mtu(|w: &mut Wiring| w.mtu = 65536)]
#[case::no_prefix(|w: &mut Wiring| w.ips = vec!["10.0.0.1".to_owned()])]
#[case::signed_prefix(|w: &mut Wiring| w.ips = vec!["10.0.0.1/+24".to_owned()])]
#[case::range(|w: &mut Wiring| w.cluster = Some(Cluster { pods: vec!["x".to_owned()], ..Cluster::default() }))]
#[case::long_prefix(|w: &mut Wiring| w.ips = vec!["10.0.0.1/33".to_owned()])]
#[case::gateway(|w: &mut Wiring| w.gateways = vec!["x".to_owned()])]
#[case::route(|w: &mut Wiring| w.routes[0].via.clear())]
#[case::many(|w: &mut Wiring| w.ips = vec!["10.0.0.1/24".to_owned(); 257])]
fn a_wiring_that_is_none_is_not_passed_on(#[case] change: impl FnOnce(&mut Wiring)) {
    let mut changed = wiring("a");
    change(&mut changed);
    assert_eq!(shape::wiring(&changed).unwrap_err().code, 6);
}

proptest! {
    #[test]
    fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = shape::attach_request(&bytes);
        if let Ok(set) = FullSet::decode(&*bytes) {
            let _ = shape::set(&set);
            set.attachments.iter().for_each(|one| drop(shape::attachment(one)));
        }
        if let Ok(hello) = Hello::decode(&*bytes) {
            let _ = shape::hello(&hello);
        }
        if let Ok(wiring) = Wiring::decode(&*bytes) {
            let _ = shape::wiring(&wiring);
        }
    }

    /// A good message with a few bytes changed comes further than noise.
    #[test]
    fn spoilt_messages_have_an_answer(changes in prop::collection::vec((0usize..128, any::<u8>()), 0..6)) {
        let request = AttachRequest { session: "s".to_owned(), attachment: Some(attachment("a", 1)) };
        let mut bytes = request.encode_to_vec();
        for (at, byte) in changes {
            let length = bytes.len();
            bytes[at % length] = byte;
        }
        if let Ok(request) = shape::attach_request(&bytes) {
            let attachment = request.attachment.unwrap();
            let key = attachment.key.unwrap();
            prop_assert!(attachment.attempt > 0);
            prop_assert!(!key.sandbox.contains('/') && !key.ifname.contains('/'));
            prop_assert!(key.sandbox.len() <= 253 && key.ifname.len() <= 15);
        }
    }

    #[test]
    fn any_text_in_any_field_has_an_answer(
        sandbox in ".{0,300}", ifname in ".{0,20}", namespace in ".{0,70}", name in ".{0,300}", uid in ".{0,300}", subnet in ".{0,300}",
        mac in ".{0,20}", ip in "[0-9a-f:./]{0,30}",
    ) {
        let mut changed = attachment("a", 1);
        *id(&mut changed) = AttachmentKey { sandbox, ifname };
        *pod(&mut changed) = PodInterface { namespace, name, uid, subnet };
        if let Err(failure) = shape::attachment(&changed) {
            prop_assert_eq!(failure.reason, Reason::Malformed);
            prop_assert!(failure.cause.len() < 1024);
        }
        let mut changed = wiring("a");
        changed.mac = mac;
        changed.ips = vec![ip];
        let _ = shape::wiring(&changed);
    }
}
