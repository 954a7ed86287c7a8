//! JSON values to rows.

use std::fmt;

use acequia_connector_api::ColumnType;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::MAX_COLUMNS;
use super::columns::{Class, Columns};
use crate::FormatOptions;
use crate::column::Scalar;
use crate::frame::Known;
use crate::parse::{self, JsonValue};
use crate::scan::{Kind, Part, Scanner, ShapeId};

/// A row is read in two passes. The first goes over the text and notes for each key that is wanted where its value stands; only
/// if the whole text is one good object, the second writes the values into the columns. So a broken row neither leaves values
/// nor columns nor wider types behind.
///
/// The first pass is `scan`'s for the usual row, and may have been done by the framer. For any other it is serde_json's.
///
/// Where a row has the keys of the one before it, which columns they belong to is known too, and nothing has to be noted: its
/// values go straight into the columns, unless one of them is of a kind that must be looked at first.
#[derive(Debug)]
pub(super) struct JsonRows {
    /// The only column is `value`: a row that is no object is its value.
    takes_scalars: bool,
    scratch: Scratch,
    scanner: Scanner,
    plan: Plan,
}

/// What to do with a row whose keys are known.
#[derive(Debug, Default)]
struct Plan {
    /// Which keys, and how many of them.
    shape: Option<(ShapeId, usize)>,
    /// The places of the values that are wanted, and their columns. Ascending.
    wanted: Vec<(usize, usize)>,
    /// The places of those that are wanted and have only been null, so that they have no column yet.
    unknown: Vec<usize>,
    /// A key is there twice.
    repeats: bool,
}

/// What is used anew for each row.
#[derive(Debug, Default)]
struct Scratch {
    values: Vec<Noted>,
    /// Names of this row that no column has yet, each with 1 + its index in `values`, or 0.
    fresh: Vec<(String, usize)>,
    /// What is wrong with a value that no column has.
    refused: Option<String>,
    /// For each column, 1 + the index in `values`, or 0. All 0 between two rows.
    seen: Vec<usize>,
    /// Key by key what the rows before had in this place, since rows tend to have the same keys in the same order. Kept.
    expected: Vec<(String, Key)>,
}

#[derive(Clone, Copy, Debug)]
struct Noted {
    key: Key,
    start: usize,
    end: usize,
    kind: Kind,
    class: Class,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Key {
    Column(usize),
    /// An index in `fresh`.
    Fresh(usize),
    Unwanted,
}

impl JsonRows {
    pub(super) fn new(options: &FormatOptions) -> Self {
        let takes_scalars =
            options.schema.as_ref().is_some_and(|schema| matches!(schema.0.as_slice(), [(name, _)] if name == "value"));
        JsonRows { takes_scalars, scratch: Scratch::default(), scanner: Scanner::default(), plan: Plan::default() }
    }

    /// Append a row, whose text is `record` without blanks around it. True: it is an object on one line. After an error some
    /// columns may be one value longer than others; no type has changed.
    pub(super) fn decode(
        &mut self,
        record: &str,
        known: Option<Known<'_>>,
        columns: &mut Columns,
        rows: usize,
    ) -> Result<bool, String> {
        if !record.starts_with('{') {
            return self.no_object(record, columns).map(|()| false);
        }
        let JsonRows { scratch, scanner, plan, .. } = self;
        let known = known.or_else(|| {
            let row = scanner.scan(record.as_bytes()).filter(|row| row.length == record.len())?;
            Some(Known { text: Some(record), parts: scanner.parts(), row })
        });
        if let Some(known) = known
            && plan.fits(&known)
        {
            return plan.write(record, known.parts, columns).map(|()| true);
        }
        scratch.seen.resize(columns.len(), 0);
        let noted = match known {
            Some(known) => scratch.note_parts(record, known.parts, columns),
            None => scratch.note(record, columns),
        };
        let result = noted.and_then(|()| {
            if columns.declared { scratch.write(record, columns) } else { scratch.infer(record, columns, rows) }
        });
        for value in &scratch.values {
            if let Key::Column(index) = value.key
                && let Some(seen) = scratch.seen.get_mut(index)
            {
                *seen = 0;
            }
        }
        scratch.values.clear();
        scratch.fresh.clear();
        if let (Ok(()), Some(known)) = (&result, &known) {
            plan.learn(record, known, columns);
        }
        result.map(|()| known.is_some())
    }

    fn no_object(&self, record: &str, columns: &mut Columns) -> Result<(), String> {
        let value: &RawValue = serde_json::from_str(record).map_err(|error| explain(&error))?;
        if self.takes_scalars {
            return columns.push(0, value_of(value.get(), Kind::of(value.get()), columns.kind(0)));
        }
        let found = match JsonValue::of(value.get()) {
            Some(JsonValue::Null) => "null",
            Some(JsonValue::Boolean(_)) => "a boolean",
            Some(JsonValue::Number(_)) => "a number",
            Some(JsonValue::Text(_)) | None => "a string",
            Some(JsonValue::Nested) => "an array",
        };
        Err(format!("expected a JSON object, found {found}"))
    }
}

/// A value of JSON on its way into a column of a declared type.
fn value_of(raw: &str, kind: Kind, to: Option<ColumnType>) -> Scalar<'_> {
    match kind {
        // The usual cases at once; everything else is looked at by the cast.
        Kind::Integer | Kind::Fraction => Scalar::Number(raw),
        Kind::Text if to != Some(ColumnType::Json) => Scalar::Text(unquoted(raw)),
        // In a column of JSON too, null is no value.
        Kind::Null => Scalar::Null,
        _ => Scalar::Json(raw),
    }
}

/// The content of a string without escapes.
fn unquoted(raw: &str) -> &str {
    raw.get(1..raw.len() - 1).unwrap_or_default()
}

/// A value that goes on in its row's own text must be as good as one that becomes a column.
fn check_unwanted(raw: &str, kind: Kind, columns: &Columns) -> Result<(), String> {
    match kind {
        Kind::Escaped | Kind::Nested if columns.only.is_some() => classify(raw, kind).map(|_| ()),
        _ => Ok(()),
    }
}

fn classify(raw: &str, kind: Kind) -> Result<Class, String> {
    Ok(match kind {
        Kind::Null => Class::Null,
        Kind::Boolean(value) => Class::Boolean(value),
        Kind::Text => Class::Text,
        Kind::Escaped if parse::json_string(raw).is_none() => {
            return Err("invalid JSON: a string with half a surrogate pair".to_owned());
        }
        Kind::Escaped => Class::Text,
        Kind::Nested => {
            // A value that is 128 levels deep has at least 256 brackets.
            if raw.len() >= 256 && !parse::compact_json(raw, &mut String::new()) {
                return Err("a value is nested more than 127 levels deep".to_owned());
            }
            Class::Nested
        }
        Kind::Integer => raw.parse().map_or(Class::Digits, Class::Int64),
        Kind::Fraction => match raw.parse::<f64>() {
            Ok(value) if value.is_finite() => Class::Float64(value),
            _ => Class::Digits,
        },
    })
}

/// serde_json's message, with the place in the record said so that it is not taken for the place in the file.
fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(cause) if error.line() > 1 => {
            format!("invalid JSON in line {}, column {} of the row: {cause}", error.line(), error.column())
        }
        Some(cause) => format!("invalid JSON at column {} of the row: {cause}", error.column()),
        None => format!("invalid JSON: {text}"),
    }
}

fn too_many_keys() -> String {
    format!("more than {MAX_COLUMNS} keys that are not known yet")
}

impl Plan {
    fn fits(&self, known: &Known<'_>) -> bool {
        known.row.plain && !self.repeats && self.knows(known)
    }

    /// Whether it was made for rows like this one, and says what to do with each of its values.
    fn knows(&self, known: &Known<'_>) -> bool {
        let is_null = |place: &usize| known.parts.get(*place).is_none_or(|part| part.kind == Kind::Null);
        match (self.shape, known.row.shape) {
            (Some((planned, places)), Some(shape)) => {
                planned == shape && known.parts.len() <= places && self.unknown.iter().all(is_null)
            }
            _ => false,
        }
    }

    /// Make the plan for rows like this one, which is in the columns.
    fn learn(&mut self, record: &str, known: &Known<'_>, columns: &Columns) {
        let Some(shape) = known.row.shape else { return };
        if self.knows(known) {
            return;
        }
        *self = Plan { shape: Some((shape, known.parts.len())), ..Plan::default() };
        for (place, part) in known.parts.iter().enumerate() {
            let name = part.key(record).unwrap_or_default();
            match columns.find(name) {
                Some(index) => {
                    self.repeats |= self.wanted.iter().any(|(_, wanted)| *wanted == index);
                    self.wanted.push((place, index));
                }
                None if columns.wants(name) => self.unknown.push(place),
                None => {}
            }
        }
    }

    /// Both passes at once: no value is of a kind that could still be refused, or its column's type is declared.
    fn write(&self, record: &str, parts: &[Part], columns: &mut Columns) -> Result<(), String> {
        for (place, index) in &self.wanted {
            let Some(part) = parts.get(*place) else { break };
            let (start, end) = part.value();
            let raw = record.get(start..end).unwrap_or_default();
            if columns.declared {
                columns.push(*index, value_of(raw, part.kind, columns.kind(*index)))?;
            } else {
                let text = if part.kind == Kind::Text { unquoted(raw) } else { "" };
                columns.infer(*index, classify(raw, part.kind)?, raw, text)?;
            }
        }
        Ok(())
    }
}

impl Scratch {
    /// The first pass.
    fn note(&mut self, record: &str, columns: &Columns) -> Result<(), String> {
        self.refused = None;
        let mut deserializer = serde_json::Deserializer::from_str(record);
        let row = RowSeed { scratch: self, record, columns };
        row.deserialize(&mut deserializer).and_then(|()| deserializer.end()).map_err(|error| explain(&error))?;
        self.refused.take().map_or(Ok(()), Err)
    }

    /// The same, where keys and values are known.
    fn note_parts(&mut self, record: &str, parts: &[Part], columns: &Columns) -> Result<(), String> {
        for (place, part) in parts.iter().enumerate() {
            let key = self.key(columns, place, part.key(record).unwrap_or_default()).ok_or_else(too_many_keys)?;
            let (start, end) = part.value();
            if key == Key::Unwanted {
                check_unwanted(record.get(start..end).unwrap_or_default(), part.kind, columns)?;
            }
            self.note_value(key, start, end, part.kind);
        }
        Ok(())
    }

    /// The second pass where types are declared.
    fn write(&mut self, record: &str, columns: &mut Columns) -> Result<(), String> {
        for value in &self.values {
            if let Key::Column(index) = value.key {
                let raw = record.get(value.start..value.end).unwrap_or_default();
                columns.push(index, value_of(raw, value.kind, columns.kind(index)))?;
            }
        }
        Ok(())
    }

    /// The second pass where they are not: everything that can fail, then what changes columns.
    fn infer(&mut self, record: &str, columns: &mut Columns, rows: usize) -> Result<(), String> {
        let mut new = 0;
        for value in &mut self.values {
            value.class = classify(record.get(value.start..value.end).unwrap_or_default(), value.kind)?;
            new += usize::from(matches!(value.key, Key::Fresh(_)) && value.class != Class::Null);
        }
        if columns.len() + new > MAX_COLUMNS {
            return Err(format!("more than {MAX_COLUMNS} columns: declare those that are needed in `schema`"));
        }
        for value in &self.values {
            let index = match value.key {
                Key::Column(index) => Some(index),
                Key::Fresh(fresh) => {
                    let name = self.fresh.get(fresh).map_or("", |(name, _)| name);
                    columns.add_inferred(name, value.class, rows)
                }
                Key::Unwanted => None,
            };
            let Some(index) = index else { continue };
            let raw = record.get(value.start..value.end).unwrap_or_default();
            let text = match value.kind {
                Kind::Text => unquoted(raw).into(),
                Kind::Escaped => parse::json_string(raw).unwrap_or_default(),
                _ => Default::default(),
            };
            columns.infer(index, value.class, raw, &text)?;
        }
        Ok(())
    }

    /// What to do with the value of this key, the `place`-th of the row.
    fn key(&mut self, columns: &Columns, place: usize, name: &str) -> Option<Key> {
        match self.expected.get(place) {
            Some((expected, key)) if expected == name => return Some(*key),
            _ => {}
        }
        let key = match columns.find(name) {
            Some(index) => Key::Column(index),
            None if !columns.wants(name) => Key::Unwanted,
            None => {
                let known = self.fresh.iter().position(|(fresh, _)| fresh == name);
                return match known {
                    Some(fresh) => Some(Key::Fresh(fresh)),
                    None if self.fresh.len() >= MAX_COLUMNS => None,
                    None => {
                        self.fresh.push((name.to_owned(), 0));
                        Some(Key::Fresh(self.fresh.len() - 1))
                    }
                };
            }
        };
        if let Some(expected) = self.expected.get_mut(place) {
            name.clone_into(&mut expected.0);
            expected.1 = key;
        } else if place < MAX_COLUMNS {
            self.expected.push((name.to_owned(), key));
        }
        Some(key)
    }

    /// Note a value. A key that is there again has only this one.
    fn note_value(&mut self, key: Key, start: usize, end: usize, kind: Kind) {
        let noted = Noted { key, start, end, kind, class: Class::Null };
        let seen = match key {
            Key::Column(index) => self.seen.get_mut(index),
            Key::Fresh(index) => self.fresh.get_mut(index).map(|(_, seen)| seen),
            Key::Unwanted => None,
        };
        let Some(seen) = seen else { return };
        match seen.checked_sub(1).and_then(|before| self.values.get_mut(before)) {
            Some(before) => *before = noted,
            None => {
                self.values.push(noted);
                *seen = self.values.len();
            }
        }
    }
}

struct RowSeed<'a> {
    scratch: &'a mut Scratch,
    record: &'a str,
    columns: &'a Columns,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let RowSeed { scratch, record, columns } = self;
        let mut place = 0;
        while let Some(key) = map.next_key_seed(KeySeed { scratch, columns, place })? {
            place += 1;
            if key == Key::Unwanted && columns.only.is_none() {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let raw = map.next_value::<&RawValue>()?.get();
            if key == Key::Unwanted {
                scratch.refused = scratch.refused.take().or(check_unwanted(raw, Kind::of(raw), columns).err());
                continue;
            }
            // `raw` is a part of `record`.
            let start = (raw.as_ptr() as usize).wrapping_sub(record.as_ptr() as usize);
            scratch.note_value(key, start, start + raw.len(), Kind::of(raw));
        }
        Ok(())
    }
}

struct KeySeed<'a> {
    scratch: &'a mut Scratch,
    columns: &'a Columns,
    place: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
        let key = self.scratch.key(self.columns, self.place, name);
        key.ok_or_else(|| E::custom(too_many_keys()))
    }
}
