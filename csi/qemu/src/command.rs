//! Commands: typed, and as data.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A QMP command: its fields are its arguments.
pub trait Command: Serialize {
    /// Its name.
    const NAME: &'static str;
    /// What it answers; [`Done`](crate::commands::Done) for `{}`.
    type Reply: DeserializeOwned;

    /// The command as data.
    ///
    /// # Errors
    /// The arguments can't be written as a JSON object.
    fn step(&self) -> Result<Step, crate::Error> {
        let failed = |source| crate::Error::Decode {
            command: Self::NAME.to_owned(),
            what: "arguments",
            source,
        };
        let value = serde_json::to_value(self).map_err(failed)?;
        Ok(Step {
            execute: Self::NAME.to_owned(),
            arguments: serde_json::from_value(value).map_err(failed)?,
        })
    }
}

/// Any command as data, in QMP's own form: `{"execute": …, "arguments": {…}}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The command's name.
    pub execute: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

impl Step {
    /// What the command is about: the first of its arguments that names an object.
    #[must_use]
    pub fn object(&self) -> Option<&str> {
        ["id", "node-name", "job-id", "node", "device", "overlay"]
            .iter()
            .find_map(|key| self.arguments.get(*key)?.as_str())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.object() {
            Some(object) => write!(f, "{} {object}", self.execute),
            None => f.write_str(&self.execute),
        }
    }
}

/// Arguments may hold secrets (`object-add` of a `secret`): they are never printed.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Step({self})")
    }
}
