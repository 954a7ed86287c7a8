//! Rows as aligned columns.

use std::borrow::Cow;
use std::fmt::Write;

use acequia_connector_api::{ColumnType, column_type_of, format_timestamp};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use arrow_schema::Field;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The header comes again after so many rows, so that it is never far up.
const ROWS_A_HEADER: usize = 40;
/// A column is not made wider than this for one long value: the value sticks out instead, or is cut.
const WIDEST: usize = 50;

/// A table that grows downwards, batch by batch.
#[derive(Debug)]
pub(crate) struct Table {
    shorten: bool,
    columns: Vec<Column>,
    /// Rows since the header; `None` before the first one.
    rows: Option<usize>,
}

#[derive(Debug)]
struct Column {
    name: String,
    kind: Option<ColumnType>,
    title: Cell,
    width: usize,
}

/// What is shown, and how much room it takes.
#[derive(Debug)]
struct Cell {
    text: String,
    width: usize,
}

impl Table {
    /// `shorten`: cut values that are wider than a column gets.
    pub(crate) fn new(shorten: bool) -> Self {
        Table { shorten, columns: Vec::new(), rows: None }
    }

    /// These rows as text, each line with `prefix` before it. Columns only get wider, so that what follows stays aligned.
    pub(crate) fn render(&mut self, rows: &RecordBatch, prefix: &str) -> String {
        let mut out = String::new();
        self.adopt(rows, &mut out);
        let mut cells = Vec::with_capacity(self.columns.len());
        for (column, values) in self.columns.iter_mut().zip(rows.columns()) {
            let shown: Vec<Cell> = (0..rows.num_rows())
                .map(|row| Cell::new(show(values.as_ref(), column.kind, row), self.shorten))
                .collect();
            let widest = shown.iter().map(|cell| cell.width).max().unwrap_or(0);
            column.width = column.width.max(widest.min(WIDEST));
            cells.push(shown.into_iter());
        }
        for _ in 0..rows.num_rows() {
            let since = self.rows.filter(|rows| *rows < ROWS_A_HEADER).unwrap_or_else(|| {
                self.header(prefix, &mut out);
                0
            });
            self.rows = Some(since + 1);
            let line = cells.iter_mut().filter_map(Iterator::next).zip(&self.columns);
            put_line(prefix, line.map(|(cell, column)| (cell.text, cell.width, column)), &mut out);
        }
        out
    }

    /// Start anew if these rows have other columns.
    fn adopt(&mut self, rows: &RecordBatch, out: &mut String) {
        let schema = rows.schema_ref();
        let same = |(column, field): (&Column, &std::sync::Arc<Field>)| {
            column.name == *field.name() && column.kind == column_type_of(field)
        };
        let unchanged =
            self.columns.len() == schema.fields().len() && self.columns.iter().zip(schema.fields()).all(same);
        if unchanged {
            return;
        }
        self.columns = schema.fields().iter().map(|field| Column::new(field, self.shorten)).collect();
        if self.rows.take().is_some() {
            out.push('\n');
        }
    }

    fn header(&self, prefix: &str, out: &mut String) {
        if self.columns.is_empty() {
            return;
        }
        let titles = self.columns.iter().map(|column| (column.title.text.clone(), column.title.width, column));
        put_line(prefix, titles, out);
        let rules = self.columns.iter().map(|column| ("-".repeat(column.width), column.width, column));
        put_line(prefix, rules, out);
    }
}

impl Column {
    fn new(field: &Field, shorten: bool) -> Self {
        let kind = column_type_of(field);
        let title = Cell::new(escape(field.name()).into_owned(), shorten);
        // Room for what usually comes, so that the first rows don't stand in a narrower column than the next ones.
        let usual = match kind {
            Some(ColumnType::Boolean) => 5,
            Some(ColumnType::Int64) => 6,
            Some(ColumnType::Float64) => 8,
            Some(ColumnType::Timestamp) => 27,
            Some(ColumnType::Text | ColumnType::Binary | ColumnType::Json) | None => 0,
        };
        Column { name: field.name().clone(), kind, width: usual.max(title.width.min(WIDEST)), title }
    }

    fn is_number(&self) -> bool {
        matches!(self.kind, Some(ColumnType::Int64 | ColumnType::Float64))
    }
}

impl Cell {
    fn new(text: String, shorten: bool) -> Self {
        if shorten && let Some(cut) = cut(&text) {
            return Cell { width: cut.width(), text: cut };
        }
        Cell { width: text.width(), text }
    }
}

/// The beginning of a text that is wider than a column gets, or `None` if it is not.
fn cut(text: &str) -> Option<String> {
    let (mut width, mut end) = (0, 0);
    for (at, character) in text.char_indices() {
        width += character.width().unwrap_or(0);
        if width < WIDEST {
            end = at + character.len_utf8();
        } else if width > WIDEST {
            return Some(format!("{}…", text.get(..end)?));
        }
    }
    None
}

fn put_line<'a>(prefix: &str, cells: impl Iterator<Item = (String, usize, &'a Column)>, out: &mut String) {
    out.push_str(prefix);
    for (index, (text, width, column)) in cells.enumerate() {
        if index > 0 {
            out.push_str("  ");
        }
        let padding = column.width.saturating_sub(width);
        // Infallible: a String takes everything.
        let _ = if column.is_number() {
            write!(out, "{:padding$}{text}", "")
        } else {
            write!(out, "{text}{:padding$}", "")
        };
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

/// A value as people read it.
fn show(values: &dyn Array, kind: Option<ColumnType>, row: usize) -> String {
    if values.is_null(row) {
        return "null".to_owned();
    }
    let shown = match kind {
        Some(ColumnType::Boolean) => values.as_boolean_opt().map(|values| values.value(row).to_string()),
        Some(ColumnType::Int64) => values.as_primitive_opt::<Int64Type>().map(|values| values.value(row).to_string()),
        // `{:?}` is the shortest text that reads back as the same number, and has an exponent where that is shorter.
        Some(ColumnType::Float64) => {
            values.as_primitive_opt::<Float64Type>().map(|values| format!("{:?}", values.value(row)))
        }
        Some(ColumnType::Timestamp) => {
            values.as_primitive_opt::<TimestampMicrosecondType>().map(|values| format_timestamp(values.value(row)))
        }
        Some(ColumnType::Text | ColumnType::Json) => {
            values.as_string_opt::<i32>().map(|values| escape(values.value(row)).into_owned())
        }
        Some(ColumnType::Binary) => {
            values.as_binary_opt::<i32>().map(|values| values.value(row).escape_ascii().to_string())
        }
        None => None,
    };
    shown.unwrap_or_else(|| "?".to_owned())
}

/// Control characters as Rust writes them: a line break would tear the table apart, and an escape sequence in somebody's
/// data could do anything to the terminal.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use acequia_connector_api::{Field as Named, RowSchema};
    use arrow_array::{
        ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatchOptions, StringArray,
        TimestampMicrosecondArray,
    };

    fn all_types() -> RecordBatch {
        let fields = ColumnType::ALL.map(|kind| Named::new(kind.name(), kind, true));
        // Python: datetime.datetime(2020, 4, 13, 12, 9, 37, 768982, datetime.timezone.utc).timestamp() * 1e6
        let times = TimestampMicrosecondArray::from(vec![Some(1_586_779_777_768_982), None, Some(0)]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
            Arc::new(Int64Array::from(vec![Some(7), None, Some(i64::MIN)])),
            Arc::new(Float64Array::from(vec![Some(15.5), None, Some(1e300)])),
            Arc::new(times.with_timezone("UTC")),
            Arc::new(StringArray::from(vec![Some("Zoë"), None, Some("日本語")])),
            Arc::new(BinaryArray::from_opt_vec(vec![Some(b"15.5\x00\xff".as_slice()), None, Some(b"")])),
            Arc::new(StringArray::from(vec![Some(r#"{"a":[1,2]}"#), None, Some("3")])),
        ];
        RecordBatch::try_new(RowSchema::closed(fields.to_vec()).to_arrow(), columns).unwrap()
    }

    fn column(name: &str, values: Vec<&str>) -> RecordBatch {
        let values: ArrayRef = Arc::new(StringArray::from(values));
        RecordBatch::try_from_iter([(name, values)]).unwrap()
    }

    #[test]
    fn every_type_and_null() {
        insta::assert_snapshot!(Table::new(false).render(&all_types(), ""));
    }

    #[test]
    fn widths_stay_from_batch_to_batch_and_columns_may_change() {
        let mut table = Table::new(true);
        let mut text = String::new();
        for words in [vec!["a", "longer word"], vec!["b"], vec!["the longest word of them"], vec!["c"]] {
            let counts: ArrayRef = Arc::new(Int64Array::from_iter_values(words.iter().map(|word| word.len() as i64)));
            let words: ArrayRef = Arc::new(StringArray::from(words));
            text += &table.render(&RecordBatch::try_from_iter([("word", words), ("count", counts)]).unwrap(), "");
        }
        text += &table.render(&column("line", vec!["other columns"]), "");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_header_comes_again() {
        let mut table = Table::new(true);
        let mut lines = 0;
        // 100 rows in batches of 1 and of 33: a header, two lines of it, before rows 0, 40 and 80.
        for size in [1, 33, 33, 33] {
            let text = table.render(&column("value", vec!["x"; size]), "");
            lines += text.lines().count();
        }
        assert_eq!(lines, 100 + 3 * 2);
        let text = table.render(&column("value", vec!["x"; 21]), "");
        assert_eq!(text.lines().position(|line| line == "value"), Some(20));
    }

    #[test]
    fn long_values_are_cut_on_a_terminal_only() {
        let long = "word ".repeat(20_000);
        let wide = "語".repeat(40);
        let exact = "x".repeat(WIDEST);
        let batch = column("text", vec![&long, &wide, &exact, "short"]);
        let cut = Table::new(true).render(&batch, "");
        insta::assert_snapshot!(cut);
        let whole = Table::new(false).render(&batch, "");
        assert!(whole.contains(long.trim_end()) && whole.contains(&wide));
        // The long value has not made the column wide: neither the rule nor the next rows are.
        assert_eq!(whole.lines().nth(1).map(str::len), Some(WIDEST));
    }

    #[test]
    fn control_characters_can_do_no_harm() {
        let batch =
            column("te\nxt", vec!["two\nlines", "\u{1b}[2J\u{1b}]0;title\u{7}", "tab\there", "nul\0", "\u{9b}31m"]);
        insta::assert_snapshot!(Table::new(true).render(&batch, ""));
    }

    #[test]
    fn rows_without_columns_are_lines_too() {
        let options = RecordBatchOptions::new().with_row_count(Some(2));
        let schema = RowSchema::closed(Vec::new()).to_arrow();
        let batch = RecordBatch::try_new_with_options(schema, Vec::new(), &options).unwrap();
        assert_eq!(Table::new(true).render(&batch, "p | "), "p |\np |\n");
    }
}
