//! What a transaction did (RFC 7047 §4.1.3: the result of `transact`).

use crate::atom::NamedUuid;
use crate::datum::Datum;
use crate::decode::DatumSeed;
use crate::error::{DecodeError, Refusal, RefusalKind};
use crate::row::RowView;
use crate::schema::Schema;
use crate::strings::Strings;
use crate::table::Table;
use crate::transaction::Op;
use serde::Deserialize;
use serde::de::DeserializeSeed;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The results of a transaction that was carried out, one per operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    results: Vec<OpResult>,
    names: BTreeMap<NamedUuid, Uuid>,
}

/// The result of one operation.
#[derive(Debug, Clone, PartialEq)]
pub enum OpResult {
    /// Of `insert`.
    Inserted(Uuid),
    /// Of `update`, `mutate` and `delete`: the number of rows that met the conditions.
    Count(u64),
    /// Of `select`.
    Rows(Vec<Record>),
    /// Of the others.
    Done,
}

/// A row that `select` found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record(BTreeMap<String, Datum>);

impl Record {
    /// The columns and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Datum)> {
        self.0
            .iter()
            .map(|(column, value)| (column.as_str(), value))
    }

    /// The column's value, if it was selected.
    pub fn get(&self, column: &str) -> Option<&Datum> {
        self.0.get(column)
    }

    /// The row's identity, if `_uuid` was selected.
    pub fn uuid(&self) -> Option<Uuid> {
        self.get("_uuid")
            .and_then(Datum::one)
            .and_then(crate::Atom::as_uuid)
    }

    /// The typed row; its `uuid` is nil unless `_uuid` was selected.
    ///
    /// # Errors
    /// As [`Table::decode`].
    pub fn decode<T: Table>(&self) -> Result<T, DecodeError> {
        T::decode(self.uuid().unwrap_or_default(), self)
    }
}

impl RowView for Record {
    fn column(&self, name: &str) -> Option<&Datum> {
        self.get(name)
    }
}

impl<K: Into<String>> FromIterator<(K, Datum)> for Record {
    fn from_iter<I: IntoIterator<Item = (K, Datum)>>(columns: I) -> Self {
        Record(
            columns
                .into_iter()
                .map(|(column, value)| (column.into(), value))
                .collect(),
        )
    }
}

impl Outcome {
    /// The results, in order of the operations.
    pub fn results(&self) -> &[OpResult] {
        &self.results
    }

    /// The UUID that an inserted row got.
    pub fn inserted(&self, name: &NamedUuid) -> Option<Uuid> {
        self.names.get(name).copied()
    }

    /// The number of rows that the operation with this index met.
    pub fn count(&self, op: usize) -> Option<u64> {
        match self.results.get(op) {
            Some(OpResult::Count(count)) => Some(*count),
            _ => None,
        }
    }

    /// The rows that the `select` with this index found; none for other operations.
    pub fn rows(&self, op: usize) -> &[Record] {
        match self.results.get(op) {
            Some(OpResult::Rows(rows)) => rows,
            _ => &[],
        }
    }
}

/// Why an answer is no outcome.
#[derive(Debug)]
pub(crate) enum Failure {
    Refused(Refusal),
    /// The cluster gave up on the commit, or the answer makes no sense.
    Unknown(String),
}

#[derive(Deserialize)]
struct RawResult<'a> {
    error: Option<String>,
    details: Option<String>,
    uuid: Option<Uuid2>,
    count: Option<u64>,
    #[serde(borrow)]
    rows: Option<Vec<BTreeMap<String, &'a RawValue>>>,
}

/// `["uuid", "…"]`
#[derive(Deserialize)]
struct Uuid2(#[expect(dead_code, reason = "the tag")] String, Uuid);

/// Reads the answer to a transaction of these operations.
pub(crate) fn read(answer: &str, ops: &[Op], schema: &Schema) -> Result<Outcome, Failure> {
    let garbled = |error: &dyn std::fmt::Display| Failure::Unknown(format!("its answer: {error}"));
    let raw: Vec<Option<RawResult<'_>>> = serde_json::from_str(answer).map_err(|e| garbled(&e))?;
    for (at, result) in raw.iter().enumerate() {
        let Some(RawResult {
            error: Some(error),
            details,
            ..
        }) = result
        else {
            continue;
        };
        let details = details.clone().unwrap_or_default();
        // The commit's own error stands after the last operation's result.
        let op = (at < ops.len()).then_some(at);
        // A leader that lost its office may have replicated the transaction all the same.
        if error == "cluster error" {
            return Err(Failure::Unknown(format!("{error}: {details}")));
        }
        return Err(Failure::Refused(Refusal {
            op,
            table: op.and_then(|op| ops[op].table()).map(str::to_owned),
            kind: RefusalKind::of(error),
            error: error.clone(),
            details,
        }));
    }
    if raw.len() != ops.len() {
        return Err(garbled(&format!(
            "{} results for {} operations",
            raw.len(),
            ops.len()
        )));
    }
    let mut outcome = Outcome {
        results: Vec::with_capacity(ops.len()),
        names: BTreeMap::new(),
    };
    // It has room for thousands, and most transactions select nothing.
    let mut strings = None;
    for (op, result) in ops.iter().zip(raw) {
        let result = result.ok_or_else(|| garbled(&"a result is missing"))?;
        let result = match op {
            Op::Insert { name, .. } => {
                let uuid = result
                    .uuid
                    .ok_or_else(|| garbled(&"an insert without uuid"))?
                    .1;
                outcome.names.insert(name.clone(), uuid);
                OpResult::Inserted(uuid)
            }
            Op::Update { .. } | Op::Mutate { .. } | Op::Delete { .. } => {
                OpResult::Count(result.count.ok_or_else(|| garbled(&"no count"))?)
            }
            Op::Select { table, .. } => {
                let rows = result
                    .rows
                    .ok_or_else(|| garbled(&"a select without rows"))?;
                let strings = strings.get_or_insert_with(Strings::new);
                let rows = rows.iter().map(|row| record(row, table, schema, strings));
                OpResult::Rows(rows.collect::<Result<_, _>>().map_err(|e| garbled(&e))?)
            }
            Op::Wait(_) | Op::Commit | Op::Comment(_) => OpResult::Done,
        };
        outcome.results.push(result);
    }
    Ok(outcome)
}

fn record(
    row: &BTreeMap<String, &RawValue>,
    table: &str,
    schema: &Schema,
    strings: &mut Strings,
) -> Result<Record, serde_json::Error> {
    let columns = row.iter().map(|(column, value)| {
        let ty = schema.column(table, column);
        let seed = DatumSeed {
            ty: ty.as_ref(),
            strings,
        };
        let datum = seed.deserialize(&mut serde_json::Deserializer::from_str(value.get()))?;
        Ok((column.clone(), datum))
    });
    Ok(Record(columns.collect::<Result<_, serde_json::Error>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Condition, Transaction, Values};

    fn schema() -> Schema {
        let text = r#"{"name":"D","tables":{"T":{"columns":{"r":{"type":"real"}}}}}"#;
        serde_json::from_str(text).unwrap()
    }

    fn transaction() -> (Transaction, NamedUuid) {
        let mut transaction = Transaction::new();
        let name = transaction.insert("T", Values::new().set("r", 1.0));
        transaction
            .delete("T", [Condition::uuid(Uuid::nil())])
            .select("T", [], ["r"]);
        (transaction, name)
    }

    #[test]
    fn results_are_read_by_operation() {
        let (transaction, name) = transaction();
        let id = "00000000-0000-0000-0000-000000000005";
        let answer =
            format!(r#"[{{"uuid":["uuid","{id}"]}},{{"count":2}},{{"rows":[{{"r":1}}]}}]"#);
        let outcome = read(&answer, &transaction.ops, &schema()).unwrap();
        assert_eq!(outcome.inserted(&name), Some(Uuid::from_u128(5)));
        assert_eq!(outcome.count(1), Some(2));
        assert_eq!(outcome.rows(2)[0].get("r"), Some(&Datum::from(1.0)));
    }

    #[test]
    fn errors_of_operations_and_of_the_commit_are_told_apart() {
        let ops = transaction().0.ops;
        let answer = r#"[{},{"error":"timed out","details":"d"},null]"#;
        let Err(Failure::Refused(refusal)) = read(answer, &ops, &schema()) else {
            panic!()
        };
        assert_eq!((refusal.op, refusal.kind), (Some(1), RefusalKind::Guard));
        assert_eq!(refusal.to_string(), "operation 1 on T: timed out: d");
        let answer = r#"[{"uuid":["uuid","00000000-0000-0000-0000-000000000005"]},{"count":1},
            {"rows":[]},{"error":"constraint violation","details":"two rows","syntax":"x"}]"#;
        let Err(Failure::Refused(refusal)) = read(answer, &ops, &schema()) else {
            panic!()
        };
        assert_eq!((refusal.op, refusal.kind), (None, RefusalKind::Constraint));
    }

    #[test]
    fn an_answer_that_makes_no_sense_leaves_the_outcome_unknown() {
        let ops = transaction().0.ops;
        for answer in ["[]", "{}", "[{},{},{}]", "[null,null,null]"] {
            assert!(
                matches!(read(answer, &ops, &schema()), Err(Failure::Unknown(_))),
                "{answer}"
            );
        }
        let lost = r#"[{},{},{},{"error":"cluster error","details":"lost leadership"}]"#;
        assert!(matches!(
            read(lost, &ops, &schema()),
            Err(Failure::Unknown(_))
        ));
    }
}
