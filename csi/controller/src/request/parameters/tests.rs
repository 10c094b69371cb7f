//! The table against what requests bring.

use super::*;
use rstest::rstest;

fn of(pairs: &[(&str, &str)]) -> Parameters {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn the_document_is_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/PARAMETERS.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        document(),
        "BLESS=1 writes it"
    );
}

#[test]
fn mutable_parameters_win_and_zero_is_no_limit() {
    let class = Class::new(
        &of(&[
            ("iops", "100"),
            ("blockSize", "4096"),
            ("mkfsOptions", "-m 0"),
            ("writeCache", "true"),
            ("csi.storage.k8s.io/pv/name", "x"),
        ]),
        &of(&[("iops", "0"), ("readIops", "7")]),
    );
    let class = class.unwrap();
    let qos = class.limits.apply(Qos::default()).unwrap();
    assert_eq!(
        qos,
        Qos {
            read_iops: Some(7),
            ..Qos::default()
        }
    );
    assert_eq!((class.block_size, class.backend), (4096, None));
    assert!(class.write_cache);
    assert_eq!(class.context, of(&[("mkfsOptions", "-m 0")]));
    let there = Qos {
        iops: Some(5),
        write_bytes: Some(9),
        ..Qos::default()
    };
    let change = Limits::new(&of(&[("iops", "6")])).unwrap();
    assert_eq!(
        change.apply(there).unwrap(),
        Qos {
            iops: Some(6),
            ..there
        }
    );
    let error = Limits::new(&of(&[("readIops", "6")]))
        .unwrap()
        .apply(there)
        .unwrap_err();
    assert!(
        error
            .message()
            .starts_with("iops and readIops exclude each other"),
        "{error}"
    );
}

#[rstest]
#[case("blockSize", "1024")]
#[case("blockSize", "")]
#[case("reconnectDelaySeconds", "-1")]
#[case("reconnectDelaySeconds", "86401")]
#[case("mkfsOptions", "a\nb")]
#[case("vhostUserBlk", "yes")]
#[case("vhostUserBlk", "")]
#[case("writeCache", "1")]
#[case("vhostUserBlkQueues", "0")]
#[case("vhostUserBlkQueues", "65")]
#[case("vhostUserBlkQueues", "")]
#[case("iops", "1k")]
#[case("iops", "+1")]
#[case("iops", "")]
#[case("bytesPerSecond", "1000000000000001")]
fn a_bad_value_is_named_with_what_is_allowed(#[case] key: &str, #[case] value: &str) {
    let error = Class::new(&of(&[(key, value)]), &of(&[])).unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    let entry = TABLE.iter().find(|entry| entry.name == key).unwrap();
    assert!(
        error.message().contains(key) && error.message().contains(entry.allowed),
        "{error}"
    );
}

#[test]
fn a_socket_is_asked_for_and_its_queues_only_with_it() {
    let class = |pairs: &[(&str, &str)]| Class::new(&of(pairs), &of(&[]));
    let asks = of(&[("vhostUserBlk", "true"), ("vhostUserBlkQueues", "4")]);
    assert_eq!(Class::new(&asks, &of(&[])).unwrap().context, asks);
    assert_eq!(
        class(&[("vhostUserBlk", "false")]).unwrap().context,
        of(&[])
    );
    for alone in [
        class(&[("vhostUserBlkQueues", "4")]),
        class(&[("vhostUserBlkQueues", "4"), ("vhostUserBlk", "false")]),
    ] {
        let error = alone.unwrap_err();
        assert!(error.message().contains("with vhostUserBlk"), "{error}");
    }
}

#[rstest]
#[case("colour", "is not a parameter")]
#[case("csi.storage.k8s.io/colour", "is reserved")]
#[case("blockSize", "can't change")]
fn a_key_that_may_not_stand_there_is_named(#[case] key: &str, #[case] why: &str) {
    let error = Limits::new(&of(&[(key, "512")])).unwrap_err();
    assert!(
        error.message().contains(key) && error.message().contains(why),
        "{error}"
    );
    assert!(error.message().contains("allowed: iops, "), "{error}");
    assert!(none(&of(&[(key, "512")])).is_err());
}
