//! CSV records to rows.

use std::collections::HashMap;
use std::sync::Arc;

use acequia_connector_api::ColumnType;

use super::MAX_COLUMNS;
use super::columns::Columns;
use crate::CsvOptions;
use crate::column::Scalar;
use crate::csv::Quoting;

#[derive(Debug)]
pub(super) struct CsvRows {
    quoting: Quoting,
    /// Whether the first record is a header. If not, it says how many columns there are.
    has_header: bool,
    header: Header,
    /// The record that `header` was read from, if it is known from one.
    record: Vec<u8>,
    /// Why the headers of these partitions can't be used.
    broken: HashMap<Arc<str>, String>,
    /// For fields with quotes inside.
    scratch: String,
}

#[derive(Debug)]
enum Header {
    Missing,
    /// The names, and the column that each field goes to.
    Known(Vec<String>, Vec<Option<usize>>),
    Broken(String),
}

impl CsvRows {
    pub(super) fn new(options: &CsvOptions) -> Self {
        CsvRows {
            quoting: Quoting::new(options),
            has_header: options.header,
            header: Header::Missing,
            record: Vec::new(),
            broken: HashMap::new(),
            scratch: String::new(),
        }
    }

    pub(super) fn names(&self) -> Option<&[String]> {
        match &self.header {
            Header::Known(names, _) => Some(names),
            Header::Missing | Header::Broken(_) => None,
        }
    }

    pub(super) fn break_header(&mut self, error: &str, partition: Option<&Arc<str>>) {
        let error = format!("the CSV header can't be used: {error}");
        if let Some(partition) = partition {
            // Connections come and go. To forget a broken header costs no more than to report it once again.
            if self.broken.len() >= MAX_COLUMNS {
                self.broken.clear();
            }
            self.broken.insert(partition.clone(), error.clone());
        }
        self.header = Header::Broken(error);
    }

    /// A partition begins anew, with another header.
    pub(super) fn begin(&mut self, partition: &Arc<str>) {
        self.broken.remove(partition);
    }

    /// Whether the header of this partition is known to be broken. If so, it is the header from now on.
    pub(super) fn is_broken(&mut self, partition: &Arc<str>) -> bool {
        let Some(error) = self.broken.get(partition) else { return false };
        self.header = Header::Broken(error.clone());
        true
    }

    pub(super) fn set_header(&mut self, record: &[u8], columns: &mut Columns, rows: usize) -> Result<(), String> {
        // At every turn of a file that takes turns with others.
        if self.record == record && matches!(self.header, Header::Known(_, _)) {
            return Ok(());
        }
        let text = str::from_utf8(record).map_err(|_| "the CSV header is not valid UTF-8")?;
        let mut names = Vec::new();
        self.quoting.fields(text, &mut self.scratch, |index, field, _| {
            names.push(if field.is_empty() { format!("_c{index}") } else { field.to_owned() });
        });
        self.set_names(names, columns, rows)?;
        self.record = record.to_vec();
        Ok(())
    }

    pub(super) fn set_names(&mut self, names: Vec<String>, columns: &mut Columns, rows: usize) -> Result<(), String> {
        for (index, name) in names.iter().enumerate() {
            if names.iter().take(index).any(|other| other == name) {
                return Err(format!("two CSV columns have the name `{name}`: rename one"));
            }
        }
        if columns.declared {
            let missing = columns.types().into_iter().find(|(name, _)| !names.contains(name));
            if let Some((missing, _)) = missing {
                let names = names.join("`, `");
                return Err(format!("the declared column `{missing}` is not among the CSV columns `{names}`"));
            }
        }
        let new = names.iter().filter(|name| columns.find(name).is_none()).count();
        if !columns.declared && columns.len() + new > MAX_COLUMNS {
            return Err(format!("more than {MAX_COLUMNS} CSV columns: declare those that are needed in `schema`"));
        }
        let targets = names
            .iter()
            .map(|name| match columns.find(name) {
                None if !columns.declared => Some(columns.add(name, ColumnType::Text, rows)),
                found => found,
            })
            .collect();
        self.header = Header::Known(names, targets);
        self.record.clear();
        Ok(())
    }

    /// Append a row. After an error some columns may be one value longer than others.
    pub(super) fn decode(&mut self, record: &str, columns: &mut Columns, rows: usize) -> Result<(), String> {
        if let Header::Missing = self.header
            && !self.has_header
        {
            let mut count = 0;
            self.quoting.fields(record, &mut self.scratch, |_, _, _| count += 1);
            let names = (0..count).map(|index| format!("_c{index}")).collect();
            self.set_names(names, columns, rows)?;
        }
        let targets = match &self.header {
            Header::Known(_, targets) => targets,
            Header::Missing => return Err("the CSV header has not been read".to_owned()),
            Header::Broken(error) => return Err(error.clone()),
        };
        let mut count = 0;
        let mut result = Ok(());
        self.quoting.fields(record, &mut self.scratch, |index, field, quoted| {
            count += 1;
            let Some(Some(target)) = targets.get(index) else { return };
            if result.is_ok() {
                let is_text = || matches!(columns.kind(*target), Some(ColumnType::Text | ColumnType::Binary));
                let null = field.is_empty() && !(quoted && is_text());
                result = columns.push(*target, if null { Scalar::Null } else { Scalar::Text(field) });
            }
        });
        match targets.len() {
            expected if expected != count => Err(format!("expected {expected} fields, found {count}")),
            _ => result,
        }
    }
}
