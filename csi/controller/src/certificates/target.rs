//! As whom the daemons of a backend serve volumes: `ca-cert.pem`, `server-cert.pem` and `server-key.pem` in the directory
//! that the backend names (`tcp.tlsDirectory`), and `dh-params.pem`.
//!
//! All of them are links through `..data`, which is one link to the current set: whoever reads gets one set or the other.
//! Files that are no such links are somebody else's, and stay. A daemon reads them when it starts, and keeps what it read
//! for as long as its volume is published, so a certificate lasts for years.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::identity::{Authority, Issued, Leaf};
use anyhow::Context;
use api::storage;
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

use super::Ca;

/// Three years.
const LIFETIME: Duration = Duration::from_secs(1095 * 24 * 3600);
/// How often it is looked whether a set has to be made anew.
const PERIOD: Duration = Duration::from_secs(3600);
const FILES: [&str; 3] = ["ca-cert.pem", "server-cert.pem", "server-key.pem"];
/// Without it QEMU looks for primes at each start of a daemon (50 to 850 ms), whether a client wants Diffie-Hellman or not.
const DH: &str = "dh-params.pem";
/// RFC 7919, A.1.
const FFDHE2048: &str = include_str!("ffdhe2048.pem");
/// The link to the current set.
const DATA: &str = "..data";

/// What a backend's server is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Where its certificates lie.
    pub(crate) directory: PathBuf,
    /// Under which clients know it.
    pub(crate) dns_names: Vec<String>,
    /// At which they reach it.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Target {
    /// Makes a set of certificates if there is none, or the one that is there ends soon, is of another CA or for other
    /// names.
    pub(crate) async fn ensure(self, ca: Ca) -> anyhow::Result<()> {
        let ensured = tokio::task::spawn_blocking(move || {
            let directory = self.directory.display().to_string();
            let ensured = ca
                .load()
                .and_then(|authority| self.ensure_at(&authority, SystemTime::now()));
            ensured.with_context(|| format!("certificates of the target in {directory}"))
        });
        ensured.await?
    }

    fn ensure_at(&self, authority: &Authority, now: SystemTime) -> anyhow::Result<()> {
        if FILES.iter().any(|file| is_foreign(&self.directory, file)) {
            return Ok(());
        }
        let why = match self.flaw(authority, now) {
            None => return Ok(()),
            Some(why) => why,
        };
        let leaf = Leaf {
            common_name: self.name(),
            organization: Some(storage::TARGET_ORGANIZATION.to_owned()),
            dns_names: self.dns_names.clone(),
            ip_addresses: self.addresses.clone(),
            client: false,
            server: true,
        };
        let made = authority.issue(&leaf, LIFETIME, now)?;
        write(&self.directory, authority.certificate_pem(), &made)?;
        let directory = self.directory.display();
        tracing::info!(%directory, "made the target's certificates: {why}");
        Ok(())
    }

    /// No client looks at it.
    fn name(&self) -> String {
        let short = |name: &&String| name.len() <= 64;
        let name = self.dns_names.iter().find(short).cloned();
        name.or_else(|| self.addresses.first().map(ToString::to_string))
            .unwrap_or_default()
    }

    /// What is wrong with the set that is there.
    fn flaw(&self, authority: &Authority, now: SystemTime) -> Option<String> {
        let read = |file: &str| fs::read_to_string(self.directory.join(file));
        let [Ok(ca), Ok(certificate), Ok(_)] = FILES.map(read) else {
            return Some("there were none".to_owned());
        };
        if ca != authority.certificate_pem() {
            return Some("they were of another CA".to_owned());
        }
        if !self.directory.join(DH).exists() {
            return Some(format!("there was no {DH}"));
        }
        let Ok((_, pem)) = parse_x509_pem(certificate.as_bytes()) else {
            return Some("they could not be read".to_owned());
        };
        let Ok(leaf) = pem.parse_x509() else {
            return Some("they could not be read".to_owned());
        };
        let validity = leaf.validity();
        let (begin, end) = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        if end - now < (end - begin) / 3 {
            return Some("they end soon".to_owned());
        }
        let alternatives = leaf.subject_alternative_name();
        let names = match &alternatives {
            Ok(Some(alternatives)) => alternatives.value.general_names.as_slice(),
            _ => &[],
        };
        let named = |wanted: &String| {
            let is =
                |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(dns) if dns == wanted);
            names.iter().any(is)
        };
        let reached = |wanted: &IpAddr| {
            let bytes = octets(*wanted);
            let is =
                |name: &GeneralName<'_>| matches!(name, GeneralName::IPAddress(ip) if *ip == bytes);
            names.iter().any(is)
        };
        let all = self.dns_names.iter().all(named) && self.addresses.iter().all(reached);
        (!all).then(|| "they were for other names".to_owned())
    }
}

/// Looks after the certificates of these targets until it is told to end.
pub(crate) async fn keep(targets: Vec<Target>, ca: Ca, stop: CancellationToken) {
    if targets.is_empty() {
        return;
    }
    let mut hours = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = hours.tick() => {}
        }
        for target in &targets {
            if let Err(why) = target.clone().ensure(ca.clone()).await {
                tracing::warn!("they can't be renewed; tried again in an hour: {why:#}");
            }
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A file that is there and no link of ours.
fn is_foreign(directory: &Path, file: &str) -> bool {
    let path = directory.join(file);
    match fs::symlink_metadata(&path) {
        Err(_) => false,
        Ok(_) => fs::read_link(&path).ok() != Some(Path::new(DATA).join(file)),
    }
}

fn write(directory: &Path, ca: &str, made: &Issued) -> anyhow::Result<()> {
    let at = |path: &Path| path.display().to_string();
    let make = |path: &Path| {
        let mut dir = fs::DirBuilder::new();
        let made = dir.recursive(true).mode(0o700).create(path);
        made.with_context(|| at(path))
    };
    make(directory)?;
    let set = format!("..{}", uuid::Uuid::new_v4());
    make(&directory.join(&set))?;
    let texts = [ca, &made.certificate_pem, &made.key_pem, FFDHE2048];
    for (file, text) in FILES.iter().chain([&DH]).zip(texts) {
        let path = directory.join(&set).join(file);
        put(&path, text).with_context(|| at(&path))?;
    }
    sync(&directory.join(&set)).with_context(|| at(directory))?;
    switch(directory, &set).with_context(|| at(directory))
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Makes `set` the current one, and removes those before it.
fn switch(directory: &Path, set: &str) -> io::Result<()> {
    let next = directory.join("..next");
    match fs::remove_file(&next) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => symlink(set, &next)?,
    }
    fs::rename(&next, directory.join(DATA))?;
    for file in FILES.into_iter().chain([DH]) {
        match symlink(Path::new(DATA).join(file), directory.join(file)) {
            Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
            _ => {}
        }
    }
    sync(directory)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("..") && name != set && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn sync(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    /// A CA in `dir`.
    pub(in super::super) fn authority(dir: &Path) -> Authority {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        fs::write(dir.join("tls.crt"), certificate.pem()).unwrap();
        fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
        Ca::new(dir).load().unwrap()
    }

    fn target(root: &Path, name: &str) -> Target {
        Target {
            directory: root.join("target"),
            dns_names: vec![name.to_owned()],
            addresses: vec!["198.18.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        }
    }

    #[test]
    fn a_set_is_made_when_it_is_needed_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, other) = (authority(dir.path()), authority(dir.path()));
        let begin = SystemTime::now();
        let days = |days: u64| begin + Duration::from_secs(days * 24 * 3600);
        let (a, b) = (target(dir.path(), "storage-1"), target(dir.path(), "other"));
        let read = || fs::read_to_string(a.directory.join("server-cert.pem")).unwrap();
        let mut seen = vec![String::new()];
        for (target, ca, now, made) in [
            (&a, &ca, begin, true),
            (&a, &ca, days(700), false),
            (&a, &ca, days(740), true),
            (&b, &ca, days(740), true),
            (&a, &ca, days(740), true),
            (&a, &other, days(740), true),
        ] {
            target.ensure_at(ca, now).unwrap();
            assert_eq!(&read() != seen.last().unwrap(), made, "{}", seen.len());
            seen.push(read());
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&a.directory), 0o700);
        assert_eq!(mode(&a.directory.join("server-key.pem")), 0o600);
        let sets = fs::read_dir(&a.directory).unwrap();
        assert_eq!(sets.count(), 6, "four links, `..data` and one set");
        // As an older release has left it.
        fs::remove_file(a.directory.join(DH)).unwrap();
        a.ensure_at(&other, days(740)).unwrap();
        let dh = fs::read_to_string(a.directory.join(DH)).unwrap();
        assert_eq!(dh, FFDHE2048);
    }

    /// As the daemon does, which says why if it can't.
    #[test]
    fn qemu_takes_them() {
        let dir = tempfile::tempdir().unwrap();
        let ca = authority(dir.path());
        let target = target(dir.path(), "storage-1");
        target.ensure_at(&ca, SystemTime::now()).unwrap();
        let object = format!(
            "tls-creds-x509,id=t,endpoint=server,verify-peer=on,dir={}",
            target.directory.display()
        );
        let output = Command::new("qemu-img")
            .args([
                "info",
                "--object",
                &object,
                "--image-opts",
                "driver=null-co,size=512",
            ])
            .output()
            .expect("run qemu-img (`make setup` installs it)");
        assert!(output.status.success(), "{output:?}");
    }

    #[test]
    fn what_somebody_else_put_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let ca = authority(dir.path());
        let target = target(dir.path(), "storage-1");
        fs::create_dir(&target.directory).unwrap();
        let theirs = target.directory.join("server-cert.pem");
        fs::write(&theirs, "theirs").unwrap();
        target.ensure_at(&ca, SystemTime::now()).unwrap();
        assert_eq!(fs::read_to_string(theirs).unwrap(), "theirs");
        assert_eq!(fs::read_dir(&target.directory).unwrap().count(), 1);
    }
}
