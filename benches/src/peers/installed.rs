//! Where the programs are that Acequia is compared with.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// What `benches/peers/install.sh` has installed.
pub(super) struct Installed {
    paths: HashMap<String, PathBuf>,
    /// `benches/peers` of this checkout, for the jobs' scripts.
    scripts: PathBuf,
}

impl Installed {
    /// Ask the script.
    pub(super) fn find() -> Result<Self> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let script = scripts.join("install.sh");
        let output = Command::new(&script)
            .arg("paths")
            .output()
            .with_context(|| format!("{} can't be run", script.display()))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(Installed { paths: parse(&String::from_utf8_lossy(&output.stdout)), scripts })
    }

    /// The path of this name.
    pub(super) fn path(&self, name: &str) -> Result<&Path> {
        self.paths.get(name).map(PathBuf::as_path).with_context(|| format!("benches/peers/install.sh names no {name}"))
    }

    /// A command that starts it.
    pub(super) fn command(&self, name: &str) -> Result<Command> {
        Ok(Command::new(self.path(name)?))
    }

    /// A file beside the script.
    pub(super) fn script(&self, name: &str) -> PathBuf {
        self.scripts.join(name)
    }
}

/// `NAME=PATH` lines.
fn parse(text: &str) -> HashMap<String, PathBuf> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, path)| (name.to_owned(), PathBuf::from(path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_with_what_they_have_in_them() {
        let paths = parse("jq=/usr/bin/jq\nbento=/a = b/bento\nnothing\n");
        assert_eq!(paths.len(), 2);
        assert_eq!(paths["jq"], Path::new("/usr/bin/jq"));
        assert_eq!(paths["bento"], Path::new("/a = b/bento"));
    }
}
