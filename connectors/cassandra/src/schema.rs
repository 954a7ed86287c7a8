//! The statements that create a keyspace and a table, and those that write a row.

use std::collections::BTreeMap;

use acequia_connector_api::Field;
use scylla::cluster::metadata::{ColumnKind, Table};
use scylla::frame::response::result::{ColumnType as CqlType, NativeType};

use crate::config::{CassandraSink, ReplicationValue};
use crate::types::{created_type, quoted};

/// `CREATE KEYSPACE`, if it is not there.
pub(crate) fn create_keyspace(keyspace: &str, replication: &BTreeMap<String, ReplicationValue>) -> String {
    let options = replication.iter().map(|(name, value)| {
        let value = match value {
            ReplicationValue::Number(number) => number.to_string(),
            ReplicationValue::Text(text) => literal(text),
        };
        format!("{}: {value}", literal(name))
    });
    let options = options.collect::<Vec<_>>().join(", ");
    format!("CREATE KEYSPACE IF NOT EXISTS {} WITH replication = {{{options}}}", quoted(keyspace))
}

/// `CREATE TABLE`, if it is not there, for rows with these columns.
///
/// # Errors
/// If a column of the key is none of the row's.
pub(crate) fn create_table(config: &CassandraSink, row: &[Field]) -> Result<String, String> {
    let (partition, clustering) = config.key().unwrap_or_default();
    let mut columns: Vec<(&str, &str)> = Vec::new();
    for (column, source) in &config.columns {
        let field = row.iter().find(|field| field.name == *source);
        let field = field.ok_or_else(|| {
            format!("column `{column}` can't be created: the rows have no column `{source}` ({})", names(row))
        })?;
        columns.push((column, created_type(field.kind)));
    }
    for field in row {
        let of_the_write = config.timestamp.as_deref() == Some(&field.name)
            || config.ttl.as_ref().is_some_and(|ttl| ttl.resolve() == Ok(Err(&field.name)));
        if !of_the_write && !config.columns.contains_key(&field.name) {
            columns.push((&field.name, created_type(field.kind)));
        }
    }
    for name in partition.iter().chain(&clustering) {
        if !columns.iter().any(|(column, _)| column == name) {
            return Err(format!(
                "the key column `{name}` can't be created: the rows have no column `{name}` ({}); name the row's column \
                 with `columns = {{ {name} = \"...\" }}`",
                names(row)
            ));
        }
    }
    let list = |names: &[&str]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let columns = columns.iter().map(|(name, kind)| format!("{} {kind}, ", quoted(name))).collect::<String>();
    let key = match clustering.is_empty() {
        true => format!("({})", list(&partition)),
        false => format!("({}), {}", list(&partition), list(&clustering)),
    };
    let table = format!("{}.{}", quoted(&config.keyspace), quoted(&config.table));
    Ok(format!("CREATE TABLE IF NOT EXISTS {table} ({columns}PRIMARY KEY ({key}))"))
}

fn names(row: &[Field]) -> String {
    let names = row.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ");
    if names.is_empty() { "they have none at all".to_owned() } else { format!("they have: {names}") }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// How a row is written, and from what.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) text: String,
    /// The values in their order: a column of the table and the place of the row's column that fills it.
    pub(crate) values: Vec<(String, usize)>,
    /// A last value, in seconds: the place of its column.
    pub(crate) ttl: Option<usize>,
    /// The place of the column that says when the row was written.
    pub(crate) timestamp: Option<usize>,
    /// Whether it adds to counters: not to be sent twice if that can be helped.
    pub(crate) counter: bool,
}

/// The statement that writes rows with these columns into that table.
///
/// # Errors
/// If a column of the key gets no value.
pub(crate) fn write_statement(config: &CassandraSink, table: &Table, row: &[Field]) -> Result<Statement, String> {
    let place = |name: &str| row.iter().position(|field| field.name == name);
    let source = |column: &str| config.columns.get(column).map_or(column, String::as_str).to_owned();
    let needed = |key: &str, name: &str| {
        place(name).ok_or_else(|| format!("`{key}` names the column `{name}`, but the rows have none ({})", names(row)))
    };
    let timestamp = config.timestamp.as_deref().map(|name| needed("timestamp", name)).transpose()?;
    let ttl = config.ttl.as_ref().map(|ttl| ttl.resolve()).transpose()?;
    let fixed_ttl = ttl.and_then(Result::ok);
    let ttl = ttl.and_then(Result::err).map(|name| needed("ttl", name)).transpose()?;

    let mut keys = Vec::new();
    for column in table.partition_key.iter().chain(&table.clustering_key) {
        let source = source(column);
        let place = place(&source).ok_or_else(|| {
            format!(
                "the table's key column `{column}` gets no value: the rows have no column `{source}` ({}); name the \
                 row's column with `columns = {{ {column} = \"...\" }}`",
                names(row)
            )
        })?;
        keys.push((column.clone(), place));
    }
    // The driver keeps columns in no order; a statement has one, so that the server prepares it once.
    let others = table
        .columns
        .iter()
        .filter(|(_, column)| !matches!(column.kind, ColumnKind::PartitionKey | ColumnKind::Clustering));
    let mut others: Vec<_> = others.filter_map(|(name, _)| Some((name.clone(), place(&source(name))?))).collect();
    others.sort();

    let name = format!("{}.{}", quoted(&config.keyspace), quoted(&config.table));
    let counter = table.columns.values().any(|column| column.typ == CqlType::Native(NativeType::Counter));
    if counter {
        if others.is_empty() {
            return Err(format!("the rows have no column for a counter of the table ({})", names(row)));
        }
        if config.ttl.is_some() || config.timestamp.is_some() {
            return Err("a table of counters takes neither `ttl` nor `timestamp`: leave them out".to_owned());
        }
        let add = |(name, _): &(String, usize)| format!("{0} = {0} + ?", quoted(name));
        let equal = |(name, _): &(String, usize)| format!("{} = ?", quoted(name));
        let sets = others.iter().map(add).collect::<Vec<_>>().join(", ");
        let wheres = keys.iter().map(equal).collect::<Vec<_>>().join(" AND ");
        let text = format!("UPDATE {name} SET {sets} WHERE {wheres}");
        let values = others.into_iter().chain(keys).collect();
        return Ok(Statement { text, values, ttl: None, timestamp: None, counter });
    }
    let values: Vec<_> = keys.into_iter().chain(others).collect();
    let columns = values.iter().map(|(name, _)| quoted(name)).collect::<Vec<_>>().join(", ");
    let marks = vec!["?"; values.len()].join(", ");
    let using = match (ttl, fixed_ttl) {
        (Some(_), _) => " USING TTL ?".to_owned(),
        (None, Some(seconds)) => format!(" USING TTL {seconds}"),
        (None, None) => String::new(),
    };
    let text = format!("INSERT INTO {name} ({columns}) VALUES ({marks}){using}");
    Ok(Statement { text, values, ttl, timestamp, counter })
}

/// A column that the configuration names and the table does not have.
pub(crate) fn unknown_column(config: &CassandraSink, table: &Table) -> Option<String> {
    let name = config.columns.keys().find(|name| !table.columns.contains_key(*name))?;
    let mut there: Vec<_> = table.columns.keys().map(String::as_str).collect();
    there.sort_unstable();
    Some(format!(
        "`columns` names `{name}`, but the table `{}.{}` has no such column; it has: {}",
        config.keyspace,
        config.table,
        there.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use acequia_connector_api::ColumnType;

    fn config(text: &str) -> CassandraSink {
        toml::from_str(&format!("nodes = ['localhost']\nkeyspace = 'k'\ntable = 'T'\n{text}")).unwrap()
    }

    fn row(columns: &[(&str, ColumnType)]) -> Vec<Field> {
        columns.iter().map(|(name, kind)| Field::new(*name, *kind, true)).collect()
    }

    #[test]
    fn statements_that_create() {
        let row = row(&[
            ("word", ColumnType::Text),
            ("count", ColumnType::Int64),
            ("x", ColumnType::Float64),
            ("ok", ColumnType::Boolean),
            ("at", ColumnType::Timestamp),
            ("raw", ColumnType::Binary),
            ("more \"", ColumnType::Json),
            ("keep", ColumnType::Int64),
        ]);
        let mut report = create_keyspace("it's", &config("").replication) + "\n";
        for text in [
            "primary_key = ['word']",
            "primary_key = ['id', 'count']\ncolumns = { id = 'word' }\nttl = 'keep'\ntimestamp = 'at'",
            "primary_key = [['word', 'count'], 'at']",
            "primary_key = ['id']",
            "primary_key = ['id']\ncolumns = { id = 'wrod' }",
        ] {
            let statement = create_table(&config(text), &row).unwrap_or_else(|error| format!("error: {error}"));
            report += &format!("{text}\n  -> {statement}\n");
        }
        insta::assert_snapshot!(report);
    }
}
