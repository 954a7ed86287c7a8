//! The keys of the `[source]` table.

use std::borrow::Cow;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use acequia_connector_api::{
    CheckError, ColumnType, ConnectorError, Context, Field, Position, RowSchema, Source, SourceConfig,
};
use async_trait::async_trait;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::RateSource;

/// How fast rows come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// So many rows a second; may be a fraction.
    PerSecond(f64),
    /// As fast as the rest of the pipeline takes them.
    Max,
}

impl Rate {
    /// From what [`fmt::Display`] writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "max" => Some(Rate::Max),
            _ => text.parse().ok().map(Rate::PerSecond).filter(|rate| rate.is_possible()),
        }
    }

    pub(crate) fn is_possible(self) -> bool {
        match self {
            Rate::PerSecond(rate) => rate.is_finite() && rate > 0.0,
            Rate::Max => true,
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::PerSecond(rate) => rate.fmt(formatter),
            Rate::Max => formatter.write_str("max"),
        }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RateVisitor;
        impl Visitor<'_> for RateVisitor {
            type Value = Rate;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number of rows a second such as 1 or 0.5, or \"max\"")
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Rate, E> {
                Ok(Rate::PerSecond(value as f64))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Rate, E> {
                Ok(Rate::PerSecond(value as f64))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Rate, E> {
                Ok(Rate::PerSecond(value))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Rate, E> {
                match value {
                    "max" => Ok(Rate::Max),
                    _ => Err(E::invalid_value(Unexpected::Str(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(RateVisitor)
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "a number of rows a second such as 1 or 0.5, or \"max\"",
            "anyOf": [{ "type": "number", "exclusiveMinimum": 0 }, { "const": "max" }],
        })
    }
}

/// Rows with `value`, which counts from 0, and `timestamp`, the start time plus `value / rows_per_second`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateConfig {
    /// How many rows a second, such as 1 or 0.5; or `"max"`: as fast as the pipeline takes them, with timestamps one
    /// microsecond apart. If it is changed, `value` goes on, and so do the timestamps.
    #[schemars(extend("default" = 1))]
    pub rows_per_second: Rate,
    /// End after that many rows. Without it the source never ends.
    pub rows: Option<u64>,
}

impl Default for RateConfig {
    fn default() -> Self {
        RateConfig { rows_per_second: Rate::PerSecond(1.0), rows: None }
    }
}

#[async_trait]
impl SourceConfig for RateConfig {
    const TYPE: &'static str = "rate";
    const SUMMARY: &'static str = "counts from 0, so many rows a second";
    const EXAMPLE: &'static str = r#"type = "rate"
rows_per_second = 1     # 0.5 is one row in two seconds; "max" is as fast as it goes
rows = 1000             # leave it out to count for ever
"#;

    fn check(&self) -> Result<(), CheckError> {
        if !self.rows_per_second.is_possible() {
            let message = format!("{} rows a second can't be; it must be above 0, or \"max\"", self.rows_per_second);
            return Err(CheckError::new("rows_per_second", message));
        }
        if self.rows.is_some_and(|rows| i64::try_from(rows).is_err()) {
            return Err(CheckError::new("rows", format!("at most {}, since `value` is an int64", i64::MAX)));
        }
        Ok(())
    }

    fn schema(&self) -> RowSchema {
        RowSchema::closed(vec![
            Field::new("value", ColumnType::Int64, false),
            Field::new("timestamp", ColumnType::Timestamp, false),
        ])
    }

    fn finite(&self) -> bool {
        self.rows.is_some()
    }

    async fn open(&self, context: &Context, position: Option<&Position>) -> Result<Box<dyn Source>, ConnectorError> {
        // A clock before 1970 or after the year 294246 is broken; any time will do then.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since_epoch.as_micros()).unwrap_or(0);
        Ok(Box::new(RateSource::start(self, context.batch, position, now)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RateConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn the_example_and_the_defaults() {
        let example = RateConfig::EXAMPLE.replace("type = \"rate\"\n", "");
        assert_eq!(parse(&example).unwrap(), RateConfig { rows_per_second: Rate::PerSecond(1.0), rows: Some(1000) });
        assert_eq!(parse("").unwrap(), RateConfig { rows_per_second: Rate::PerSecond(1.0), rows: None });
        assert_eq!(parse("rows_per_second = 0.5").unwrap().rows_per_second, Rate::PerSecond(0.5));
        assert_eq!(parse("rows_per_second = \"max\"").unwrap().rows_per_second, Rate::Max);
        assert!(!parse("").unwrap().finite());
        assert!(parse("rows = 0").unwrap().finite());
    }

    #[test]
    fn wrong_values_are_named() {
        let mut messages = String::new();
        for text in ["rows_per_second = \"fast\"", "rows_per_second = true", "rows = -1", "row = 1"] {
            messages += &parse(text).unwrap_err().to_string();
        }
        insta::assert_snapshot!(messages);
        for text in ["0", "-1", "0.0", "inf", "nan"] {
            let error = parse(&format!("rows_per_second = {text}")).unwrap().check().unwrap_err();
            assert_eq!(error.key, "rows_per_second", "{error}");
        }
        let too_many = RateConfig { rows: Some(1 << 63), ..RateConfig::default() };
        assert_eq!(too_many.check().unwrap_err().key, "rows");
        assert!(parse("rows_per_second = 0.001\nrows = 9223372036854775807").unwrap().check().is_ok());
    }

    #[test]
    fn a_rate_survives_its_text() {
        for rate in [Rate::Max, Rate::PerSecond(0.1), Rate::PerSecond(1.0 / 3.0), Rate::PerSecond(1e300)] {
            assert_eq!(Rate::parse(&rate.to_string()), Some(rate));
        }
        assert_eq!(Rate::parse("nan"), None);
        assert_eq!(Rate::parse("-1"), None);
    }
}
