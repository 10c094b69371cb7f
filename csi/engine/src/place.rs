//! Where a daemon's files are.

use std::path::{Path, PathBuf};

/// Monitor of the engine.
pub(crate) const ENGINE: &str = "qmp-engine.sock";
/// Monitor of the storage back end.
pub(crate) const BACKEND: &str = "qmp-backend.sock";
/// Monitor of the card.
pub(crate) const CARD: &str = "qmp-card.sock";
/// The longest path of a unix socket (unix(7): 108 bytes with the end mark).
const SOCKET_PATH: usize = 107;
/// The longest id.
const ID: usize = 64;

/// The engine's state directory.
#[derive(Debug, Clone)]
pub(crate) struct State(pub(crate) PathBuf);

impl State {
    pub(crate) fn records(&self) -> PathBuf {
        self.0.join("records")
    }

    pub(crate) fn daemons(&self) -> PathBuf {
        self.0.join("daemons")
    }

    /// The place of an id. The error is a sentence.
    pub(crate) fn of(&self, id: &str) -> Result<Place, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if id.is_empty() || id.len() > ID || id.starts_with('.') || !id.bytes().all(plain) {
            return Err(format!(
                "id {id:?}: must be 1 to {ID} of A-Z a-z 0-9 . _ - and not start with a dot"
            ));
        }
        let dir = self.daemons().join(id);
        if dir.join(BACKEND).as_os_str().len() > SOCKET_PATH {
            return Err(format!(
                "id {id:?}: the sockets in {} would have paths of more than {SOCKET_PATH} bytes; start the engine with a \
                 shorter --state, or choose a shorter id",
                dir.display()
            ));
        }
        Ok(Place(dir))
    }
}

/// The directory of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Says which process has been through its recipe.
    pub(crate) fn served(&self) -> PathBuf {
        self.0.join("served")
    }

    pub(crate) fn qmp(&self) -> PathBuf {
        self.0.join(ENGINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("")]
    #[case(".")]
    #[case("..")]
    #[case("a/b")]
    #[case("a b")]
    #[case("\u{e9}")]
    #[case(&"x".repeat(65))]
    fn an_id_that_is_no_file_name_of_ours_is_refused(#[case] id: &str) {
        assert!(State("/s".into()).of(id).unwrap_err().contains("must be"));
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        let state = State(format!("/{}", "s".repeat(60)).into());
        let id = "5cfc5ac4-6be0-43c2-aed6-6fba9b7e8cf1";
        assert!(state.of(id).unwrap_err().contains("shorter --state"));
        assert_eq!(
            State("/var/lib/outboard/engine".into())
                .of(id)
                .unwrap()
                .dir(),
            Path::new(&format!("/var/lib/outboard/engine/daemons/{id}"))
        );
    }
}
