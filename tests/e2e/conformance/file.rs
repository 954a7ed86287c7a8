//! The `file` source.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use acequia_tests::conformance::{Place, SourceWorld, text_of};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How rows lie in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Lines,
    Array,
    Csv,
    Text,
    Parquet,
}

pub struct Files {
    folder: TempDir,
    form: Form,
    files: u64,
    follow: bool,
}

impl Files {
    pub fn new(form: Form) -> Self {
        Files { folder: tempfile::tempdir().unwrap(), form, files: 1, follow: false }
    }

    /// The rows by turns in so many files, read by a pattern.
    pub fn several(mut self, files: u64) -> Self {
        self.files = files;
        self
    }

    pub fn followed(mut self) -> Self {
        self.follow = true;
        // A pattern may match nothing yet; a single file must be there.
        File::create(self.path(0)).unwrap();
        self
    }

    fn path(&self, file: u64) -> PathBuf {
        self.folder.path().join(format!("in{file}"))
    }

    /// One row of the form, with its line break.
    fn line(&self, number: u64, more: usize) -> Vec<u8> {
        let (text, broken) = (text_of(number, more), self.broken(number));
        let line = match self.form {
            Form::Lines | Form::Array if broken => format!(r#"{{"n":{number},"text":}}"#),
            Form::Lines | Form::Array => json!({ "n": number, "text": text }).to_string(),
            Form::Csv if broken => format!("{number},{text},a third field"),
            Form::Csv => format!("{number},\"{text}\""),
            Form::Text if broken => return [text.as_bytes(), b"\xff\n"].concat(),
            Form::Text => text,
            Form::Parquet => unreachable!("has no lines"),
        };
        format!("{line}\n").into_bytes()
    }

    fn write_parquet(&self, numbers: Range<u64>, more: usize) {
        let number = |n: u64| if self.broken(n) { format!("{n} is no number") } else { n.to_string() };
        let n: ArrayRef = Arc::new(StringArray::from_iter_values(numbers.clone().map(number)));
        let text: ArrayRef = Arc::new(StringArray::from_iter_values(numbers.map(|n| text_of(n, more))));
        let rows = RecordBatch::try_from_iter([("n", n), ("text", text)]).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(self.path(0)).unwrap(), rows.schema(), None).unwrap();
        for start in (0..rows.num_rows()).step_by(10_000) {
            writer.write(&rows.slice(start, 10_000.min(rows.num_rows() - start))).unwrap();
            writer.flush().unwrap();
        }
        writer.close().unwrap();
    }
}

impl SourceWorld for Files {
    fn config(&self) -> toml::Table {
        let pattern = self.folder.path().join(if self.files > 1 { "in*" } else { "in0" });
        let (format, schema) = match self.form {
            Form::Lines | Form::Array => ("json", ""),
            Form::Csv => ("csv", "schema = { n = 'int64', text = 'text' }"),
            Form::Text => ("text", ""),
            Form::Parquet => ("parquet", "schema = { n = 'int64', text = 'text' }"),
        };
        let (path, follow) = (pattern.display(), self.follow);
        let text = format!("type = 'file'\npath = '{path}'\nformat = '{format}'\nfollow = {follow}\n{schema}");
        let mut table: toml::Table = toml::from_str(&text).unwrap();
        if follow {
            table.insert("poll".into(), "5ms".into());
        }
        table
    }

    fn prepare(&mut self, numbers: Range<u64>, more: usize) {
        if self.form == Form::Parquet {
            return self.write_parquet(numbers, more);
        }
        let mut files: Vec<Vec<u8>> = (0..self.files).map(|_| Vec::new()).collect();
        let header: &[u8] = match self.form {
            Form::Csv => b"n,text\n",
            Form::Array => b"[\n",
            _ => b"",
        };
        if numbers.start == 0 {
            files.iter_mut().for_each(|file| file.extend_from_slice(header));
        }
        for number in numbers.clone() {
            let line = self.line(number, more);
            let file = &mut files[(number % self.files) as usize];
            if self.form == Form::Array && number > numbers.start {
                file.pop();
                file.extend_from_slice(b",\n");
            }
            file.extend_from_slice(&line);
        }
        for (number, bytes) in files.iter_mut().enumerate() {
            if self.form == Form::Array {
                bytes.extend_from_slice(b"]\n");
            }
            let mut file = OpenOptions::new().create(true).append(true).open(self.path(number as u64)).unwrap();
            file.write_all(bytes).unwrap();
        }
    }

    fn number(&self, row: &Value, more: usize) -> u64 {
        let number = match self.form {
            Form::Text => row["value"].as_str().and_then(|text| text.split(' ').next()).and_then(|n| n.parse().ok()),
            _ => row["n"].as_u64(),
        };
        let number = number.unwrap_or_else(|| panic!("no number in {row}"));
        match self.form {
            Form::Text => assert_eq!(*row, json!({ "value": text_of(number, more) })),
            _ => assert_eq!(*row, json!({ "n": number, "text": text_of(number, more) })),
        }
        number
    }

    /// Lines are counted from 1. Before the first row there may be a header, or a bracket.
    fn place(&self, number: u64) -> Option<Place> {
        let before = match self.form {
            Form::Csv | Form::Array => 2,
            _ => 1,
        };
        let offset = i64::try_from(number / self.files).unwrap() + before;
        Some(Place { partition: Some(self.path(number % self.files).display().to_string()), offset })
    }

    fn broken(&self, number: u64) -> bool {
        number % 11 == 4
    }
}
