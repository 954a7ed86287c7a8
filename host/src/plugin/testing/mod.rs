//! Small plugins for the tests, written in WebAssembly's text format, so that a test can do what no language's toolchain
//! would let it.
//!
//! Values that the guest returns are laid out here, by the canonical ABI of the component model: a list or a string is
//! address and length, a record its fields one after the other (aligned), a variant one byte for the case and then the
//! payload.

use std::path::Path;
use std::sync::Arc;

use super::engine::{Host, HostOptions};
use super::{Plugin, PluginError};

const TEMPLATE: &str = include_str!("template.wat");

/// The guest's memory before it starts, from this address on. Everything from 64 KiB on is its heap.
const BASE: u32 = 1024;

/// A plugin in the making.
#[derive(Default)]
pub(crate) struct Guest {
    image: Vec<u8>,
    /// Core functions and globals.
    pub(crate) main: String,
    /// Component-level imports, and what makes core functions of them.
    pub(crate) import: &'static str,
    pub(crate) lower: &'static str,
    /// Items for the instance `host` of the core module.
    pub(crate) host: &'static str,
    pub(crate) stateful: bool,
    pub(crate) ticking: bool,
}

/// Types of the contract, by their number there.
pub(crate) const INT64: u8 = 1;
pub(crate) const FLOAT64: u8 = 2;

/// What reaches the output beside the added columns.
pub(crate) enum Pass {
    Every,
    Nothing,
}

impl Guest {
    /// Put bytes into the memory.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> u32 {
        self.image.resize(self.image.len().next_multiple_of(8), 0);
        let place = BASE + u32::try_from(self.image.len()).unwrap();
        self.image.extend_from_slice(bytes);
        assert!(self.image.len() < 60_000, "the heap begins there");
        place
    }

    fn list(&mut self, bytes: &[u8], length: usize) -> [u8; 8] {
        let place = self.put(bytes);
        words(&[place, u32::try_from(length).unwrap()]).try_into().unwrap()
    }

    fn text(&mut self, text: &str) -> [u8; 8] {
        self.list(text.as_bytes(), text.len())
    }

    /// `list<field>` or `list<input>`, which are laid out alike.
    fn fields(&mut self, fields: &[(&str, u8, bool)]) -> [u8; 8] {
        let mut bytes = Vec::new();
        for (name, kind, nullable) in fields {
            bytes.extend(self.text(name));
            bytes.extend([*kind, u8::from(*nullable), 0, 0]);
        }
        self.list(&bytes, fields.len())
    }

    /// `ok(plan)`: its address.
    pub(crate) fn plan(&mut self, reads: &[(&str, u8, bool)], adds: &[(&str, u8, bool)], pass: Pass, tick: u64) -> u32 {
        let mut bytes = vec![0; 8];
        bytes.extend(words(&[0]));
        bytes.extend(self.fields(reads));
        bytes.extend(self.fields(adds));
        bytes.extend(words(match pass {
            Pass::Every => &[0, 0, 0],
            Pass::Nothing => &[1, 0, 0],
        }));
        bytes.extend(words(&[0, 0]));
        bytes.extend(u64::from(tick > 0).to_le_bytes());
        bytes.extend(tick.to_le_bytes());
        assert_eq!(bytes.len(), 64);
        self.put(&bytes)
    }

    /// `err(message)` of `configure`, whose payload is aligned to 8.
    pub(crate) fn configure_error(&mut self, message: &str) -> u32 {
        let message = self.text(message);
        self.put(&[&words(&[1, 0])[..], &message, &[0; 48]].concat())
    }

    /// `err(message)` of `apply` and `restore`.
    pub(crate) fn error(&mut self, message: &str) -> u32 {
        let message = self.text(message);
        self.put(&[&words(&[1])[..], &message, &[0; 20]].concat())
    }

    /// `ok(output)` with a selection of this case and payload. The columns are at 16, the failures at 24.
    pub(crate) fn output(&mut self, case: u32, payload: [u32; 2], columns: &[u8], failed: &[(u32, &str)]) -> u32 {
        let mut failures = Vec::new();
        for (row, message) in failed {
            failures.extend(words(&[*row]));
            failures.extend(self.text(message));
        }
        let columns = self.list(columns, columns.len() / 40);
        let failures = self.list(&failures, failed.len());
        self.put(&[&words(&[0, case, payload[0], payload[1]])[..], &columns, &failures].concat())
    }

    /// A column of eight-byte values without nulls. The values are at 12 in it.
    pub(crate) fn column(&mut self, name: &str, kind: u8, values: u32, length: u32) -> [u8; 40] {
        let name = self.text(name);
        let rest = words(&[u32::from(kind), values, length, 0, 0, 0, 0, 0]);
        [&name[..], &rest].concat().try_into().unwrap()
    }

    /// The component.
    pub(crate) fn build(&self) -> String {
        let data: String = self.image.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let (_, mut text) =
            TEMPLATE.split_once("(component\n").map(|(head, rest)| (head, format!("(component\n{rest}"))).unwrap();
        for (keep, name) in [(self.ticking, "tick"), (self.stateful, "state")] {
            if !keep {
                let (begin, end) = (format!("  ;;{name}\n"), format!("  ;;end {name}\n"));
                let (head, rest) = text.split_once(&begin).unwrap();
                text = format!("{head}{}", rest.split_once(&end).unwrap().1);
            }
        }
        let main = format!("(data (i32.const {BASE}) \"{data}\")\n{}", self.main);
        text.replace(";;main", &main)
            .replace(";;import", self.import)
            .replace(";;lower", self.lower)
            .replace(";;host", self.host)
    }

    /// The component, loaded as `guest.wasm`.
    pub(crate) fn load(&self) -> Arc<Plugin> {
        load(&self.build()).unwrap()
    }
}

/// Load a component from text, as `guest.wasm`.
pub(crate) fn load(text: &str) -> Result<Arc<Plugin>, PluginError> {
    Host::new(&HostOptions::default()).unwrap().load_bytes(Path::new("guest.wasm"), text.as_bytes())
}

pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A filter that keeps even values of the column `value`, unless one of these is among them, which it handles in its own way.
pub(crate) mod moods {
    pub(crate) const TRAP: i64 = 13;
    pub(crate) const LOOP: i64 = 15;
    pub(crate) const MEMORY: i64 = 17;
    pub(crate) const RECURSION: i64 = 19;
    pub(crate) const ERROR: i64 = 21;
    pub(crate) const WRONG_LENGTH: i64 = 23;
    pub(crate) const OUTSIDE_MEMORY: i64 = 25;
    pub(crate) const HUGE: i64 = 27;
    pub(crate) const RANDOM: i64 = 29;
    pub(crate) const STDERR: i64 = 31;
    pub(crate) const FAIL_FIRST: i64 = 33;
    pub(crate) const GROW: i64 = 35;
}

/// See [`moods`].
pub(crate) fn moody() -> Guest {
    let mut guest = Guest::default();
    let plan = guest.plan(&[("value", INT64, false)], &[], Pass::Every, 0);
    let kept = guest.output(1, [40_000, 0], &[], &[]);
    let wrong_length = guest.output(1, [40_000, 1000], &[], &[]);
    let outside = guest.output(1, [0xffff_0000, 0xff00], &[], &[]);
    let huge = guest.output(1, [1024, 100_000], &[], &[]);
    let failing = guest.output(1, [40_000, 1], &[], &[(0, "the first row is not to its taste")]);
    let error = guest.error("it does not like 21");
    let panic = "panicked at src/lib.rs:7: unlucky";
    let panic_at = guest.put(panic.as_bytes());
    let panic_length = panic.len();
    guest.import = r#"
        (import "wasi:random/random@0.2.3" (instance $random (export "get-random-u64" (func (result u64)))))
        (import "wasi:io/error@0.2.3" (instance $io-error (export "error" (type (sub resource)))))
        (alias export $io-error "error" (type $io-error-type))
        (import "wasi:io/streams@0.2.3" (instance $streams
            (export "output-stream" (type $stream (sub resource)))
            (alias outer 1 $io-error-type (type $outer-error))
            (export "error" (type $error (eq $outer-error)))
            (type $stream-error' (variant (case "last-operation-failed" (own $error)) (case "closed")))
            (export "stream-error" (type $stream-error (eq $stream-error')))
            (export "[method]output-stream.blocking-write-and-flush"
                (func (param "self" (borrow $stream)) (param "contents" (list u8)) (result (result (error $stream-error)))))
        ))
        (alias export $streams "output-stream" (type $output-stream))
        (import "wasi:cli/stderr@0.2.3" (instance $stderr
            (alias outer 1 $output-stream (type $outer-stream))
            (export "output-stream" (type $stream (eq $outer-stream)))
            (export "get-stderr" (func (result (own $stream))))
        ))"#;
    guest.lower = r#"
        (core func $get-random (canon lower (func $random "get-random-u64")))
        (core func $get-stderr (canon lower (func $stderr "get-stderr")))
        (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $memory)))"#;
    guest.host = r#"
        (export "random" (func $get-random))
        (export "stderr" (func $get-stderr))
        (export "write" (func $write))"#;
    use moods::*;
    guest.main = format!(
        r#"
        (import "host" "random" (func $random (result i64)))
        (import "host" "stderr" (func $stderr (result i32)))
        (import "host" "write" (func $write (param i32 i32 i32 i32)))
        (func (export "configure") (param i32 i32 i32 i32 i32) (result i32) (i32.const {plan}))
        (func $recurse (param i32) (result i32) (i32.add (i32.const 1) (call $recurse (local.get 0))))
        (func (export "apply") (param $rows i32) (param $columns i32) (param i32) (result i32)
            (local $values i32) (local $row i32) (local $value i64) (local $place i32)
            (global.set $heap (i32.const 65536))
            (local.set $values (i32.load offset=12 (local.get $columns)))
            (memory.fill (i32.const 40000) (i32.const 0) (i32.const 2048))
            (loop $next
                (local.set $value (i64.load (i32.add (local.get $values) (i32.mul (local.get $row) (i32.const 8)))))
                (if (i64.eq (local.get $value) (i64.const {TRAP}))
                    (then (call $log (i32.const 0) (i32.const {panic_at}) (i32.const {panic_length})) unreachable))
                (if (i64.eq (local.get $value) (i64.const {LOOP})) (then (loop $forever (br $forever))))
                (if (i64.eq (local.get $value) (i64.const {MEMORY})) (then (drop (memory.grow (i32.const 16384)))))
                (if (i64.eq (local.get $value) (i64.const {GROW})) (then (drop (memory.grow (i32.const 12)))))
                (if (i64.eq (local.get $value) (i64.const {RECURSION})) (then (drop (call $recurse (i32.const 0)))))
                (if (i64.eq (local.get $value) (i64.const {ERROR})) (then (return (i32.const {error}))))
                (if (i64.eq (local.get $value) (i64.const {WRONG_LENGTH})) (then (return (i32.const {wrong_length}))))
                (if (i64.eq (local.get $value) (i64.const {OUTSIDE_MEMORY})) (then (return (i32.const {outside}))))
                (if (i64.eq (local.get $value) (i64.const {HUGE})) (then (return (i32.const {huge}))))
                (if (i64.eq (local.get $value) (i64.const {RANDOM})) (then (drop (call $random))))
                (if (i64.eq (local.get $value) (i64.const {STDERR})) (then
                    (call $write (call $stderr) (i32.const {panic_at}) (i32.const {panic_length}) (i32.const 50000))
                    unreachable))
                (if (i64.eq (local.get $value) (i64.const {FAIL_FIRST})) (then (return (i32.const {failing}))))
                (local.set $place (i32.add (i32.const 40000) (i32.shr_u (local.get $row) (i32.const 3))))
                (if (i64.eqz (i64.and (local.get $value) (i64.const 1))) (then
                    (i32.store8 (local.get $place) (i32.or
                        (i32.load8_u (local.get $place))
                        (i32.shl (i32.const 1) (i32.and (local.get $row) (i32.const 7)))))))
                (local.set $row (i32.add (local.get $row) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $row) (local.get $rows)))
            )
            (i32.store (i32.const {kept} + 12) (i32.shr_u (i32.add (local.get $rows) (i32.const 7)) (i32.const 3)))
            (i32.const {kept})
        )"#
    )
    .replace(&format!("(i32.const {kept} + 12)"), &format!("(i32.const {})", kept + 12));
    guest
}

/// An aggregate: after each batch the sum of all values so far, which is its state. It traps on [`moods::TRAP`], but
/// only after it has counted all rows: a careless host would count them again. It adds nothing in `tick`, but reports.
/// Memory: the sum at 50000.
pub(crate) fn summing() -> Guest {
    let mut guest = Guest { stateful: true, ticking: true, ..Guest::default() };
    let plan = guest.plan(&[("value", INT64, false)], &[("sum", INT64, false)], Pass::Nothing, 1000);
    let column = guest.column("sum", INT64, 50_000, 1);
    let output = guest.output(3, [1, 0], &column, &[]);
    let snapshot = guest.put(&words(&[50_000, 8]));
    let restored = guest.put(&words(&[0, 0, 0]));
    let refused = guest.error("a snapshot has 8 bytes");
    guest.main = format!(
        r#"
        (func (export "configure") (param i32 i32 i32 i32 i32) (result i32) (i32.const {plan}))
        (func (export "apply") (param $rows i32) (param $columns i32) (param i32) (result i32)
            (local $values i32) (local $row i32) (local $value i64) (local $trap i32)
            (global.set $heap (i32.const 65536))
            (local.set $values (i32.load offset=12 (local.get $columns)))
            (loop $next
                (local.set $value (i64.load (i32.add (local.get $values) (i32.mul (local.get $row) (i32.const 8)))))
                (i64.store (i32.const 50000) (i64.add (i64.load (i32.const 50000)) (local.get $value)))
                (if (i64.eq (local.get $value) (i64.const {})) (then (local.set $trap (i32.const 1))))
                (local.set $row (i32.add (local.get $row) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $row) (local.get $rows)))
            )
            (if (local.get $trap) (then unreachable))
            (i32.const {output})
        )
        (func (export "snapshot") (result i32) (i32.const {snapshot}))
        (func (export "restore") (param $place i32) (param $length i32) (result i32)
            (if (i32.ne (local.get $length) (i32.const 8)) (then (return (i32.const {refused}))))
            (i64.store (i32.const 50000) (i64.load (local.get $place)))
            (i32.const {restored})
        )
        (func (export "tick") (param i64) (result i32)
            (if (i64.lt_s (local.get 0) (i64.const 0)) (then unreachable))
            (i32.const {output}))"#,
        moods::TRAP
    );
    guest
}
