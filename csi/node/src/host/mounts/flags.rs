//! Mount options as users write them: the kernel's flags, and the rest for the file system.

use nix::mount::MsFlags;

/// Options of mount(8) and what they set or clear.
const FLAGS: [(&str, MsFlags, bool); 18] = [
    ("ro", MsFlags::MS_RDONLY, true),
    ("rw", MsFlags::MS_RDONLY, false),
    ("nosuid", MsFlags::MS_NOSUID, true),
    ("suid", MsFlags::MS_NOSUID, false),
    ("nodev", MsFlags::MS_NODEV, true),
    ("dev", MsFlags::MS_NODEV, false),
    ("noexec", MsFlags::MS_NOEXEC, true),
    ("exec", MsFlags::MS_NOEXEC, false),
    ("sync", MsFlags::MS_SYNCHRONOUS, true),
    ("async", MsFlags::MS_SYNCHRONOUS, false),
    ("dirsync", MsFlags::MS_DIRSYNC, true),
    ("noatime", MsFlags::MS_NOATIME, true),
    ("atime", MsFlags::MS_NOATIME, false),
    ("nodiratime", MsFlags::MS_NODIRATIME, true),
    ("diratime", MsFlags::MS_NODIRATIME, false),
    ("relatime", MsFlags::MS_RELATIME, true),
    ("strictatime", MsFlags::MS_STRICTATIME, true),
    ("defaults", MsFlags::empty(), true),
];
/// Those that a mount shows again, so that it can be compared with them.
const SHOWN: [(&str, MsFlags); 4] = [
    ("nosuid", MsFlags::MS_NOSUID),
    ("nodev", MsFlags::MS_NODEV),
    ("noexec", MsFlags::MS_NOEXEC),
    ("noatime", MsFlags::MS_NOATIME),
];
/// Words of mount(8) that make another call of a mount.
const OTHER_CALLS: [&str; 6] = ["bind", "rbind", "move", "remount", "loop", "_netdev"];

/// Options of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flags {
    /// For the kernel.
    pub(super) kernel: MsFlags,
    /// For the file system.
    pub(super) rest: Vec<String>,
}

impl Flags {
    /// Of a request: each string may hold several, separated by commas; a later one wins.
    pub(crate) fn parse<'a>(given: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut flags = Self {
            kernel: MsFlags::empty(),
            rest: Vec::new(),
        };
        let options = given.into_iter().flat_map(|flags| flags.split(','));
        for option in options.map(str::trim).filter(|option| !option.is_empty()) {
            if let Some((_, flag, on)) = FLAGS.iter().find(|(name, ..)| *name == option) {
                flags.kernel.set(*flag, *on);
            } else if OTHER_CALLS.contains(&option) || option.starts_with("make-") {
                // Not the option itself: mount flags count as secret (CSI specification, MountVolume).
                return Err(
                    "bind, move, remount, loop, _netdev and make-… are the driver's \
                            business: leave them out"
                        .to_owned(),
                );
            } else if option.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err("an option has a blank or a control character in it".to_owned());
            } else {
                flags.rest.push(option.to_owned());
            }
        }
        Ok(flags)
    }

    /// A mount for reading alone.
    pub(crate) fn read_only(&self) -> bool {
        self.kernel.contains(MsFlags::MS_RDONLY)
    }

    /// The first option in which `mount` differs, as far as a mount shows its options.
    pub(crate) fn difference(&self, mount: &super::Mount) -> Option<&'static str> {
        let differs =
            |(name, flag): &&(&str, MsFlags)| mount.has(name) != self.kernel.contains(*flag);
        SHOWN.iter().find(differs).map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_into_the_kernels_and_the_file_systems() {
        let flags =
            Flags::parse(["noatime,nodev", "discard", "ro", "rw", "", "data=ordered"]).unwrap();
        assert_eq!(flags.kernel, MsFlags::MS_NOATIME | MsFlags::MS_NODEV);
        assert_eq!(flags.rest, ["discard", "data=ordered"]);
        assert!(!flags.read_only());
        for bad in ["bind", "remount,ro", "make-shared", "x=a b", "loop"] {
            assert!(Flags::parse([bad]).is_err(), "{bad}");
        }
    }
}
