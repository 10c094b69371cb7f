//! What the host VM starts from: Debian's kernel as `make setup` unpacked it, and an initramfs of busybox, its modules
//! and [`init.sh`](../init.sh). Packed at each boot: it takes a tenth of a second, and there is nothing to go stale.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::cpio::Archive;
use crate::shell;

const INIT: &str = include_str!("init.sh");
const BUSYBOX: &str = "/bin/busybox";
/// With what they depend on, in the order in which they are loaded.
const MODULES: [&str; 8] = [
    "virtio_pci",
    "virtio_console",
    "nvme",
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "ext4",
    "xfs",
];

/// An unpacked package `linux-image-<version>`.
#[derive(Debug)]
pub(crate) struct Kernel {
    root: PathBuf,
    version: String,
}

impl Kernel {
    /// The kernel that `make setup` has put into the cache.
    pub(crate) fn find() -> Result<Self> {
        let cache = std::env::var_os("OUTBOARD_CACHE").map_or_else(
            || {
                let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
                PathBuf::from(home).join(".cache/outboard")
            },
            PathBuf::from,
        );
        let current = cache.join("host-kernel/current");
        // The link may be turned to a newer one meanwhile.
        let root = fs::canonicalize(&current).with_context(|| {
            format!(
                "the host VM's kernel is not there: {} (make setup fetches it)",
                current.display()
            )
        })?;
        let modules = root.join("lib/modules");
        let versions = shell::run(&["ls", &modules.display().to_string()])?;
        let version = versions
            .lines()
            .next()
            .with_context(|| format!("{} is empty", modules.display()))?;
        Ok(Self {
            version: version.to_owned(),
            root,
        })
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.version))
    }

    /// The files of `names` and of all that they need, in loading order.
    fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let root = self.root.display().to_string();
        let mut files = Vec::new();
        for name in names {
            let argv = [
                "modprobe",
                "-d",
                &root,
                "-S",
                &self.version,
                "--show-depends",
                name,
            ];
            let said = shell::run(&argv).with_context(|| {
                format!(
                    "the host VM's kernel has no module {name} (make setup fetches or builds it)"
                )
            })?;
            for line in said.lines() {
                // "insmod <path> <options>"; "builtin <name>" needs nothing.
                let mut words = line.split_whitespace();
                if let (Some("insmod"), Some(path)) = (words.next(), words.next())
                    && !files.contains(&PathBuf::from(path))
                {
                    files.push(PathBuf::from(path));
                }
            }
        }
        Ok(files)
    }

    /// The initramfs, with `programs` at the paths that they have here, and their libraries, and `further` modules.
    pub(crate) fn initramfs(&self, programs: &[PathBuf], further: &[String]) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        let mut add = |to: &Path, from: &Path| -> Result<()> {
            let contents = fs::read(from)
                .with_context(|| format!("cannot read {} for the host VM", from.display()))?;
            archive.file(to, &contents);
            Ok(())
        };
        add(Path::new(BUSYBOX), Path::new(BUSYBOX))?;
        let mut order = String::new();
        let names: Vec<&str> = MODULES
            .into_iter()
            .chain(further.iter().map(String::as_str))
            .collect();
        for module in self.modules(&names)? {
            let name = module
                .file_name()
                .context("a module's path ends in its name")?;
            order += &format!("{}\n", name.to_string_lossy());
            add(&Path::new("/modules").join(name), &module)?;
        }
        let mut libraries = Vec::new();
        for program in programs {
            add(program, program)?;
            for library in libraries_of(program) {
                if !libraries.contains(&library) {
                    add(&library, &library)?;
                    libraries.push(library);
                }
            }
        }
        archive.file(Path::new("/modules/order"), order.as_bytes());
        archive.file(Path::new("/init"), INIT.as_bytes());
        Ok(archive.finish())
    }
}

/// The libraries of a program, its loader among them; none of a static one.
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    // ldd fails for a static program, and says the same things.
    let said = shell::run(&["ldd", &program.display().to_string()]).unwrap_or_default();
    let paths = said.lines().filter_map(|line| {
        // "libc.so.6 => /lib/… (0x…)" and "/lib64/ld-linux-x86-64.so.2 (0x…)".
        let path = line.split_whitespace().find(|word| word.starts_with('/'))?;
        Some(PathBuf::from(path))
    });
    paths.collect()
}
