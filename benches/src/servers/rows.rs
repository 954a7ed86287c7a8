//! The rows that are moved: a thing that measures, as JSON of about 108 bytes and as line protocol.

/// Microseconds since the epoch of the first row; each next one is one later, so that each is a point of its own.
const BEGIN: u64 = 1_767_225_600_000_000;

/// One row.
pub(super) struct Row {
    pub(super) value: u64,
    pub(super) sensor: String,
    /// Microseconds since the epoch.
    pub(super) time: u64,
    pub(super) temperature: f64,
    pub(super) active: bool,
}

/// Row `value`.
pub(super) fn row(value: u64) -> Row {
    Row {
        value,
        sensor: format!("sensor-{:04}", value % 100),
        time: BEGIN + value,
        temperature: (value % 4000) as f64 / 100.0,
        active: value.is_multiple_of(3),
    }
}

impl Row {
    /// As a message.
    pub(super) fn to_json(&self) -> String {
        let Row { value, sensor, time, temperature, active } = self;
        let (seconds, micros) = ((time - BEGIN) / 1_000_000, time % 1_000_000);
        let (minute, second) = (seconds / 60, seconds % 60);
        format!(
            r#"{{"value":{value},"sensor":"{sensor}","time":"2026-01-01T00:{minute:02}:{second:02}.{micros:06}Z","temperature":{temperature:.2},"active":{active}}}"#
        )
    }

    /// As a point, with a line break.
    pub(super) fn to_line(&self, measurement: &str) -> String {
        let Row { value, sensor, time, temperature, active } = self;
        format!("{measurement},sensor={sensor} value={value}i,temperature={temperature},active={active} {time}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_as_long_as_it_is_said_to_be() {
        let json = row(1_000_001).to_json();
        assert_eq!(json.len(), 111, "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["time"], "2026-01-01T00:00:01.000001Z");
        assert_eq!(
            row(7).to_line("m"),
            "m,sensor=sensor-0007 value=7i,temperature=0.07,active=false 1767225600000007\n"
        );
    }
}
