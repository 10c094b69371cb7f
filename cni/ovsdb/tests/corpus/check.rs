//! What must hold for any bytes that a server could send. Used by the replay of the seeds and by the fuzz targets `ovsdb_*`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jsonrpc::{Framer, LinkError, Message, Raw};
use ovsdb::codec::{self, Playback};
use ovsdb::{
    Atom, ColumnType, Condition, Datum, MonitorSpec, Mutation, Schema, Transaction, Uuid, Values,
};

/// Small, so that a fuzzer comes across it.
const LARGEST_FRAME: usize = 2048;

/// A table with a column of every kind; short names, so that a fuzzer finds them.
const SCHEMA: &str = r#"{"name":"D","tables":{"T":{"columns":{
    "i":{"type":"integer"},
    "r":{"type":"real"},
    "b":{"type":"boolean"},
    "u":{"type":{"key":{"type":"uuid","refTable":"T"},"min":0,"max":"unlimited"}},
    "o":{"type":{"key":"string","min":0,"max":1}},
    "s":{"type":{"key":"string","min":0,"max":"unlimited"}},
    "n":{"type":{"key":"integer","min":1,"max":4}},
    "m":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}},
    "w":{"type":{"key":"integer","value":"real","min":0,"max":"unlimited"}},
    "p":{"type":{"key":"string","value":"integer","min":0,"max":1}}}}}}"#;

/// Columns by name, of all rows by identity.
pub(crate) type Rows = BTreeMap<Uuid, BTreeMap<String, Datum>>;

/// What [`rows`] are of.
fn schema() -> &'static Schema {
    static READ: LazyLock<Schema> =
        LazyLock::new(|| serde_json::from_str(SCHEMA).expect("a constant"));
    &READ
}

fn spec(schema: &Schema) -> MonitorSpec {
    let tables = schema.tables.iter();
    tables.fold(MonitorSpec::new(), |spec, (name, table)| {
        spec.columns(name.as_str(), table.columns.keys().map(String::as_str))
    })
}

/// Cuts a stream into messages, takes them in as a session does, and checks on the way that
///
/// * messages are the same however the stream is cut into reads;
/// * what was read of a message is read again from its parts;
/// * the contents of a replica are the same when they are fetched whole, and when they are reached by differences.
///
/// True if every message was of use to somebody.
///
/// # Panics
/// Something of it does not hold.
pub(crate) fn stream(bytes: &[u8]) -> bool {
    let (frames, end) = frames(bytes, bytes.len().max(1));
    for piece in [1, 7] {
        let other = self::frames(bytes, piece);
        assert_eq!(other, (frames.clone(), end.clone()), "in reads of {piece}");
    }
    let schema = schema();
    let replica = Playback::new(spec(schema), schema);
    let mut before = Rows::new();
    for frame in frames {
        let Ok(message) = Message::parse(frame) else {
            return false;
        };
        again(&message);
        if !take(&message, &replica) {
            return false;
        }
        let after = rows(&replica);
        fetched_and_followed(&before, &after);
        before = after;
    }
    end == "whole"
}

/// The frames, and how the stream ended.
fn frames(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, String) {
    let mut framer = Framer::new(LARGEST_FRAME);
    let mut found = Vec::new();
    for read in bytes.chunks(piece) {
        framer.buffer().extend_from_slice(read);
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(LinkError::TooLarge { .. }) => return (found, "too large".into()),
                Err(error) => return (found, error.to_string()),
            }
        }
    }
    let end = if framer.is_empty() { "whole" } else { "cut" };
    (found, end.into())
}

/// Whether a session would have gone on after it.
fn take(message: &Message, replica: &Playback) -> bool {
    match message {
        Message::Request { .. } => true,
        Message::Notification { method, params } => match method.as_str() {
            "update" | "update2" | "update3" => replica.update(params.get()).is_ok(),
            _ => true,
        },
        Message::Response {
            outcome: Err(_), ..
        } => true,
        Message::Response {
            outcome: Ok(result),
            ..
        } => {
            let contents = replica.contents(result.get()).is_ok();
            let transaction = transaction();
            let outcome = codec::outcome(result.get(), &transaction, schema()).is_ok();
            let schema = serde_json::from_str::<Schema>(result.get());
            if let Ok(schema) = &schema {
                defaults(schema);
            }
            contents || outcome || schema.is_ok()
        }
    }
}

fn transaction() -> Transaction {
    let mut transaction = Transaction::new();
    transaction.insert("T", Values::new().set("i", 1));
    transaction.mutate("T", [Condition::eq("i", 1)], [Mutation::add("i", 1)]);
    transaction.select("T", [], ["i", "r", "m"]);
    transaction
}

/// A row of which a server says nothing has a default in every column, whatever the schema is.
fn defaults(schema: &Schema) {
    let Some((table, columns)) = schema.tables.iter().next() else {
        return;
    };
    let replica = Playback::new(spec(schema), schema);
    let table_json = serde_json::to_string(table).expect("text");
    let id = Uuid::from_u128(1);
    let text = format!(r#"[false,"",{{{table_json}:{{"{id}":{{"initial":{{}}}}}}}}]"#);
    replica.contents(&text).expect("a row without any column");
    let row = replica.read(|rows| rows.get(table, id));
    let row = row.expect("the row that was put there");
    for (column, definition) in &columns.columns {
        let datum = row.get(column).expect("every column has a value");
        assert_eq!(datum.is_map(), definition.ty.value.is_some(), "{column}");
        assert_eq!(datum.is_empty(), definition.ty.min == 0, "{column}");
    }
}

/// A message that is written from the parts of another is read as that other.
fn again(message: &Message) {
    let string = |text: &str| serde_json::to_string(text).expect("text");
    let text = match message {
        Message::Request { id, method, params } => format!(
            r#"{{"params":{},"method":{},"id":{id}}}"#,
            params.get(),
            string(method)
        ),
        Message::Notification { method, params } => format!(
            r#"{{"id":null,"method":{},"params":{}}}"#,
            string(method),
            params.get()
        ),
        Message::Response {
            id: Some(id),
            outcome: Ok(result),
        } => format!(r#"{{"id":{id},"result":{},"error":null}}"#, result.get()),
        Message::Response {
            id: Some(id),
            outcome: Err(error),
        } => {
            let text = error.body.to_string();
            // Numbers with many digits lose the last one on the way through JSON.
            if serde_json::from_str::<serde_json::Value>(&text).ok() != Some(error.body.clone()) {
                return;
            }
            format!(r#"{{"id":{id},"error":{text}}}"#)
        }
        // Nobody asked.
        Message::Response { id: None, .. } => return,
    };
    let other = Message::parse(text.clone().into_bytes());
    let other = other.unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(parts(message), parts(&other), "{text}");
}

/// What tells two messages apart.
fn parts(message: &Message) -> [String; 4] {
    let raw = |raw: &Raw| raw.get().to_owned();
    match message {
        Message::Request { id, method, params } => {
            ["request".into(), id.clone(), method.clone(), raw(params)]
        }
        Message::Notification { method, params } => [
            "notification".into(),
            String::new(),
            method.clone(),
            raw(params),
        ],
        Message::Response { id, outcome } => [
            "response".into(),
            format!("{id:?}"),
            outcome.as_ref().map(raw).unwrap_or_default(),
            outcome
                .as_ref()
                .err()
                .map(|error| format!("{error} {}", error.body))
                .unwrap_or_default(),
        ],
    }
}

/// The rows of a replica of [`schema`].
fn rows(replica: &Playback) -> Rows {
    replica.read(|rows| {
        let rows = rows.raw("T").map(|row| {
            let columns = row.columns();
            let columns = columns.map(|(name, datum)| (name.to_owned(), datum.clone()));
            (row.uuid(), columns.collect())
        });
        rows.collect()
    })
}

/// A replica that fetches `after` has it, and so has one that fetches `before` and follows the differences.
///
/// # Panics
/// It has not.
pub(crate) fn fetched_and_followed(before: &Rows, after: &Rows) {
    if !(repeatable(before) && repeatable(after)) {
        return;
    }
    let schema = schema();
    let whole = Playback::new(spec(schema), schema);
    let text = contents(after);
    let read = whole.contents(&text);
    read.unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(&rows(&whole), after, "{text}");

    let Some(text) = differences(before, after, schema) else {
        return;
    };
    let followed = Playback::new(spec(schema), schema);
    let read = followed.contents(&contents(before));
    read.unwrap_or_else(|error| panic!("{before:?}: {error}"));
    let read = followed.update(&text);
    let last = read.unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(last.as_deref(), Some("t"), "{text}");
    assert_eq!(&rows(&followed), after, "{text}");
}

/// Whether JSON keeps all numbers: serde_json may lose the last digit of those that have many.
fn repeatable(rows: &Rows) -> bool {
    let keeps = |atom: &Atom| match atom {
        Atom::Real(number) => serde_json::to_string(number)
            .and_then(|text| serde_json::from_str::<f64>(&text))
            .is_ok_and(|read| read.to_bits() == number.to_bits()),
        _ => true,
    };
    let mut data = rows.values().flat_map(BTreeMap::values);
    data.all(|datum| {
        datum.atoms().iter().all(keeps)
            && datum.pairs().all(|(key, value)| keeps(key) && keeps(value))
    })
}

/// The result of `monitor_cond_since` that holds the rows.
fn contents(rows: &Rows) -> String {
    let rows = rows.iter().map(|(id, columns)| {
        let columns = serde_json::to_string(columns).expect("data are written as JSON");
        format!(r#""{id}":{{"initial":{columns}}}"#)
    });
    let rows: Vec<String> = rows.collect();
    format!(r#"[false,"t",{{"T":{{{}}}}}]"#, rows.join(","))
}

/// The parameters of the `update3` that leads from the one to the other; `None` if a value is not of its column's type.
fn differences(before: &Rows, after: &Rows, schema: &Schema) -> Option<String> {
    let mut updates = Vec::new();
    for (id, old) in before {
        let Some(new) = after.get(id) else {
            updates.push(format!(r#""{id}":{{"delete":null}}"#));
            continue;
        };
        let mut columns = BTreeMap::new();
        for (name, new) in new {
            let old = old.get(name)?;
            if old != new {
                let ty = schema.column("T", name)?;
                columns.insert(name, difference(old, new, &ty)?);
            }
        }
        let columns = serde_json::to_string(&columns).expect("data are written as JSON");
        updates.push(format!(r#""{id}":{{"modify":{columns}}}"#));
    }
    for (id, new) in after.iter().filter(|(id, _)| !before.contains_key(id)) {
        let columns = serde_json::to_string(new).expect("data are written as JSON");
        updates.push(format!(r#""{id}":{{"insert":{columns}}}"#));
    }
    let updates = updates.join(",");
    Some(format!(r#"["replica-0","t",{{"T":{{{updates}}}}}]"#))
}

/// What ovsdb-server(7), "Update2 Notification", says of `modify`.
fn difference(old: &Datum, new: &Datum, ty: &ColumnType) -> Option<Datum> {
    let map = ty.value.is_some();
    if old.is_map() != map || new.is_map() != map {
        return None;
    }
    if ty.max == 1 {
        return Some(new.clone());
    }
    if !map {
        let gone = old.atoms().iter().filter(|atom| !new.contains(atom));
        let come = new.atoms().iter().filter(|atom| !old.contains(atom));
        return Some(Datum::set(gone.chain(come)));
    }
    let gone = old.pairs().filter(|(key, _)| !new.contains(key));
    let come = new
        .pairs()
        .filter(|(key, value)| old.value_of(key) != Some(*value));
    Some(Datum::map(gone.chain(come)))
}
