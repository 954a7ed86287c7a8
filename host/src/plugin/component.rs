//! A plugin before it runs: compiled, looked through, ready to be instantiated.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use wasmtime::component::{Component, InstancePre, Linker};

use super::CONTRACT_VERSION;
use super::bindings::{state, tick, transform};
use super::engine::Host;
use super::error::PluginError;
use super::instance::GuestState;
use super::linker::{self, LinkedGrants};
use super::transform::{PluginTransform, StartOptions};

const TRANSFORM: &str = "acequia:plugin/transform";
const STATE: &str = "acequia:plugin/state";
const TICK: &str = "acequia:plugin/tick";
/// Everything else of the contract's package.
const PACKAGE: &str = "acequia:plugin/";

/// A plugin: a file, and the compiled component that it shares with all plugins of the same content.
pub struct Plugin {
    host: Host,
    path: PathBuf,
    name: String,
    compiled: Arc<Compiled>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Plugin").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What can be said of a plugin without running it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PluginInfo {
    /// The file.
    pub path: PathBuf,
    /// BLAKE3 of its content, hexadecimal.
    pub hash: String,
    /// Size of the file in bytes.
    pub size: usize,
    /// The contract that it was built for.
    pub contract: String,
    /// It keeps something between batches.
    pub stateful: bool,
    /// It acts on time.
    pub ticking: bool,
    /// The interfaces that it exports.
    pub exports: Vec<String>,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// Keys of `grants` that its imports make use of. A language's runtime may import more than the plugin ever calls.
    pub grants: Vec<&'static str>,
}

/// The compiled component.
pub(crate) struct Compiled {
    component: Component,
    hash: blake3::Hash,
    size: usize,
    contract: String,
    pub(crate) stateful: bool,
    pub(crate) ticking: bool,
    exports: Vec<String>,
    imports: Vec<String>,
    /// Linked, by [`LinkedGrants::index`].
    linked: [OnceLock<Linked>; LinkedGrants::COUNT],
}

/// The component with its imports resolved and its exports found.
#[derive(Clone)]
pub(crate) struct Linked {
    pub(crate) instance: InstancePre<GuestState>,
    pub(crate) transform: transform::GuestIndices,
    pub(crate) state: Option<state::GuestIndices>,
    pub(crate) tick: Option<tick::GuestIndices>,
}

impl Compiled {
    /// Look through a component.
    ///
    /// # Errors
    /// If the contract is another one, or an import is not offered.
    pub(crate) fn new(
        linker: &Linker<GuestState>,
        component: Component,
        hash: blake3::Hash,
        size: usize,
    ) -> Result<Self, String> {
        let ty = component.component_type();
        let engine = component.engine();
        let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
        let imports: Vec<String> = ty.imports(engine).map(|(name, _)| name.to_owned()).collect();
        let contract = check_contract(&exports, &imports)?;
        if let Some(import) = linker::unknown_import(&component) {
            return Err(format!("it imports `{import}`, which this host does not offer: build it without that"));
        }
        let stateful = version_of(&exports, STATE).is_some();
        let ticking = version_of(&exports, TICK).is_some();
        let linked = std::array::from_fn(|_| OnceLock::new());
        let compiled = Compiled { component, hash, size, contract, stateful, ticking, exports, imports, linked };
        // Once, to find out now whether types differ.
        compiled.linked(linker, LinkedGrants { random: false, clocks: false })?;
        Ok(compiled)
    }

    /// With these grants.
    ///
    /// # Errors
    /// If the types of an import or export differ from the contract's.
    pub(crate) fn linked(&self, linker: &Linker<GuestState>, grants: LinkedGrants) -> Result<Linked, String> {
        let Some(slot) = self.linked.get(grants.index()) else {
            return self.link(linker, grants);
        };
        if let Some(linked) = slot.get() {
            return Ok(linked.clone());
        }
        let linked = self.link(linker, grants)?;
        Ok(slot.get_or_init(|| linked).clone())
    }

    fn link(&self, linker: &Linker<GuestState>, grants: LinkedGrants) -> Result<Linked, String> {
        let differs = |error: wasmtime::Error| differs_from_contract(&error);
        let linker = linker::granted_linker(linker, &self.component, grants).map_err(differs)?;
        let instance = linker.instantiate_pre(&self.component).map_err(differs)?;
        let transform = transform::GuestIndices::new(&instance).map_err(differs)?;
        let state = self.stateful.then(|| state::GuestIndices::new(&instance)).transpose().map_err(differs)?;
        let tick = self.ticking.then(|| tick::GuestIndices::new(&instance)).transpose().map_err(differs)?;
        Ok(Linked { instance, transform, state, tick })
    }
}

impl Plugin {
    pub(crate) fn new(host: Host, path: PathBuf, compiled: Arc<Compiled>) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_else(|| path.display().to_string());
        Plugin { host, path, name, compiled }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// BLAKE3 of the file's content.
    pub fn hash(&self) -> blake3::Hash {
        self.compiled.hash
    }

    /// Whether it keeps something between batches.
    pub fn is_stateful(&self) -> bool {
        self.compiled.stateful
    }

    /// Whether it can act on time.
    pub fn is_ticking(&self) -> bool {
        self.compiled.ticking
    }

    /// What can be said of it without running it.
    pub fn inspect(&self) -> PluginInfo {
        let compiled = &*self.compiled;
        let mut grants: Vec<&str> = compiled.imports.iter().filter_map(|import| linker::grant_for(import)).collect();
        grants.sort_unstable();
        grants.dedup();
        PluginInfo {
            path: self.path.clone(),
            hash: compiled.hash.to_hex().to_string(),
            size: compiled.size,
            contract: compiled.contract.clone(),
            stateful: compiled.stateful,
            ticking: compiled.ticking,
            exports: compiled.exports.clone(),
            imports: compiled.imports.clone(),
            grants,
        }
    }

    /// Make an instance, configure it, check its plan, restore its snapshot.
    ///
    /// # Errors
    /// See [`PluginErrorKind`](super::PluginErrorKind); the key at fault follows from the kind.
    pub async fn start(self: &Arc<Self>, options: StartOptions<'_>) -> Result<PluginTransform, PluginError> {
        PluginTransform::start(self, options).await
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn compiled(&self) -> &Compiled {
        &self.compiled
    }
}

/// What to say of a plugin that says the right version and has other types.
pub(crate) fn differs_from_contract(error: &wasmtime::Error) -> String {
    format!(
        "its types are not those of contract {CONTRACT_VERSION}: rebuild it with this host's wit/plugin.wit: {error:#}"
    )
}

/// The version after the `@` of the interface of that name.
fn version_of<'a>(names: &'a [String], interface: &str) -> Option<&'a str> {
    names.iter().find_map(|name| name.strip_prefix(interface)?.strip_prefix('@'))
}

/// The contract that a plugin was built for, if it is ours. Versions that differ only in the last number are compatible.
fn check_contract(exports: &[String], imports: &[String]) -> Result<String, String> {
    let Some(contract) = version_of(exports, TRANSFORM) else {
        return Err(format!(
            "it does not export `{TRANSFORM}@{CONTRACT_VERSION}`: it is a component, but no plugin (build it against wit/plugin.wit)"
        ));
    };
    let line = CONTRACT_VERSION.rsplit_once('.').map_or(CONTRACT_VERSION, |(line, _)| line);
    let versions = exports.iter().chain(imports).filter_map(|name| name.strip_prefix(PACKAGE)?.split_once('@'));
    for (_, version) in versions {
        if version.rsplit_once('.').is_none_or(|(of, _)| of != line) {
            return Err(format!(
                "it was built for contract {version}, this host speaks {line}.x: rebuild it with this host's wit/plugin.wit"
            ));
        }
    }
    Ok(contract.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(exports: &[&str], imports: &[&str]) -> Result<String, String> {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        check_contract(&own(exports), &own(imports))
    }

    #[test]
    fn contracts() {
        assert_eq!(check(&["acequia:plugin/transform@0.1.4"], &["acequia:plugin/log@0.1.4"]).unwrap(), "0.1.4");
        insta::assert_snapshot!(
            check(&["acequia:plugin/transform@0.0.9"], &[]).unwrap_err(),
            @"it was built for contract 0.0.9, this host speaks 0.1.x: rebuild it with this host's wit/plugin.wit"
        );
        insta::assert_snapshot!(
            check(&["acequia:plugin/transform@0.1.0"], &["acequia:plugin/log@0.2.0"]).unwrap_err(),
            @"it was built for contract 0.2.0, this host speaks 0.1.x: rebuild it with this host's wit/plugin.wit"
        );
        insta::assert_snapshot!(
            check(&["wasi:cli/run@0.2.3"], &[]).unwrap_err(),
            @"it does not export `acequia:plugin/transform@0.1.0`: it is a component, but no plugin (build it against wit/plugin.wit)"
        );
    }
}
