//! Messages in the journal: as they go over the wire, in base64. Their numbers are a promise already, so an older program's records
//! stay readable.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A message that serde can carry.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Wire<M>(pub(crate) M);

impl<M: Message> Serialize for Wire<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0.encode_to_vec()))
    }
}

impl<'de, M: Message + Default> Deserialize<'de> for Wire<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(de::Error::custom)?;
        M::decode(bytes.as_slice())
            .map(Wire)
            .map_err(de::Error::custom)
    }
}
