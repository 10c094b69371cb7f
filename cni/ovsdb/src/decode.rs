//! Reads values from JSON text straight into their compact form (RFC 7047 §5.1), with no tree of
//! JSON values in between: a first fetch of 100,000 rows is then no more than its rows.

use crate::atom::{Atom, AtomicType};
use crate::datum::Datum;
use crate::schema::ColumnType;
use crate::strings::Strings;
use serde::de::{self, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use std::fmt;
use uuid::Uuid;

/// Reads a `<value>`. Without a type the value's own form decides, which tells everything but a
/// real number without a fraction from an integer.
pub(crate) struct DatumSeed<'a> {
    pub(crate) ty: Option<&'a ColumnType>,
    pub(crate) strings: &'a mut Strings,
}

impl<'de> DeserializeSeed<'de> for DatumSeed<'_> {
    type Value = Datum;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Datum, D::Error> {
        let key = self.ty.map(|ty| ty.key);
        let value = self.ty.and_then(|ty| ty.value);
        let visitor = ValueVisitor {
            key,
            value,
            strings: self.strings,
        };
        deserializer.deserialize_any(visitor)
    }
}

struct ValueVisitor<'a> {
    key: Option<AtomicType>,
    value: Option<AtomicType>,
    strings: &'a mut Strings,
}

impl<'de> Visitor<'de> for ValueVisitor<'_> {
    type Value = Datum;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an OVSDB value")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Datum, E> {
        Ok(Datum::from(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Datum, E> {
        Ok(Datum::from(integer(value, self.key)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Datum, E> {
        Ok(Datum::from(unsigned(value, self.key)?))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Datum, E> {
        Ok(Datum::from(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Datum, E> {
        Ok(Datum::from(self.strings.share(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Datum, A::Error> {
        let tag: Tag = next(&mut seq)?;
        let datum = match tag {
            Tag::Uuid => Datum::from(next::<Uuid, A>(&mut seq)?),
            Tag::NamedUuid => return Err(de::Error::custom("a named-uuid was received")),
            Tag::Set => {
                let seed = AtomsSeed {
                    kind: self.key,
                    strings: self.strings,
                };
                Datum::set(seq.next_element_seed(seed)?.ok_or_else(short)?)
            }
            Tag::Map => {
                let seed = PairsSeed {
                    key: self.key,
                    value: self.value,
                    strings: self.strings,
                };
                let pairs = seq.next_element_seed(seed)?.ok_or_else(short)?;
                Datum::map_with(pairs, |keys| self.strings.share_keys(keys))
            }
        };
        Ok(datum)
    }
}

/// The first element of the array forms of RFC 7047 §5.1.
#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Tag {
    Uuid,
    NamedUuid,
    Set,
    Map,
}

fn next<'de, T: serde::Deserialize<'de>, A: SeqAccess<'de>>(seq: &mut A) -> Result<T, A::Error> {
    seq.next_element()?.ok_or_else(short)
}

fn short<E: de::Error>() -> E {
    E::custom("a value ends too early")
}

fn integer(value: i64, kind: Option<AtomicType>) -> Atom {
    match kind {
        // The server writes the real number 1.0 as 1.
        #[expect(
            clippy::cast_precision_loss,
            reason = "RFC 7047 3.1: a JSON number is a double"
        )]
        Some(AtomicType::Real) => Atom::Real(value as f64),
        _ => Atom::Integer(value),
    }
}

fn unsigned<E: de::Error>(value: u64, kind: Option<AtomicType>) -> Result<Atom, E> {
    match (i64::try_from(value), kind) {
        (Ok(value), _) => Ok(integer(value, kind)),
        #[expect(
            clippy::cast_precision_loss,
            reason = "RFC 7047 3.1: a JSON number is a double"
        )]
        (Err(_), Some(AtomicType::Real)) => Ok(Atom::Real(value as f64)),
        (Err(_), _) => Err(E::custom(format!("the integer {value} exceeds 63 bits"))),
    }
}

struct AtomSeed<'a> {
    kind: Option<AtomicType>,
    strings: &'a mut Strings,
}

impl<'de> DeserializeSeed<'de> for AtomSeed<'_> {
    type Value = Atom;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Atom, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AtomSeed<'_> {
    type Value = Atom;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an OVSDB atom")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Atom, E> {
        Ok(Atom::Boolean(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Atom, E> {
        Ok(integer(value, self.kind))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Atom, E> {
        unsigned(value, self.kind)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Atom, E> {
        Ok(Atom::Real(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Atom, E> {
        Ok(Atom::String(self.strings.share(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Atom, A::Error> {
        match next::<Tag, A>(&mut seq)? {
            Tag::Uuid => Ok(Atom::Uuid(next(&mut seq)?)),
            _ => Err(de::Error::custom("an atom is a set, a map or a named-uuid")),
        }
    }
}

struct AtomsSeed<'a> {
    kind: Option<AtomicType>,
    strings: &'a mut Strings,
}

impl<'de> DeserializeSeed<'de> for AtomsSeed<'_> {
    type Value = Vec<Atom>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Atom>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AtomsSeed<'_> {
    type Value = Vec<Atom>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of OVSDB atoms")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Atom>, A::Error> {
        let mut atoms = Vec::new();
        let AtomsSeed { kind, strings } = self;
        while let Some(atom) = seq.next_element_seed(AtomSeed { kind, strings })? {
            atoms.push(atom);
        }
        Ok(atoms)
    }
}

struct PairsSeed<'a> {
    key: Option<AtomicType>,
    value: Option<AtomicType>,
    strings: &'a mut Strings,
}

impl<'de> DeserializeSeed<'de> for PairsSeed<'_> {
    type Value = Vec<(Atom, Atom)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for PairsSeed<'_> {
    type Value = Vec<(Atom, Atom)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of pairs of OVSDB atoms")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        let PairsSeed {
            key,
            value,
            strings,
        } = self;
        while let Some(pair) = seq.next_element_seed(PairSeed {
            key,
            value,
            strings,
        })? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

struct PairSeed<'a> {
    key: Option<AtomicType>,
    value: Option<AtomicType>,
    strings: &'a mut Strings,
}

impl<'de> DeserializeSeed<'de> for PairSeed<'_> {
    type Value = (Atom, Atom);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for PairSeed<'_> {
    type Value = (Atom, Atom);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pair of OVSDB atoms")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let PairSeed {
            key,
            value,
            strings,
        } = self;
        let seed = AtomSeed { kind: key, strings };
        let key = seq.next_element_seed(seed)?.ok_or_else(short)?;
        let seed = AtomSeed {
            kind: value,
            strings,
        };
        let value = seq.next_element_seed(seed)?.ok_or_else(short)?;
        Ok((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, ty: Option<&str>) -> Result<Datum, serde_json::Error> {
        let ty: Option<ColumnType> = ty.map(|ty| serde_json::from_str(ty).unwrap());
        let seed = DatumSeed {
            ty: ty.as_ref(),
            strings: &mut Strings::new(),
        };
        seed.deserialize(&mut serde_json::Deserializer::from_str(text))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let uuid = Uuid::from_u128(7);
        let datums = [
            Datum::from("a\"\\\n"),
            Datum::from(-3),
            Datum::from(1.5),
            Datum::from(true),
            Datum::from(uuid),
            Datum::empty(),
            Datum::empty_map(),
            Datum::from([uuid, Uuid::nil()]),
            Datum::map([("a", uuid), ("b", Uuid::nil())]),
            Datum::map([(1, "x"), (2, "y")]),
        ];
        for datum in datums {
            let text = serde_json::to_string(&datum).unwrap();
            assert_eq!(read(&text, None).unwrap(), datum, "{text}");
        }
    }

    #[test]
    fn a_real_column_turns_integers_into_reals() {
        assert_eq!(read("1", Some(r#""real""#)).unwrap(), Datum::from(1.0));
        let ty = r#"{"key":"integer","value":"real","min":0,"max":9}"#;
        let map = read(r#"["map",[[1,2],[3,4.5]]]"#, Some(ty)).unwrap();
        assert_eq!(map, Datum::map([(1, 2.0), (3, 4.5)]));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let wrong = [
            "null",
            "{}",
            "[]",
            r#"["set"]"#,
            r#"["set",[["set",[]]]]"#,
            r#"["uuid","x"]"#,
        ];
        for text in wrong
            .iter()
            .chain(&[r#"["map",[[1]]]"#, "18446744073709551615"])
        {
            assert!(read(text, None).is_err(), "{text}");
        }
    }
}
