//! Keeps the rows whose number is even, negative ones too.

use acequia_plugin_sdk::{Bitmap, Error, Filter, Rows, Schema, export};
use serde::Deserialize;

/// `config = { column = "value" }`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvenFilter {
    column: String,
}

impl Default for EvenFilter {
    fn default() -> Self {
        EvenFilter { column: "value".to_string() }
    }
}

impl Filter for EvenFilter {
    type Config = EvenFilter;
    type Reads = i64;

    fn configure(config: EvenFilter, _: &Schema) -> Result<Self, Error> {
        Ok(config)
    }

    fn reads(&self) -> [String; 1] {
        [self.column.clone()]
    }

    fn keep(&mut self, _: &mut Rows, values: &[i64]) -> Bitmap {
        Bitmap::of(values, |value| value & 1 == 0)
    }
}

export!(EvenFilter as Filter);

#[cfg(test)]
mod tests {
    use acequia_plugin_sdk::{Passes, testing};

    use super::*;

    #[test]
    fn keeps_even_numbers() {
        let mut plugin = testing::filter::<EvenFilter>("{}", &testing::any_schema()).unwrap();
        let batch = testing::batch(9).int64("value", [0, 1, 2, -1, -2, i64::MIN, i64::MAX, 7, 8]);
        let output = plugin.apply(&batch).unwrap();
        assert_eq!(testing::rows_of(&output, 9), [0, 2, 4, 5, 8]);
        assert_eq!(plugin.plan().passes, Passes::Every);
    }

    #[test]
    fn the_column_is_a_choice() {
        let mut plugin = testing::filter::<EvenFilter>(r#"{ "column": "age" }"#, &testing::any_schema()).unwrap();
        let output = plugin.apply(&testing::batch(2).int64("value", [1, 1]).int64("age", [3, 4])).unwrap();
        assert_eq!(testing::rows_of(&output, 2), [1]);
    }

    #[test]
    fn a_key_that_is_wrong_is_named() {
        let error = testing::filter::<EvenFilter>(r#"{ "colum": "age" }"#, &testing::any_schema()).err().unwrap();
        assert_eq!(error.to_string(), "unknown key `colum`; did you mean `column`? (the keys are `column`)");
    }
}
