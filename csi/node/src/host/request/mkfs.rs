//! `volume_context`: options for mkfs, from the StorageClass's parameter `mkfsOptions`.

use std::collections::BTreeMap;

use super::super::error::Error;
use super::super::filesystem::Kind;

/// The key.
const KEY: &str = "mkfsOptions";

/// Options for mkfs, as they were written: which of them are allowed depends on the file system.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options(Vec<String>);

impl Options {
    /// Of a request's `volume_context`, whose other keys are csi-controller's.
    pub(crate) fn new(context: &BTreeMap<String, String>) -> Result<Self, Error> {
        super::map("volume_context", context)?;
        let words = context.get(KEY).map(|value| value.split_whitespace());
        Ok(Self(
            words.into_iter().flatten().map(str::to_owned).collect(),
        ))
    }

    /// The arguments for `mkfs.<kind>`. Only options that shape the file system are let through: none that names another
    /// device, or makes mkfs overwrite what it finds.
    pub(crate) fn arguments(&self, kind: Kind) -> Result<&[String], Error> {
        let allowed = match kind {
            Kind::Ext4 => "bCEgGiImNOT",
            Kind::Xfs => "bdilmns",
        };
        let wrong = |word: &str| {
            let spelled: Vec<String> = allowed.chars().map(|c| format!("-{c} VALUE")).collect();
            Error::Invalid(format!(
                "volume_context.{KEY}: {word:?} is not allowed for {kind}; allowed are {}, with values of \
                 letters, digits and `_.,=^+-`, naming no other device",
                spelled.join(", ")
            ))
        };
        for pair in self.0.chunks(2) {
            let flag = pair[0]
                .strip_prefix('-')
                .filter(|f| f.len() == 1 && allowed.contains(*f));
            if flag.is_none() {
                return Err(wrong(&pair[0]));
            }
            let value = pair.get(1).ok_or_else(|| wrong(&pair[0]))?;
            let plain = |c: char| c.is_ascii_alphanumeric() || "_.,=^+-".contains(c);
            let elsewhere = ["dev=", "device=", "file", "name"];
            if value.starts_with('-')
                || !value.chars().all(plain)
                || elsewhere.iter().any(|word| value.contains(word))
            {
                return Err(wrong(value));
            }
        }
        Ok(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn options(text: &str) -> Options {
        Options::new(&[(KEY.to_owned(), text.to_owned())].into()).unwrap()
    }

    #[test]
    fn options_that_shape_the_file_system_are_let_through() {
        let ext4 = options("-m 1  -E lazy_itable_init=0,stride=16 -O ^metadata_csum");
        assert_eq!(ext4.arguments(Kind::Ext4).unwrap().len(), 6);
        assert_eq!(
            options("-i size=1024").arguments(Kind::Xfs).unwrap().len(),
            2
        );
        assert!(
            Options::new(&BTreeMap::new())
                .unwrap()
                .arguments(Kind::Xfs)
                .unwrap()
                .is_empty()
        );
    }

    #[rstest]
    #[case(Kind::Ext4, "-F")]
    #[case(Kind::Ext4, "-F -F")]
    #[case(Kind::Ext4, "/dev/vda")]
    #[case(Kind::Ext4, "-m 1 /dev/vda")]
    #[case(Kind::Ext4, "-m")]
    #[case(Kind::Ext4, "-m -F")]
    #[case(Kind::Ext4, "-d /etc")]
    #[case(Kind::Ext4, "-J device=UUID=1")]
    #[case(Kind::Xfs, "-f -f")]
    #[case(Kind::Xfs, "-d file,name=x")]
    #[case(Kind::Xfs, "-l logdev=x")]
    #[case(Kind::Xfs, "-p x")]
    fn options_that_reach_elsewhere_are_refused(#[case] kind: Kind, #[case] text: &str) {
        let error = options(text).arguments(kind).unwrap_err();
        assert!(error.to_string().contains(KEY), "{error}");
    }
}
