//! What is asked, and what in mountinfo is ours.

use std::collections::BTreeMap;

use rstest::rstest;

use super::super::request::Place;
use super::*;

const ID: &str = "6f9619ff-8b86-4d01-b42d-00c04fc964ff";
const POD: &str = "8b4d1c8e-7a0e-4f6e-9a65-0e4b8d6f2c11";

fn wish(changes: &[(&str, &str)], target: &str) -> Result<Option<Wish>, Error> {
    let uuid = Uuid::try_parse(ID).unwrap();
    let published = Published {
        uuid,
        serial: "S".into(),
        place: Place::Loop("/x".into()),
        bytes: 1,
        fresh: false,
    };
    let mut all: BTreeMap<String, String> = [
        ("vhost-user-socket", format!("/exports/{ID}.vhost")),
        ("claim", "data".into()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    for (key, value) in changes {
        all.insert((*key).to_owned(), (*value).to_owned());
    }
    all.retain(|_, value| !value.is_empty());
    let request = NodePublishVolumeRequest {
        target_path: target.to_owned(),
        publish_context: all.clone(),
        volume_context: all,
        ..NodePublishVolumeRequest::default()
    };
    Wish::new(&request, &published, Path::new("/exports"))
}

#[test]
fn the_pod_is_the_one_that_kubelet_says_or_whose_path_it_is() {
    let of_path = format!("/k/publish/pv/{POD}");
    let found = wish(&[], &of_path).unwrap().unwrap();
    assert_eq!((found.pod.as_str(), found.claim.as_str()), (POD, "data"));
    let said = [("csi.storage.k8s.io/pod.uid", "other-1")];
    assert_eq!(wish(&said, &of_path).unwrap().unwrap().pod, "other-1");
    assert_eq!(wish(&[("vhost-user-socket", "")], &of_path).unwrap(), None);
}

#[rstest]
#[case(&[("vhost-user-socket", "/etc")], "/k/u", "--exports-dir")]
#[case(&[("claim", "")], "/k/u", "named after its claim")]
#[case(&[("claim", "..")], "/k/u", "is not the name of a claim")]
#[case(&[("claim", "c2345678901234567890123456789012345678901234567890123456789012")], "/k/u", "at most 60 characters")]
#[case(&[("csi.storage.k8s.io/pod.uid", "../x")], "/k/u", "podInfoOnMount")]
#[case(&[], "/k/publish/p.v", "podInfoOnMount")]
fn what_can_not_be_followed_is_said(
    #[case] changes: &[(&str, &str)],
    #[case] target: &str,
    #[case] says: &str,
) {
    let error = wish(changes, target).unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn a_mount_is_known_by_what_it_shows() {
    let uuid = Uuid::try_parse(ID).unwrap();
    for ours in [
        format!("/outboard/exports/{ID}.vhost"),
        format!("/{ID}.vhost"),
        format!("/exports/{ID}.vhost//deleted"),
    ] {
        assert!(shows(Path::new(&ours), uuid), "{ours}");
    }
    for other in [
        "/".to_owned(),
        format!("/exports/{ID}"),
        format!("/exports/{ID}.vhost/x"),
        "/exports/00000000-0000-0000-0000-000000000001.vhost".to_owned(),
    ] {
        assert!(!shows(Path::new(&other), uuid), "{other}");
    }
}
