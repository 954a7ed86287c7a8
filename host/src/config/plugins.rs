//! Where a plugin's `.wasm` is found.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::model::{PipelineConfig, TransformStage};
use super::nearest::{did_you_mean, list};

/// The environment variable with more folders, separated by colons.
pub const VARIABLE: &str = "ACEQUIA_PLUGINS";

const SYSTEM: [&str; 2] = ["/usr/local/lib/acequia/plugins", "/usr/lib/acequia/plugins"];

/// The folders that plugins are looked for in, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginPath {
    folders: Vec<PathBuf>,
}

impl PluginPath {
    /// The folders given by `--plugins`, then those of `$ACEQUIA_PLUGINS`, then `../plugins` and `plugins` beside the
    /// daemon's binary, then the system's.
    pub fn new(flags: &[PathBuf], variable: Option<&OsStr>, binary: Option<&Path>) -> Self {
        let mut folders = flags.to_vec();
        if let Some(variable) = variable {
            folders.extend(std::env::split_paths(variable).filter(|folder| !folder.as_os_str().is_empty()));
        }
        if let Some(beside) = binary.and_then(Path::parent) {
            // `target/release/acequia` -> `target/plugins`, without a `..` in what is shown.
            folders.extend(beside.parent().map(|above| above.join("plugins")));
            folders.push(beside.join("plugins"));
        }
        folders.extend(SYSTEM.map(PathBuf::from));
        let mut unique = Vec::with_capacity(folders.len());
        for folder in folders {
            if !unique.contains(&folder) {
                unique.push(folder);
            }
        }
        PluginPath { folders: unique }
    }

    /// As [`PluginPath::new`], with the environment and the binary of this process.
    pub fn of_process(flags: &[PathBuf]) -> Self {
        let binary = std::env::current_exe().ok();
        PluginPath::new(flags, std::env::var_os(VARIABLE).as_deref(), binary.as_deref())
    }

    /// The folders, in order.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The names of all plugins on the path, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.folders.iter().flat_map(|folder| names_in(folder)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The file of a transform's plugin: a path if it has a `/` or ends in `.wasm` (relative to the pipeline's file), else
    /// a name on the path.
    ///
    /// # Errors
    /// If there is no such file, with the nearest name and where it was looked for.
    pub fn resolve(&self, config: &PipelineConfig, stage: &TransformStage) -> Result<PathBuf, Diagnostics> {
        let plugin = stage.plugin.as_str();
        let missing = |message: String| Diagnostic::in_config(config, stage.plugin_place.clone(), message);
        if plugin.contains('/') || plugin.ends_with(".wasm") {
            let file = config.base().join(plugin);
            if file.is_file() {
                return Ok(file);
            }
            let folder = file.parent().map(Path::to_owned).unwrap_or_default();
            let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let found = names_in(&folder);
            let mut diagnostic = missing(format!("no plugin `{plugin}`"))
                .label("no such file")
                .maybe_help(did_you_mean(&stem, found.iter().map(String::as_str)))
                .help(format!("looked for {}", file.display()));
            if !plugin.contains('/') {
                let name = plugin.trim_end_matches(".wasm");
                if self.find(name).is_some() {
                    diagnostic =
                        diagnostic.help(format!("on the plugin path there is one: write `plugin = \"{name}\"`"));
                }
            }
            return Err(diagnostic.into());
        }
        self.find(plugin).ok_or_else(|| {
            let names = self.names();
            let searched = self.folders.iter().map(|folder| format!("\n  {}", folder.display())).collect::<String>();
            let known = match names.len() {
                0 => "there is no plugin in any of the folders".to_owned(),
                _ => format!("plugins found: {}", list(names.iter().map(String::as_str))),
            };
            missing(format!("no plugin `{plugin}`"))
                .label(format!("no `{plugin}.wasm` on the plugin path"))
                .maybe_help(did_you_mean(plugin, names.iter().map(String::as_str)))
                .help(known)
                .help(format!("looked in (`--plugins` and ${VARIABLE} add more):{searched}"))
                .into()
        })
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let file = format!("{name}.wasm");
        self.folders.iter().map(|folder| folder.join(&file)).find(|file| file.is_file())
    }
}

/// The plugins in a folder; none if it can't be read, since most folders of the path don't exist.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "wasm"));
    files.filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config_in;

    #[test]
    fn the_order_of_the_folders() {
        let path = PluginPath::new(
            &["flag".into()],
            Some(OsStr::new("/one::/two:flag")),
            Some(Path::new("/x/target/release/acequia")),
        );
        let want = [
            "flag",
            "/one",
            "/two",
            "/x/target/plugins",
            "/x/target/release/plugins",
            "/usr/local/lib/acequia/plugins",
            "/usr/lib/acequia/plugins",
        ];
        assert_eq!(path.folders(), want.map(PathBuf::from));
    }

    #[test]
    fn names_and_paths() {
        let folder = tempfile::tempdir().unwrap();
        let plugins = folder.path().join("plugins");
        std::fs::create_dir(&plugins).unwrap();
        for file in ["even-filter.wasm", "uuid.wasm", "readme.md"] {
            std::fs::write(plugins.join(file), "").unwrap();
        }
        std::fs::write(folder.path().join("mine.wasm"), "").unwrap();
        let path = PluginPath { folders: vec![folder.path().join("none"), plugins.clone()] };
        let resolve = |plugin: &str| {
            let text = format!(
                "source.type = \"count\"\nsink = [{{ type = \"null\" }}]\n[[transform]]\nplugin = \"{plugin}\"\n"
            );
            let config = config_in(folder.path(), &text).unwrap();
            path.resolve(&config, &config.transforms[0])
                .map_err(|diagnostic| diagnostic.render(false).replace(&folder.path().display().to_string(), "FOLDER"))
        };
        assert_eq!(resolve("even-filter").unwrap(), plugins.join("even-filter.wasm"));
        assert_eq!(resolve("mine.wasm").unwrap(), folder.path().join("mine.wasm"));
        assert_eq!(resolve("plugins/uuid.wasm").unwrap(), folder.path().join("plugins/uuid.wasm"));
        insta::assert_snapshot!("missing_plugin_by_name", resolve("evenfilter").unwrap_err());
        insta::assert_snapshot!("missing_plugin_by_path", resolve("./min.wasm").unwrap_err());
        insta::assert_snapshot!("plugin_of_the_path_written_as_file", resolve("uuid.wasm").unwrap_err());
    }
}
