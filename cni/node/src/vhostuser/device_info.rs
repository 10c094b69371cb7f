//! The file that tells Multus what the interface is (device information specification 1.1.0, type "vhost-user").
//!
//! `mode` is the consumer's view: QEMU, or the application, makes the socket and serves it. Multus copies the file into the pod's
//! annotation k8s.v1.cni.cncf.io/network-status, which KubeVirt and app-netutil read.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cni_bin::code;
use serde_json::{Value, json};
use tracing::info;

use super::socket::Socket;
use crate::error::Error;

/// What the file says of a socket.
pub(super) fn of_socket(socket: &Socket) -> Value {
    json!({
        "type": "vhost-user",
        "version": "1.1.0",
        "vhost-user": {"mode": "server", "path": socket.container_path},
    })
}

/// What the file says of a tap. The specification has no such type; the machine's side knows it.
pub(super) fn of_tap() -> Value {
    json!({"type": "tap", "version": "1.1.0"})
}

/// Writes the file: whole or not at all. One that a device plugin has written stays (specification, section 5: it is not
/// overwritten).
pub(super) fn write(file: &Path, content: &Value) -> Result<(), Error> {
    if file.exists() {
        info!(file = %file.display(), "the device information is there already: left as it is");
        return Ok(());
    }
    replace(file, &content.to_string()).map_err(|why| failed("written", file, &why))
}

/// Whether the file is there and says what it is to say.
pub(super) fn is_there(file: &Path) -> bool {
    let text = fs::read(file).unwrap_or_default();
    serde_json::from_slice::<Value>(&text).is_ok_and(|value| value.is_object())
}

/// Removes the file; none is fine.
pub(super) fn remove(file: &Path) -> Result<(), Error> {
    for file in [&fresh(file), file] {
        // Looked at first: what could not be written for want of a directory, or on a read-only one, need not be removed there.
        let removed = fs::symlink_metadata(file).and_then(|_| fs::remove_file(file));
        match removed {
            Err(why) if !is_nothing(&why) => return Err(failed("removed", file, &why)),
            _ => {}
        }
    }
    Ok(())
}

fn is_nothing(why: &io::Error) -> bool {
    matches!(
        why.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    let directory = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(directory)?;
    let fresh = fresh(file);
    // A crash may have left one.
    match fs::remove_file(&fresh) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let mut open = fs::OpenOptions::new();
    let mut out = open.write(true).create_new(true).mode(0o644).open(&fresh)?;
    out.write_all(text.as_bytes())?;
    fs::rename(&fresh, file)
}

fn fresh(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".outboard");
    file.with_file_name(name)
}

fn failed(done: &str, file: &Path, why: &io::Error) -> Error {
    Error::new(
        code::IO_FAILURE,
        format!(
            "The device information {} cannot be {done}: {why}.",
            file.display()
        ),
        "Mount /var/run/k8s.cni.cncf.io of the host into cni-node's pod at the same path, writable.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::Pod;
    use crate::vhostuser::socket::Volume;

    #[test]
    fn it_is_written_whole_and_not_over_a_device_plugins() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("devinfo/cni/net-c1_net1");
        let pod = Pod {
            namespace: "vms".into(),
            name: "a".into(),
            uid: "u-1".into(),
        };
        let socket = Socket::new(Path::new("/run/v"), &pod, "net1", Volume::SharedDir).unwrap();
        assert!(!is_there(&file));
        write(&file, &of_socket(&socket)).unwrap();
        let expected = r#"{"type":"vhost-user","version":"1.1.0","vhost-user":{"mode":"server","path":"/var/lib/cni/usrcni/net1.sock"}}"#;
        let written: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(expected).unwrap());
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        fs::write(&file, "{\"type\":\"pci\"}").unwrap();
        write(&file, &of_socket(&socket)).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "{\"type\":\"pci\"}");
        assert!(is_there(&file));
        remove(&file).unwrap();
        remove(&file).unwrap();
        fs::write(home.path().join("plain"), "").unwrap();
        let error = write(&home.path().join("plain/x"), &of_tap()).unwrap_err();
        remove(&home.path().join("plain/x")).unwrap();
        assert!(error.remedy.contains("k8s.cni.cncf.io"), "{error}");
    }
}
