//! `acequia run`

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::daemon::RunOptions;

/// Arguments of `acequia run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files, or folders whose `*.toml` are taken and watched.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Where checkpoints and dead letters are kept [default: $STATE_DIRECTORY, else the user's state folder].
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// A folder to look for plugins in first; may be given more than once.
    #[arg(long, value_name = "DIR")]
    plugins: Vec<PathBuf>,
    /// Where the REST interface listens: a loopback address such as 127.0.0.1:8083.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// End when all finite sources have ended; exit code 0 only if all rows are confirmed.
    #[arg(long)]
    once: bool,
}

impl Args {
    /// What the daemon is told. The state folder is `--state`, systemd's `$STATE_DIRECTORY` (the first, if there are
    /// several), else `$XDG_STATE_HOME/acequia`, else `~/.local/state/acequia`; it may not exist yet.
    ///
    /// # Errors
    /// If there is no place for the state.
    pub(super) fn into_options(self) -> anyhow::Result<RunOptions> {
        let state = state_folder_of_process(self.state)?;
        Ok(RunOptions { paths: self.paths, state, plugins: self.plugins, listen: self.listen, once: self.once })
    }
}

/// The state folder of a command with this `--state`.
pub(super) fn state_folder_of_process(flag: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    state_folder(flag, |name| std::env::var_os(name))
        .context("there is no place for the state: give one with `--state DIR`")
}

fn state_folder(flag: Option<PathBuf>, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let systemd = || std::env::split_paths(&set("STATE_DIRECTORY")?).next();
    // The XDG base directory specification: a path that is not absolute is ignored.
    let xdg = || set("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || set("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    flag.or_else(systemd).or_else(|| Some(xdg().or_else(home)?.join("acequia")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_folder() {
        let folder = |flag: Option<&str>, set: &[(&str, &str)]| {
            let found = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
            state_folder(flag.map(PathBuf::from), found).map(|path| path.display().to_string())
        };
        let all = [("STATE_DIRECTORY", "/s/a:/s/b"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(folder(Some("f"), &all).as_deref(), Some("f"));
        assert_eq!(folder(None, &all).as_deref(), Some("/s/a"));
        assert_eq!(folder(None, &all[1..]).as_deref(), Some("/x/acequia"));
        assert_eq!(
            folder(None, &[("XDG_STATE_HOME", "x"), ("HOME", "/h")]).as_deref(),
            Some("/h/.local/state/acequia")
        );
        assert_eq!(folder(None, &[("HOME", "")]), None);
    }
}
