//! The engine that all plugins of a daemon share.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel};

use super::cache::Cache;
use super::component::{Compiled, Plugin};
use super::error::{PluginError, PluginErrorKind};
use super::instance::GuestState;
use super::linker;
use super::ticker::Ticker;

/// Stack of a guest. Deeper recursion traps.
const WASM_STACK: usize = 1 << 20;

/// Stack of a guest and of the host's functions that it calls.
const CALL_STACK: usize = 2 << 20;

/// How the engine is set up.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// Where compiled code is kept. None: every start compiles anew.
    pub cache: Option<PathBuf>,
}

/// The plugin host: one for a daemon. Clones share it.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    linker: Linker<GuestState>,
    cache: Option<Cache>,
    ticker: Arc<Ticker>,
    /// Compiled components in use, by content. The lock of an entry is held while it is compiled, so that a thousand
    /// pipelines that start at once compile their plugin once.
    compiled: Mutex<HashMap<blake3::Hash, Arc<Mutex<Weak<Compiled>>>>>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Host").finish_non_exhaustive()
    }
}

impl Host {
    /// Set the engine up. Starts one thread.
    ///
    /// # Errors
    /// If this machine can't run WebAssembly: no thread, no memory, a processor that Cranelift has no backend for.
    pub fn new(options: &HostOptions) -> Result<Self, PluginError> {
        let failed = |what: &str, error: wasmtime::Error| {
            PluginError::new(PluginErrorKind::Start, "the plugin host", format!("{what}: {error:#}"))
        };
        let engine = new_engine().map_err(|error| failed("no WebAssembly engine can be made", error))?;
        let ticker = Ticker::start(&engine).map_err(|error| failed("no thread can be started", error.into()))?;
        let linker = linker::complete_linker(&engine).map_err(|error| failed("WASI can't be linked", error))?;
        let cache = options.cache.as_deref().and_then(|folder| match Cache::open(folder, &engine) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), "compiled plugins are not kept: {error}");
                None
            }
        });
        let shared = Shared { engine, linker, cache, ticker: Arc::new(ticker), compiled: Mutex::default() };
        Ok(Host { shared: Arc::new(shared) })
    }

    /// Read and compile a plugin, or find it compiled. Blocks, for seconds if a large plugin is compiled for the first time:
    /// call it through `spawn_blocking`.
    ///
    /// # Errors
    /// If the file can't be read, is no component, was built for another contract, or imports what is not offered. The
    /// kind is always [`PluginErrorKind::File`].
    pub fn load(&self, path: &Path) -> Result<Arc<Plugin>, PluginError> {
        let place = format!("plugin {}", path.display());
        let bytes = std::fs::read(path).map_err(|error| {
            let message = format!("it can't be read: {error}");
            PluginError::new(PluginErrorKind::File, place.clone(), message).because(error)
        })?;
        self.load_bytes(path, &bytes)
    }

    /// As [`Host::load`], with the file's content at hand. `path` names the plugin in messages.
    ///
    /// # Errors
    /// See [`Host::load`].
    pub fn load_bytes(&self, path: &Path, bytes: &[u8]) -> Result<Arc<Plugin>, PluginError> {
        let compiled = self.compiled(bytes).map_err(|message| {
            PluginError::new(PluginErrorKind::File, format!("plugin {}", path.display()), message)
        })?;
        Ok(Arc::new(Plugin::new(self.clone(), path.to_owned(), compiled)))
    }

    fn compiled(&self, bytes: &[u8]) -> Result<Arc<Compiled>, String> {
        let hash = blake3::hash(bytes);
        let entry = {
            let mut all = self.shared.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody compiles them (that is a second owner), and nobody uses them.
            all.retain(|_, entry| {
                Arc::strong_count(entry) > 1 || entry.lock().unwrap_or_else(PoisonError::into_inner).strong_count() > 0
            });
            all.entry(hash).or_default().clone()
        };
        let mut entry = entry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = entry.upgrade() {
            return Ok(compiled);
        }
        let component = self.component(bytes, &hash)?;
        let compiled = Arc::new(Compiled::new(&self.shared.linker, component, hash, bytes.len())?);
        *entry = Arc::downgrade(&compiled);
        Ok(compiled)
    }

    fn component(&self, bytes: &[u8], hash: &blake3::Hash) -> Result<Component, String> {
        check_format(bytes)?;
        if let Some(component) = self.shared.cache.as_ref().and_then(|cache| cache.load(&self.shared.engine, hash)) {
            tracing::debug!(plugin = %hash.to_hex(), "compiled code was found in the cache");
            return Ok(component);
        }
        let began = Instant::now();
        let component = Component::new(&self.shared.engine, bytes)
            .map_err(|error| format!("it is not a valid WebAssembly component: {error:#}"))?;
        tracing::debug!(plugin = %hash.to_hex(), took = ?began.elapsed(), "a plugin was compiled");
        if let Some(cache) = &self.shared.cache {
            cache.store(&component, hash);
        }
        Ok(component)
    }

    pub(crate) fn linker(&self) -> &Linker<GuestState> {
        &self.shared.linker
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    pub(crate) fn ticker(&self) -> &Arc<Ticker> {
        &self.shared.ticker
    }
}

fn new_engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        // The component model's own async makes a call three times as expensive, and the contract does not use it.
        .concurrency_support(false)
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(CALL_STACK)
        // Instances live long here, so a pool of them gains nothing; but to make one takes a system call for each stack
        // in it, most of the time that the daemon takes to start, and twice as many mappings. Each instance reserves 4 GiB
        // of address space, which costs no memory until it is used.
        .allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&config)
}

/// Tell what the bytes are by their first eight: magic and version, in which a component differs from a module.
fn check_format(bytes: &[u8]) -> Result<(), String> {
    const BUILD: &str = "build it for wasm32-wasip2, or make a component of it with `wasm-tools component new`";
    match bytes.get(..8) {
        Some(b"\0asm\x0d\0\x01\0") => Ok(()),
        Some(b"\0asm\x01\0\0\0") => Err(format!("it is not a WebAssembly component, but a core module: {BUILD}")),
        Some(b"\x7fELF\x02\x01\x01\0" | b"\x7fELF\x02\x01\x01\xc8") => {
            Err("it is not a WebAssembly component, but compiled code: name the .wasm it was made from".to_owned())
        }
        // The text format, for small experiments.
        _ if bytes.trim_ascii_start().starts_with(b"(component") => Ok(()),
        _ => Err(format!("it is not a WebAssembly component: {BUILD}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(host: &Host, bytes: &[u8]) -> String {
        host.load_bytes(Path::new("x.wasm"), bytes).unwrap_err().to_string()
    }

    #[test]
    fn says_what_a_file_is_if_not_a_component() {
        let host = Host::new(&HostOptions::default()).unwrap();
        insta::assert_snapshot!(
            message(&host, b"\0asm\x01\0\0\0"),
            @"plugin x.wasm: it is not a WebAssembly component, but a core module: build it for wasm32-wasip2, or make a component of it with `wasm-tools component new`"
        );
        insta::assert_snapshot!(
            message(&host, b"[source]"),
            @"plugin x.wasm: it is not a WebAssembly component: build it for wasm32-wasip2, or make a component of it with `wasm-tools component new`"
        );
        let cut = message(&host, b"\0asm\x0d\0\x01\0\x01");
        assert!(cut.starts_with("plugin x.wasm: it is not a valid WebAssembly component: "), "{cut}");
        let missing = host.load(Path::new("/nowhere/x.wasm")).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "plugin /nowhere/x.wasm: it can't be read: No such file or directory (os error 2)"
        );
    }
}
