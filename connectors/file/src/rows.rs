//! Rows to bytes, with what a file needs beyond the shared converter: a CSV header only where a file begins, and the
//! columns of a file that was begun before.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use acequia_connector_api::{Batch, ConnectorError, FailedRow};
use acequia_format::{CsvOptions, Encoder, Format};

/// A header longer than this is none.
const MAX_HEADER: u64 = 1 << 20;

pub(crate) struct RowWriter {
    format: Format,
    csv: CsvOptions,
    encoder: Encoder,
}

impl RowWriter {
    /// `columns` are those of a CSV file that was begun before.
    pub(crate) fn new(format: Format, csv: &CsvOptions, value: Option<&str>, columns: Option<Vec<String>>) -> Self {
        let mut encoder = Encoder::new(format, csv, value);
        if columns.is_some() {
            encoder.set_header(columns);
        }
        RowWriter { format, csv: csv.clone(), encoder }
    }

    /// The columns of the CSV file, once they are known.
    pub(crate) fn columns(&self) -> Option<Vec<String>> {
        self.encoder.header().map(<[String]>::to_vec)
    }

    /// Append the batch's rows to `out`, after a header if the file begins here. Returns the rows that can't be written.
    pub(crate) fn encode(
        &mut self,
        batch: &Batch,
        begins: bool,
        out: &mut Vec<u8>,
    ) -> Result<Vec<FailedRow>, ConnectorError> {
        if begins {
            // Also after a first write that failed: the header that it made never reached the file.
            self.encoder.set_header(None);
        }
        match self.encoder.encode(&batch.rows, out) {
            Ok(failed) => Ok(failed.into_iter().map(|(row, error)| batch.fail(row, error)).collect()),
            // No row of this batch can be written: the next one may be of another kind.
            Err(error) => {
                let error = error.to_string();
                Ok((0..batch.len()).map(|row| batch.fail(row, error.clone())).collect())
            }
        }
    }

    /// The CSV header of the columns that are known; empty for other formats.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut header = Vec::new();
        if let (Format::Csv, true, Some(columns)) = (self.format, self.csv.header, self.encoder.header()) {
            let delimiter = u8::try_from(self.csv.delimiter).unwrap_or(b',');
            let quote = u8::try_from(self.csv.quote).unwrap_or(b'"');
            let mut writer = csv::WriterBuilder::new().delimiter(delimiter).quote(quote).from_writer(&mut header);
            if let Err(error) = writer.write_record(columns).and_then(|()| Ok(writer.flush()?)) {
                tracing::debug!(%error, "a header could not be made");
            }
        }
        header
    }

    /// Take the columns from the header of a CSV file of that length that was begun before, by whomever.
    pub(crate) fn learn_columns(&mut self, file: &File, length: u64) -> io::Result<()> {
        if self.format != Format::Csv || !self.csv.header || length == 0 {
            return Ok(());
        }
        let mut reader = file;
        reader.seek(SeekFrom::Start(0))?;
        let delimiter = u8::try_from(self.csv.delimiter).unwrap_or(b',');
        let quote = u8::try_from(self.csv.quote).unwrap_or(b'"');
        let mut records = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .quote(quote)
            .from_reader(reader.take(MAX_HEADER.min(length)));
        let mut record = csv::StringRecord::new();
        if records.read_record(&mut record).map_err(io::Error::other)? {
            let mut columns: Vec<String> = record.iter().map(str::to_owned).collect();
            if let Some(first) = columns.first_mut()
                && let Some(rest) = first.strip_prefix('\u{feff}')
            {
                *first = rest.to_owned();
            }
            self.encoder.set_header(Some(columns));
        }
        Ok(())
    }
}
