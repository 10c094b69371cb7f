//! Atoms: the elements of every column value (RFC 7047 §5.1, `<atom>`).

use serde::ser::{Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// The atomic types of RFC 7047 §3.2 (`<atomic-type>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtomicType {
    /// 64 bit signed.
    Integer,
    /// IEEE 754 double.
    Real,
    /// `true` or `false`.
    Boolean,
    /// UTF-8 text.
    String,
    /// A row's identity.
    Uuid,
}

/// One atom. Ordered by kind, then by value (reals by their total order).
#[derive(Debug, Clone)]
pub enum Atom {
    /// An integer.
    Integer(i64),
    /// A real number.
    Real(f64),
    /// A boolean.
    Boolean(bool),
    /// A string, shared when it repeats.
    String(Arc<str>),
    /// A row.
    Uuid(Uuid),
    /// A row that the same transaction inserts. Never received, only sent.
    NamedUuid(NamedUuid),
}

/// The name of a row that a transaction inserts (RFC 7047 §5.1, `<named-uuid>`). Made by
/// [`crate::Transaction::insert`]; unique in this process, so transactions can be joined.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedUuid(pub(crate) Arc<str>);

impl NamedUuid {
    /// The name as it is sent: an `<id>`, that is letters, digits and underscores.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Atom {
    /// The atom that a column of this type has when nothing is said (RFC 7047 §5.2.1).
    pub(crate) fn default_of(kind: AtomicType) -> Atom {
        match kind {
            AtomicType::Integer => Atom::Integer(0),
            AtomicType::Real => Atom::Real(0.0),
            AtomicType::Boolean => Atom::Boolean(false),
            AtomicType::String => Atom::String(Arc::from("")),
            AtomicType::Uuid => Atom::Uuid(Uuid::nil()),
        }
    }

    /// The text of a string atom.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Atom::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value of an integer atom.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Atom::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The row of a UUID atom.
    pub fn as_uuid(&self) -> Option<Uuid> {
        match self {
            Atom::Uuid(uuid) => Some(*uuid),
            _ => None,
        }
    }

    /// The value of a boolean atom.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Atom::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Atom::Integer(_) => 0,
            Atom::Real(_) => 1,
            Atom::Boolean(_) => 2,
            Atom::String(_) => 3,
            Atom::Uuid(_) => 4,
            Atom::NamedUuid(_) => 5,
        }
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Atom::Integer(a), Atom::Integer(b)) => a.cmp(b),
            // Zero has two signs and is one value, for the server as well.
            (Atom::Real(a), Atom::Real(b)) => (a + 0.0).total_cmp(&(b + 0.0)),
            (Atom::Boolean(a), Atom::Boolean(b)) => a.cmp(b),
            (Atom::String(a), Atom::String(b)) => a.cmp(b),
            (Atom::Uuid(a), Atom::Uuid(b)) => a.cmp(b),
            (Atom::NamedUuid(a), Atom::NamedUuid(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Atom {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Atom {}

/// As ovs-vsctl prints it: strings bare, UUIDs in their text form.
impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Integer(number) => number.fmt(f),
            Atom::Real(number) => number.fmt(f),
            Atom::Boolean(value) => value.fmt(f),
            Atom::String(text) => f.write_str(text),
            Atom::Uuid(uuid) => uuid.fmt(f),
            Atom::NamedUuid(name) => f.write_str(name.as_str()),
        }
    }
}

impl Serialize for Atom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Atom::Integer(number) => serializer.serialize_i64(*number),
            Atom::Real(number) => serializer.serialize_f64(*number),
            Atom::Boolean(value) => serializer.serialize_bool(*value),
            Atom::String(text) => serializer.serialize_str(text),
            Atom::Uuid(uuid) => ("uuid", uuid).serialize(serializer),
            Atom::NamedUuid(name) => ("named-uuid", name.as_str()).serialize(serializer),
        }
    }
}

macro_rules! from {
    ($($from:ty => |$value:ident| $atom:expr;)*) => {
        $(impl From<$from> for Atom {
            fn from($value: $from) -> Self {
                $atom
            }
        })*
    };
}

from! {
    i64 => |value| Atom::Integer(value);
    i32 => |value| Atom::Integer(value.into());
    u32 => |value| Atom::Integer(value.into());
    u16 => |value| Atom::Integer(value.into());
    u8 => |value| Atom::Integer(value.into());
    f64 => |value| Atom::Real(value);
    bool => |value| Atom::Boolean(value);
    &str => |value| Atom::String(Arc::from(value));
    String => |value| Atom::String(Arc::from(value));
    &String => |value| Atom::String(Arc::from(value.as_str()));
    Arc<str> => |value| Atom::String(value);
    Uuid => |value| Atom::Uuid(value);
    &Uuid => |value| Atom::Uuid(*value);
    NamedUuid => |value| Atom::NamedUuid(value);
    &NamedUuid => |value| Atom::NamedUuid(value.clone());
}

impl From<&Atom> for Atom {
    fn from(atom: &Atom) -> Self {
        atom.clone()
    }
}
