//! The `cassandra` sink and source: tables of Apache Cassandra and ScyllaDB.
//!
//! # What the sink promises
//! A row is an upsert with a timestamp of the sink's own, so a row that is written again, after an error or after a crash,
//! leaves the table as it was. The last row with a key stays. Counters are different: adding can't be repeated without
//! adding twice. A row that was added is not sent again, but one of which the server did not say whether it was added is;
//! after a crash the rows since the last checkpoint are added again. That is **at least once**.
//!
//! A value that does not fit its column makes a failed row, and the others go on. A table that is altered while the
//! pipeline runs is looked up again: new columns are filled from then on, dropped ones are left out.
//!
//! # Types
//! | table | from a row | to a row |
//! |---|---|---|
//! | `tinyint`, `smallint`, `int`, `bigint`, `counter` | int64 in range; whole float64, boolean, digits as text | int64 |
//! | `float`, `double` | float64 (`float` rounds); int64 if exact; text | float64 |
//! | `varint`, `decimal` | int64, text; `decimal` also float64 | text, exactly |
//! | `boolean` | boolean; 0 and 1; `true` and `false` as text | boolean |
//! | `text`, `ascii` | text; all others as text; JSON as it is, a JSON string as its own text | text |
//! | `blob` | binary; text as its UTF-8 | binary |
//! | `timestamp` | timestamp, text: the milliseconds, what is below is cut off (towards the past) | timestamp |
//! | `date` | text such as `2020-04-13`; the day of a timestamp | text |
//! | `time`, `duration`, `inet` | text such as `12:09:37.768982`, `1mo2d3h`, `127.0.0.1`; `inet` also 4 or 16 bytes | text |
//! | `uuid`, `timeuuid` | text; 16 bytes | text |
//! | `list`, `set`, tuples, `vector` | a JSON array | json |
//! | `map`, user-defined types | a JSON object | json |
//!
//! Inside JSON a blob is `"0x"` and hex digits, and a number beyond int64 and double is best written as text.

mod client;
mod config;
mod decode;
mod encode;
mod errors;
#[doc(hidden)]
pub mod fuzzing;
mod plan;
mod schema;
mod sink;
mod source;
mod source_config;
mod stamps;
#[cfg(test)]
mod tests;
mod text;
mod types;

pub use client::{Consistency, Tls};
pub use config::{CassandraSink, KeyPart, Nulls, ReplicationValue, Ttl};
pub use source_config::CassandraSource;
