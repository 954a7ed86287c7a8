//! The way in for the fuzz targets, and no part of the interface: an answer to batches, a batch to lines.

use acequia_connector_api::{Batch, ByteSize, ConnectorError, FailedRow};
use acequia_format::SchemaConfig;

use crate::InfluxSink;
use crate::chunk::Builder;
use crate::encode::Encoder;
use crate::table::{Records, Tables};

/// The batches of an answer that came in these pieces.
///
/// # Errors
/// As the source has them.
pub fn read(pieces: &[&[u8]], schema: Option<SchemaConfig>, rows: usize) -> Result<Vec<Batch>, String> {
    let mut records = Records::new();
    let mut tables = Tables::new(schema, "p".into(), rows, ByteSize(1 << 20));
    let mut batches = Vec::new();
    for piece in pieces {
        let mut piece = *piece;
        while let Some(record) = records.next(&mut piece) {
            batches.extend(tables.push(record, 0)?);
        }
    }
    if let Some(record) = records.finish() {
        batches.extend(tables.push(record, 0)?);
    }
    batches.extend(tables.finish());
    Ok(batches)
}

/// The lines of a batch, and the rows that no line can hold.
///
/// # Errors
/// As the sink has them.
pub fn lines(config: &InfluxSink, batch: &Batch) -> Result<(Vec<u8>, Vec<FailedRow>), ConnectorError> {
    let mut encoder = Encoder::new(config, Vec::new())?;
    let mut builder = Builder::default();
    let failed = encoder.encode(batch, &mut builder, |_| {})?;
    Ok((builder.body, failed))
}
