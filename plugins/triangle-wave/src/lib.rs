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

/// Python's `%` for a divisor above 0: the rest is never negative, where that of Rust's has the sign of the dividend.
fn modulo(dividend: f64, divisor: f64) -> f64 {
    let quotient = dividend / divisor;
    let rest = if quotient.abs() < SMALL && is_short(divisor) {
        // No more than half the divisor away from it, and exact: so is the product of a small number and a short one, and
        // so is the difference of two numbers that are so close.
        dividend - to_integer(quotient) * divisor
    } else {
        slow_rest(dividend, divisor)
    };
    // The second addition makes a negative zero a positive one.
    if rest < 0.0 { rest + divisor } else { rest + 0.0 }
}

/// Takes ten times as long as all else here. Apart, because the compiler would otherwise do it for every row, and then not use it.
#[cold]
#[inline(never)]
fn slow_rest(dividend: f64, divisor: f64) -> f64 {
    dividend % divisor
}

/// Numbers below it have so few digits that a multiple of a short one, so many times it, is exact.
const SMALL: f64 = (1_u64 << 26) as f64;

/// The lower half of its digits is zero, as it is for every whole number up to 134 million, and for its halves and quarters.
fn is_short(number: f64) -> bool {
    number.to_bits() << 38 == 0
}

/// The integer that is nearest to a small number. Adding 1.5 * 2^52 leaves no room for digits behind the point.
fn to_integer(number: f64) -> f64 {
    const POINT: f64 = 6_755_399_441_055_744.0;
    number + POINT - POINT
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
    fn the_rest_is_that_of_python_to_the_last_bit() {
        // As CPython computes it (Objects/floatobject.c, float_rem), for a divisor above 0.
        let python = |dividend: f64, divisor: f64| {
            let rest = dividend % divisor;
            if rest == 0.0 {
                0.0
            } else if rest < 0.0 {
                rest + divisor
            } else {
                rest
            }
        };
        let mut state = 1_u64;
        // Knuth's MMIX: Donald Knuth, The Art of Computer Programming, volume 2, 3.3.4.
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 20
        };
        for divisor in
            [30.0, 15.0, 7.0, 3.5, 1.0, 0.3, 0.15, 0.1, 1e-3, 134_217_727.0, 134_217_729.0, 1e17, 1e300, 1e-310]
        {
            let check = |dividend: f64| {
                for dividend in [dividend, -dividend] {
                    let (is, expected) = (modulo(dividend, divisor), python(dividend, divisor));
                    assert_eq!(
                        is.to_bits(),
                        expected.to_bits(),
                        "{dividend:e} % {divisor:e} is {is:e}, not {expected:e}"
                    );
                }
            };
            [0.0, 1e-320, 1e-20, 1e18, 1e308, f64::MAX].into_iter().for_each(check);
            for round in 0..20_000 {
                // Near a multiple of half the divisor, where the quotient's rounding matters; and anywhere.
                let near = ((random() % (1 << (1 + round % 30))) as f64 / 2.0) * divisor;
                [near, near.next_up(), near.next_down(), near.next_up().next_up()].into_iter().for_each(check);
                check(random() as f64 * divisor / (1_u64 << (round % 44)) as f64);
                check((random() % 1_000_000) as f64);
            }
        }
        assert!(modulo(f64::INFINITY, 30.0).is_nan() && modulo(f64::NAN, 30.0).is_nan());
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
