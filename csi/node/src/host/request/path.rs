//! Paths that kubelet gives.

use std::fs;
use std::path::{Component, PathBuf};

use super::super::error::Error;

/// The longest path of Linux, with its final zero.
const MOST: usize = 4096;

/// A path of a request, absolute, without `..`, never the root.
pub(crate) type Path = PathBuf;

/// The path in `field`.
pub(crate) fn given(field: &str, path: &str) -> Result<Path, Error> {
    let wrong = |why: String| Err(Error::Invalid(format!("{field} {why}")));
    if path.is_empty() {
        return wrong("is missing: give an absolute path".to_owned());
    }
    if path.len() >= MOST {
        return wrong(format!(
            "has {} bytes: at most {} are allowed",
            path.len(),
            MOST - 1
        ));
    }
    if path.chars().any(char::is_control) {
        return wrong("has a control character in it: give another path".to_owned());
    }
    let path = PathBuf::from(path);
    if !path.is_absolute() {
        return wrong(format!(
            "{} is relative: give an absolute path",
            path.display()
        ));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return wrong(format!(
            "{} has `..` in it: give it without",
            path.display()
        ));
    }
    if path.file_name().is_none() {
        return wrong("is the root directory: give a path of the volume's own".to_owned());
    }
    Ok(path)
}

/// The path as mountinfo spells it: symbolic links before its last part are followed (kubelet's root directory may be one). The
/// last part is not touched: it may be a dead mount. A path whose parent is gone is left as it is.
pub(crate) fn resolve(path: &std::path::Path) -> Path {
    let parent = path
        .parent()
        .and_then(|parent| fs::canonicalize(parent).ok());
    match (parent, path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        // Without trailing slashes and the like.
        _ => path.components().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_of_the_volumes_own_are_taken() {
        assert_eq!(given("p", "/a/b/").unwrap(), PathBuf::from("/a/b"));
        let long = format!("/{}", "x".repeat(MOST));
        for bad in ["", "/", "a/b", "/a/../b", "/a\nb", long.as_str()] {
            let error = given("target_path", bad).unwrap_err();
            assert!(error.to_string().starts_with("target_path "), "{error}");
        }
    }

    #[test]
    fn links_on_the_way_are_followed() {
        let home = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(home.path()).unwrap();
        fs::create_dir(home.join("data")).unwrap();
        std::os::unix::fs::symlink("data", home.join("kubelet")).unwrap();
        assert_eq!(resolve(&home.join("kubelet/x/")), home.join("data/x"));
        assert_eq!(resolve(&home.join("gone/x/")), home.join("gone/x"));
    }
}
