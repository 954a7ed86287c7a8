//! What can go wrong with a plugin: before it runs ([`PluginError`]) and in a call ([`Failure`]).

use std::fmt;

use acequia_connector_api::{ByteSize, Span};

/// Which part of a plugin's way failed; says where in the configuration the fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginErrorKind {
    /// The file: it can't be read, is no component, has another contract, imports what nobody offers. Key `plugin`.
    File,
    /// A granted thing does not exist. Key `grants`.
    Grant,
    /// No instance can be made: a limit is too low, or the machine is full. Key `limits`, if it is a limit.
    Start,
    /// The plugin refused its configuration, or failed over it. Key `config`.
    Configure,
    /// What the plugin wants does not fit the rows, or itself. Key `config`.
    Plan,
    /// The plugin refused its snapshot.
    Restore,
}

/// A plugin that can't be used.
#[derive(Debug, thiserror::Error)]
pub struct PluginError {
    /// What failed.
    pub kind: PluginErrorKind,
    /// Pipeline, transform and plugin, as far as they are known: ``pipeline `p`, transform `even-filter` ``.
    pub place: String,
    /// What happened and what to do. Does not repeat the place.
    pub message: String,
    /// The cause, where there is one that the message does not tell already.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl fmt::Display for PluginError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)
    }
}

impl PluginError {
    /// An error without a cause of its own.
    pub(crate) fn new(kind: PluginErrorKind, place: impl Into<String>, message: impl Into<String>) -> Self {
        PluginError { kind, place: place.into(), message: message.into(), source: None }
    }

    /// With its cause.
    pub(crate) fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// Memory over the limit. Travels through wasmtime as the trap's cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it wanted {wanted} bytes of memory: the limit is {limit} (raise limits.memory if it needs more)")]
pub(crate) struct MemoryExceeded {
    /// Bytes that it would have had.
    pub(crate) wanted: u64,
    /// `limits.memory`.
    pub(crate) limit: ByteSize,
}

/// Time over the limit. Travels through wasmtime as the trap's cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it did not return within {limit} (raise limits.time if it needs more)")]
pub(crate) struct TimeExceeded {
    /// `limits.time`.
    pub(crate) limit: Span,
}

/// A capability that was not granted. Travels through wasmtime as the trap's cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{import}` is not granted: add grants = {{ {grant} = true }} to the transform")]
pub(crate) struct NotGranted {
    /// The interface and function.
    pub(crate) import: String,
    /// The key in `grants`.
    pub(crate) grant: &'static str,
}

/// A limit on what a call returns, and the key that sets it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) size: ByteSize,
    pub(crate) key: &'static str,
}

/// How a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The guest trapped.
    Trapped,
    /// It used up its time.
    Time,
    /// It wanted more memory, or gave more output, than it may.
    Size,
    /// It used what it was not granted.
    NotGranted,
    /// It returned an error.
    Refused,
    /// What it returned breaks the contract.
    Nonsense,
}

/// A call that failed. The instance is of no use any more.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// How.
    pub(crate) cause: Cause,
    /// What happened, with what the guest said about it.
    pub(crate) message: String,
}

impl Failure {
    /// The plugin's answer to `call` breaks the contract.
    pub(crate) fn nonsense(call: &str, message: impl fmt::Display) -> Self {
        Failure { cause: Cause::Nonsense, message: format!("what `{call}` returned breaks the contract: {message}") }
    }

    /// The plugin's `call` returned an error. The text is the plugin's own; only its length is ours.
    pub(crate) fn returned(call: &str, message: &str) -> Self {
        let message = shorten(message);
        let message = if message.is_empty() { "it gave no reason" } else { &message };
        Failure { cause: Cause::Refused, message: format!("`{call}` failed: {message}") }
    }

    /// The message, saying which call it was.
    pub(crate) fn in_call(&self, call: &str) -> String {
        match self.cause {
            Cause::Refused => self.message.clone(),
            _ => format!("`{call}` failed: {}", self.message),
        }
    }

    /// From what wasmtime says of a call that did not return. `said` is what the guest wrote during the call: its
    /// panic message, if it had the time.
    pub(crate) fn of_call(error: &wasmtime::Error, output_limit: Limit, said: &[String]) -> Self {
        let (cause, mut message) = if let Some(error) = error.downcast_ref::<TimeExceeded>() {
            (Cause::Time, error.to_string())
        } else if let Some(error) = error.downcast_ref::<MemoryExceeded>() {
            (Cause::Size, error.to_string())
        } else if let Some(error) = error.downcast_ref::<NotGranted>() {
            (Cause::NotGranted, error.to_string())
        } else if is_fuel_exhausted(error) {
            let Limit { size, key } = output_limit;
            let message = format!("it returned more than {size} (raise {key} if it needs more)");
            (Cause::Size, message)
        } else if let Some(trap) = error.downcast_ref::<wasmtime::Trap>() {
            (Cause::Trapped, format!("it trapped: {}", describe_trap(*trap)))
        } else if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
            (Cause::Trapped, format!("it called `exit({})`", exit.0))
        } else {
            // A value that is no value of its type (text that is not UTF-8, a list outside memory), or an error
            // of a host function.
            (Cause::Nonsense, format!("it failed: {}", error.root_cause()))
        };
        if cause == Cause::Trapped
            && let Some(function) = function_at_fault(error)
        {
            message.push_str(&format!(" in `{function}`"));
        }
        if !said.is_empty() {
            message.push_str("; it said: ");
            message.push_str(&said.join(" / "));
        }
        Failure { cause, message }
    }
}

/// Wasmtime's own type for this error is private; its text is not.
fn is_fuel_exhausted(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().contains("fuel allocated for hostcalls has been exhausted")
}

fn describe_trap(trap: wasmtime::Trap) -> String {
    match trap {
        wasmtime::Trap::StackOverflow => "its call stack is used up (a recursion without end?)".to_owned(),
        wasmtime::Trap::UnreachableCodeReached => {
            "`unreachable` was executed (a panic, an abort or a failed allocation)".to_owned()
        }
        other => other.to_string(),
    }
}

/// The innermost function that has a readable name and is not part of a language's panic machinery. Rust's names are
/// mangled; its panic messages say where they happened.
fn function_at_fault(error: &wasmtime::Error) -> Option<String> {
    const MACHINERY: [&str; 5] = ["_ZN", "_R", "__rust", "rust_", "abort"];
    let trace = error.downcast_ref::<wasmtime::WasmBacktrace>()?;
    let mut names = trace.frames().iter().filter_map(|frame| frame.func_name());
    names.find(|name| !MACHINERY.iter().any(|start| name.starts_with(start))).map(shorten)
}

/// At most 2,000 bytes of a guest's text, on one line.
pub(crate) fn shorten(text: &str) -> String {
    const LIMIT: usize = 2000;
    let text = text.trim();
    let cut = if text.len() > LIMIT { text.floor_char_boundary(LIMIT) } else { text.len() };
    let mut short: String =
        text[..cut].chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    if cut < text.len() {
        short.push('…');
    }
    short
}
