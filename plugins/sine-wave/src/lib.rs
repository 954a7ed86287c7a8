//! Adds the column `amplitude * sin(step * value)`.

use acequia_plugin_sdk::{Error, Map, Rows, Schema, export};
use serde::Deserialize;

/// `config = { column = "value", output = "sin", amplitude = 50, step = 0.1 }`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SineWave {
    column: String,
    output: String,
    amplitude: f64,
    /// Radians for each unit of the column.
    step: f64,
}

impl Default for SineWave {
    fn default() -> Self {
        SineWave { column: "value".to_string(), output: "sin".to_string(), amplitude: 50.0, step: 0.1 }
    }
}

impl Map for SineWave {
    type Config = SineWave;
    type Reads = f64;
    type Adds = f64;

    fn configure(config: SineWave, _: &Schema) -> Result<Self, Error> {
        Ok(config)
    }

    fn reads(&self) -> [String; 1] {
        [self.column.clone()]
    }

    fn adds(&self) -> [String; 1] {
        [self.output.clone()]
    }

    fn map(&mut self, _: &mut Rows, values: &[f64]) -> Vec<f64> {
        values.iter().map(|value| self.amplitude * (self.step * value).sin()).collect()
    }
}

export!(SineWave as Map);

#[cfg(test)]
mod tests {
    use acequia_plugin_sdk::testing;

    use super::*;

    /// Equal but for the last bits: the sine of one mathematical library is not that of another.
    #[track_caller]
    fn near(is: &[f64], expected: &[f64]) {
        assert_eq!(is.len(), expected.len());
        for (is, expected) in is.iter().zip(expected) {
            assert!((is - expected).abs() <= 1e-15 * expected.abs(), "{is} is not {expected}");
        }
    }

    #[test]
    fn the_sine_of_the_course() {
        // Python: [50*math.sin(0.1*n) for n in (0, 1, 2, 15, 16, 31, -7, 1000, 123456789)]
        let numbers = [0.0, 1.0, 2.0, 15.0, 16.0, 31.0, -7.0, 1000.0, 123456789.0];
        let expected = [
            0.0,
            4.991670832341407,
            9.933466539753061,
            49.874749330202725,
            49.978680152075256,
            2.0790331216645246,
            -32.21088436188456,
            -25.31828205548794,
            -44.865340624062995,
        ];
        let mut plugin = testing::map::<SineWave>("{}", &testing::any_schema()).unwrap();
        let output = plugin.apply(&testing::batch(9).float64("value", numbers)).unwrap();
        assert_eq!(output.columns[0].name, "sin");
        near(output.columns[0].float64s(), &expected);
    }

    #[test]
    fn every_key_counts() {
        let config = r#"{ "column": "n", "output": "wave", "amplitude": 2.5, "step": 0.5 }"#;
        let mut plugin = testing::map::<SineWave>(config, &testing::any_schema()).unwrap();
        let output = plugin.apply(&testing::batch(2).float64("n", [0.25, -3.0])).unwrap();
        assert_eq!(output.columns[0].name, "wave");
        // Python: [2.5*math.sin(0.5*n) for n in (0.25, -3)]
        near(output.columns[0].float64s(), &[0.31168683346306925, -2.493737466510136]);
    }
}
