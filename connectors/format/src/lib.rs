//! Bytes to rows and back: the `format` key that connectors share.
//!
//! A source reads bytes. A [`Framer`] cuts them into records (a line, a JSON value, a CSV record), each with its place
//! and with the [`Resume`] mark from which reading can go on after it. A [`Decoder`] turns records into Arrow columns. A
//! connector whose protocol has records of its own (Kafka) uses the decoder alone. A sink hands its rows to an
//! [`Encoder`]. [`cast_column`] is the one cast of the project: declared schemas, plugins and sinks all go through it.
//!
//! ```
//! use std::sync::Arc;
//! use acequia_format::{Decoder, Format, FormatOptions, Framer};
//!
//! let options = FormatOptions::new(Format::Json);
//! let mut framer = Framer::new(&options, 1 << 20);
//! let mut decoder = Decoder::new(&options);
//! let partition: Arc<str> = "people.json".into();
//! framer.feed(b"[{\"name\": \"Ann\", \"age\": 7}, {\"na", &mut |frame| decoder.push_frame(&frame, &partition));
//! framer.feed(b"me\": \"Bob\"}]", &mut |frame| decoder.push_frame(&frame, &partition));
//! framer.finish(&mut |frame| decoder.push_frame(&frame, &partition));
//! assert_eq!(decoder.finish().len(), 2);
//! ```

mod cast;
mod column;
mod csv;
mod decode;
mod encode;
mod frame;
mod options;
mod parse;
mod scan;
mod utf8;

pub use cast::{Cast, can_cast, cast_column};
pub use decode::Decoder;
pub use encode::{EncodeError, Encoder};
pub use frame::{CsvFramer, Frame, Framer, JsonFramer, LineFramer, Parts, Resume};
pub use options::{CsvOptions, Format, FormatOptions, SchemaConfig};
pub use parse::parse_timestamp;
