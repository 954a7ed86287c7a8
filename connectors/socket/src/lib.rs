//! The `socket` source: lines that arrive over TCP or a Unix socket.
//!
//! It connects to a server and connects again whenever that goes away, or it listens and merges what many clients send,
//! record by record.
//!
//! # What can be lost
//! A socket can't be asked to send something again, so this source has no position to go back to, and delivery is **at
//! most once** across a crash: what was read but had not reached the sinks is gone. When the pipeline stops in good order
//! the source stops reading first ([`acequia_connector_api::Source::stop`]), and what it had read is still delivered.
//! Bytes that the kernel had received by then but nobody had read are lost, as is what a server sends until the source
//! is connected again. A record that is cut off by such a stop, or by a broken connection, is a failed row; the last line
//! before a proper end of a connection needs no line break.
//!
//! # Memory
//! A bounded queue of chunks lies between the connections and the pipeline. While it is full nothing is read, and TCP
//! holds the other side back. Beside that each connection has one buffer and one partial record.

mod config;
mod endpoint;
mod reader;
mod source;

pub use config::SocketConfig;
pub use source::SocketSource;
