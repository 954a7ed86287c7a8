//! Adds a UUID to each row: a random one (version 4), or one made of other columns (version 5), which is the same whenever
//! the row comes again, so that a replay after a crash writes it over itself.

use acequia_plugin_sdk::{
    Batch, Column, ColumnType, Error, Field, Input, Nullable, Output, Packed, Plan, Reads, Schema, Transform, Type,
    Values, export,
};
use serde::Deserialize;
use uuid::fmt::Hyphenated;
use uuid::{Builder, Uuid};

mod random {
    #![allow(missing_docs, reason = "generated")]

    wit_bindgen::generate!({
        inline: "
            package acequia:uuid;

            world randomness {
                import wasi:random/random@0.2.12;
            }
        ",
        path: "../../wit/deps/wasi-random",
        generate_all,
    });
}

/// What a name-based UUID is a name in: `uuid.uuid5(uuid.NAMESPACE_DNS, "uuid.plugins.acequia")` in Python.
pub const NAMESPACE: Uuid = Uuid::from_u128(0xa2bb_19ed_6f5e_5981_a3aa_a5a3_57f9_0b7f);

/// The `config` table.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The column that is added.
    pub output: String,
    /// The columns that the UUID is made of. None: it is random, which the pipeline must grant
    /// (`grants = { random = true }`).
    ///
    /// The name is the JSON array of the values as text, a null or an absent value as `null`. With `["name", "age"]` it is
    /// `["Andy","30"]`, and in Python `uuid.uuid5(NAMESPACE, '["Andy","30"]')` gives the same UUID.
    pub from: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config { output: "id".to_string(), from: Vec::new() }
    }
}

/// The plugin.
pub struct Ids {
    config: Config,
    name: Vec<u8>,
}

impl Transform for Ids {
    type Config = Config;

    fn configure(config: Config, schema: &Schema) -> Result<(Self, Plan), Error> {
        for name in &config.from {
            schema.check(name).map_err(|error| Error::new(format!("`from`: {error}")))?;
        }
        let input = |name: &String| Input { name: name.clone(), kind: ColumnType::Text, nullable: true };
        let plan = Plan {
            reads: Reads::Columns(config.from.iter().map(input).collect()),
            adds: vec![Field { name: config.output.clone(), kind: ColumnType::Text, nullable: false }],
            ..Plan::pass()
        };
        Ok((Ids { config, name: Vec::new() }, plan))
    }

    fn apply(&mut self, batch: Batch) -> Result<Output, Error> {
        let rows = batch.rows as usize;
        let ids = if self.config.from.is_empty() {
            random_ids(&random::wasi::random::random::get_random_bytes(16 * rows as u64))
        } else {
            self.name_based_ids(&batch.columns, rows)?
        };
        Ok(Output::all(vec![Column { name: self.config.output.clone(), values: Values::Text(ids), valid: None }]))
    }
}

impl Ids {
    fn name_based_ids(&mut self, columns: &[Column], rows: usize) -> Result<Packed, Error> {
        let columns: Vec<Nullable<'_, _>> = columns
            .iter()
            .map(|column| Option::<String>::view(&column.values, column.valid.as_deref(), rows))
            .collect::<Result<_, _>>()?;
        let mut ids = Packed::with_capacity(rows, rows * Hyphenated::LENGTH);
        for row in 0..rows {
            let values = columns.iter().map(|column| column.get(row));
            write_name(&mut self.name, values)?;
            push(&mut ids, Uuid::new_v5(&NAMESPACE, &self.name));
        }
        Ok(ids)
    }
}

/// The JSON array of the values.
fn write_name<'a>(name: &mut Vec<u8>, values: impl Iterator<Item = Option<&'a str>>) -> Result<(), Error> {
    name.clear();
    for (place, value) in values.enumerate() {
        name.push(if place == 0 { b'[' } else { b',' });
        serde_json::to_writer(&mut *name, &value).map_err(|error| Error::new(error.to_string()))?;
    }
    name.push(b']');
    Ok(())
}

/// A version 4 UUID of each sixteen bytes.
fn random_ids(bytes: &[u8]) -> Packed {
    let (sixteens, _) = bytes.as_chunks::<16>();
    let mut ids = Packed::with_capacity(sixteens.len(), sixteens.len() * Hyphenated::LENGTH);
    for sixteen in sixteens {
        push(&mut ids, Builder::from_random_bytes(*sixteen).into_uuid());
    }
    ids
}

fn push(ids: &mut Packed, id: Uuid) {
    ids.push(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
}

export!(Ids as Transform);

#[cfg(test)]
mod tests {
    use acequia_plugin_sdk::testing;

    use super::*;

    #[test]
    fn name_based_ids_are_those_of_python() {
        let config = r#"{ "from": ["name", "age"], "output": "key" }"#;
        let mut plugin = testing::transform::<Ids>(config, &testing::any_schema()).unwrap();
        let people = testing::batch(3)
            .nullable_text("name", [Some("Michael"), Some("Andy"), Some("Justin")])
            .nullable_text("age", [None, Some("30"), Some("19")]);
        let output = plugin.apply(&people).unwrap();
        // Python: uuid.uuid5(NAMESPACE, json.dumps([name, age], ensure_ascii=False, separators=(",", ":")))
        let expected = [
            "974b9dcf-6735-5ae7-b533-4dd2118eca5b",
            "6d5ac1b2-be61-5f79-8db2-a533af6a2464",
            "b142b274-b3d2-51e2-a4fd-ee1694e484c2",
        ];
        assert_eq!(output.columns[0].name, "key");
        assert_eq!(output.columns[0].texts(), expected);
        assert_eq!(plugin.apply(&people), Ok(output), "a replay gives the same");
    }

    #[test]
    fn every_value_counts_and_none_is_taken_for_another() {
        let mut plugin = testing::transform::<Ids>(r#"{ "from": ["a"] }"#, &testing::any_schema()).unwrap();
        let values = [Some(""), None, Some("a\"\\\n\u{1}é😀\u{7f}"), Some("null")];
        let output = plugin.apply(&testing::batch(4).nullable_text("a", values)).unwrap();
        let ids = output.columns[0].texts();
        // Python, as above, of [""], [None] and ['a"\\\n\x01é😀\x7f'].
        let expected = [
            "90ccd8ee-936c-5340-ac6f-8a94169962b9",
            "9cec0fd0-b667-594e-9360-429a7e0a815d",
            "2d9cd295-dbc9-5b4a-a2c7-1f8800e9cdf5",
        ];
        assert_eq!(ids[..3], expected);
        assert!(!ids[..3].contains(&ids[3]));

        let mut plugin = testing::transform::<Ids>(r#"{ "from": ["a", "b"] }"#, &testing::any_schema()).unwrap();
        let batch = testing::batch(2).text("a", ["x", "xy"]).text("b", ["yz", "z"]);
        let output = plugin.apply(&batch).unwrap();
        assert_ne!(output.columns[0].texts()[0], output.columns[0].texts()[1]);
    }

    #[test]
    fn the_namespace_is_what_it_says() {
        assert_eq!(NAMESPACE, Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"uuid.plugins.acequia"));
    }

    #[test]
    fn random_ids_have_version_4_and_the_right_variant() {
        // RFC 9562: the version is the high half of byte 6, the variant 0b10 the top bits of byte 8; the rest is random.
        let bytes: Vec<u8> = [[0xff; 16], [0; 16]].concat();
        let ids = random_ids(&bytes);
        let text = String::from_utf8(ids.data).unwrap();
        assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff00000000-0000-4000-8000-000000000000");
        assert_eq!(ids.offsets, [0, 36, 72]);
    }

    #[test]
    fn a_column_that_no_one_provides_is_named() {
        let schema = testing::schema(&[("name", ColumnType::Text)]);
        let error = testing::transform::<Ids>(r#"{ "from": ["nam"] }"#, &schema).err().unwrap();
        assert_eq!(error.to_string(), "`from`: there is no column `nam`; did you mean `name`?");
    }
}
