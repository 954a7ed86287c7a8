//! Adds a triangle wave of a number: from `-amplitude / 2` up to `amplitude / 2` at half its length, and down again.

use acequia_plugin_sdk::{Error, Map, Rows, Schema, export};
use serde::Deserialize;

/// `config = { column = "value", output = "tr", length = 30, amplitude = 10, phase = 0 }`
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TriangleWave {
    column: String,
    output: String,
    length: f64,
    amplitude: f64,
    phase: f64,
}

impl Default for TriangleWave {
    fn default() -> Self {
        let (column, output) = ("value".to_string(), "tr".to_string());
        TriangleWave { column, output, length: 30.0, amplitude: 10.0, phase: 0.0 }
    }
}

impl Map for TriangleWave {
    type Config = TriangleWave;
    type Reads = f64;
    type Adds = f64;

    fn configure(config: TriangleWave, _: &Schema) -> Result<Self, Error> {
        if config.length > 0.0 { Ok(config) } else { Err("`length` must be above 0".into()) }
    }

    fn reads(&self) -> [String; 1] {
        [self.column.clone()]
    }

    fn adds(&self) -> [String; 1] {
        [self.output.clone()]
    }

    fn map(&mut self, _: &mut Rows, values: &[f64]) -> Vec<f64> {
        values.iter().map(|value| self.at(*value)).collect()
    }
}

impl TriangleWave {
    /// Term by term as the formula has it, so that the last bit is the same too.
    fn at(&self, x: f64) -> f64 {
        let (length, amplitude, half) = (self.length, self.amplitude, self.length / 2.0);
        let alpha = amplitude / half;
        let place = modulo(x - self.phase, length);
        let rise = alpha * modulo(x - self.phase, half);
        -amplitude / 2.0
            + amplitude * one_if(place == half)
            + rise * one_if(place <= half)
            + (amplitude - rise) * one_if(place > half)
    }
}

fn one_if(condition: bool) -> f64 {
    f64::from(u8::from(condition))
}

/// Python's `%`: it has the sign of the divisor, where Rust's has that of the dividend.
fn modulo(dividend: f64, divisor: f64) -> f64 {
    let rest = dividend % divisor;
    if rest == 0.0 {
        0.0_f64.copysign(divisor)
    } else if (rest < 0.0) != (divisor < 0.0) {
        rest + divisor
    } else {
        rest
    }
}

export!(TriangleWave as Map);

#[cfg(test)]
mod tests {
    use acequia_plugin_sdk::testing;

    use super::*;

    /// Bit for bit: nothing in the formula depends on a library.
    #[track_caller]
    fn check(config: &str, numbers: &[f64], expected: &[f64]) {
        let mut plugin = testing::map::<TriangleWave>(config, &testing::any_schema()).unwrap();
        let batch = testing::batch(numbers.len() as u32).float64("value", numbers.iter().copied());
        let output = plugin.apply(&batch).unwrap();
        assert_eq!(output.columns[0].name, "tr");
        assert_eq!(output.columns[0].float64s(), expected);
    }

    // The expected values are what Python prints for the course's formula:
    // alpha = amplitude/(length/2)
    // -amplitude/2 + amplitude*((x-phase)%length == length/2) + alpha*((x-phase)%(length/2))*((x-phase)%length <= length/2)
    // + (amplitude - alpha*((x-phase)%(length/2)))*((x-phase)%length > length/2)

    #[test]
    fn the_triangle_of_the_course() {
        let numbers: Vec<f64> = (0..=30).map(f64::from).collect();
        #[rustfmt::skip]
        let expected = [
            -5.0, -4.333333333333333, -3.666666666666667, -3.0, -2.3333333333333335, -1.666666666666667, -1.0,
            -0.3333333333333339, 0.33333333333333304, 1.0, 1.666666666666666, 2.333333333333333, 3.0, 3.666666666666666,
            4.333333333333332, 5.0, 4.333333333333334, 3.666666666666666, 3.0, 2.333333333333334, 1.666666666666667, 1.0,
            0.3333333333333339, -0.33333333333333304, -1.0, -1.666666666666666, -2.333333333333333, -3.0,
            -3.666666666666666, -4.333333333333332, -5.0,
        ];
        check("{}", &numbers, &expected);
    }

    #[test]
    fn negative_fractional_and_large_numbers() {
        let numbers = [-1.0, -15.0, -16.0, -30.0, 7.5, 22.25, 1e9 + 7.0, -0.0];
        let expected =
            [-4.333333333333332, 5.0, 4.333333333333332, -5.0, 0.0, 0.16666666666666696, 3.666666666666666, -5.0];
        check("{}", &numbers, &expected);
    }

    #[test]
    fn every_key_counts() {
        let numbers = [0.0, 0.5, 1.0, 3.0, 4.0, 4.0000001, 5.5, 7.5, -2.25, 100.1];
        #[rustfmt::skip]
        let expected = [
            -1.0714285714285712, -1.5, -1.0714285714285714, 0.6428571428571428, 1.5, 1.499999914285714,
            0.2142857142857144, -1.5, 0.8571428571428572, -0.12857142857143344,
        ];
        check(r#"{ "length": 7, "amplitude": 3, "phase": 0.5 }"#, &numbers, &expected);
        let numbers = [0.1, 0.15, 0.2, 0.30000000000000004, -0.1];
        let expected = [0.16666666666666674, 0.5, 0.16666666666666652, -0.4999999999999996, 0.16666666666666674];
        check(r#"{ "length": 0.3, "amplitude": 1 }"#, &numbers, &expected);
    }

    #[test]
    fn a_length_must_be_positive() {
        for config in [r#"{ "length": 0 }"#, r#"{ "length": -30 }"#] {
            let error = testing::map::<TriangleWave>(config, &testing::any_schema()).err().unwrap();
            assert_eq!(error.to_string(), "`length` must be above 0");
        }
    }
}
