//! Which files are pipelines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::diagnostic::Diagnostic;

/// A pipeline's file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigFile {
    /// The file's stem. Not checked yet: [`super::pipeline_name`].
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// What [`discover`] found.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// The files, by name; no two have one name.
    pub files: Vec<ConfigFile>,
    /// What is wrong: folders that can't be read, two files of one name.
    pub problems: Vec<Diagnostic>,
    /// The paths among those given that can't be read: nothing is known of the files below them, least of all that
    /// they are gone.
    pub unreadable: Vec<PathBuf>,
}

/// Find the pipelines' files: in a folder all `*.toml` but hidden ones and editors' leavings, not deeper; a file that is
/// named counts whatever it is called. Of two with one name the first in the order of `paths` counts.
pub fn discover(paths: &[PathBuf]) -> Discovery {
    let mut found = Discovery::default();
    let mut by_name: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in paths {
        let files = match files_of(path) {
            Ok(files) => files,
            Err(error) => {
                found.problems.push(Diagnostic::of_file(path, format!("can't be read: {error}")));
                found.unreadable.push(path.clone());
                continue;
            }
        };
        for file in files {
            let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            match by_name.get(&name) {
                Some(first) if same_file(first, &file) => {}
                Some(first) => {
                    let message = format!("two pipelines are named `{name}`");
                    let help = format!("the other one is {}: rename one of them", first.display());
                    found.problems.push(Diagnostic::of_file(&file, message).help(help));
                }
                None => {
                    by_name.insert(name, file);
                }
            }
        }
    }
    found.files = by_name.into_iter().map(|(name, path)| ConfigFile { name, path }).collect();
    found
}

fn files_of(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if !is_config(&path) {
            continue;
        }
        // A symbolic link to nowhere stays in the list, so that loading it says what is wrong. Neither a folder nor a
        // pipe is a file that can be read to its end.
        match std::fs::metadata(&path) {
            Ok(metadata) if !metadata.is_file() => {}
            _ => files.push(path),
        }
    }
    files.sort();
    Ok(files)
}

/// `*.toml`, but neither hidden (`.#a.toml`, Emacs' lock) nor a leaving (`#a.toml#`, `~$a.toml`, `a.toml~`).
fn is_config(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    path.extension().is_some_and(|extension| extension == "toml") && !name.starts_with(['.', '#', '~'])
}

fn same_file(one: &Path, other: &Path) -> bool {
    one == other
        || match (one.canonicalize(), other.canonicalize()) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    fn names(found: &Discovery) -> Vec<&str> {
        found.files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn takes_toml_files_and_leaves_what_editors_leave() {
        let folder = folder(&[
            "b.toml",
            "a.toml",
            ".a.toml.swp",
            ".#a.toml",
            "#a.toml#",
            "a.toml~",
            "~$a.toml",
            "a.toml.bak",
            ".hidden.toml",
            "a.toml.orig",
            "4913",
            "notes.md",
            "deeper/c.toml",
            "folder.toml/x",
        ]);
        std::os::unix::fs::symlink(folder.path().join("gone"), folder.path().join("dangling.toml")).unwrap();
        let found = discover(&[folder.path().to_owned()]);
        assert_eq!(names(&found), ["a", "b", "dangling"]);
        assert!(found.problems.is_empty() && found.unreadable.is_empty());
    }

    #[test]
    fn a_named_file_counts_whatever_it_is_called() {
        let folder = folder(&["pipeline.conf", "a.toml"]);
        let found = discover(&[folder.path().join("pipeline.conf"), folder.path().to_owned()]);
        assert_eq!(names(&found), ["a", "pipeline"]);
    }

    #[test]
    fn the_first_of_one_name_counts() {
        let (one, other) = (folder(&["a.toml"]), folder(&["a.toml", "b.toml"]));
        let found = discover(&[other.path().to_owned(), one.path().to_owned()]);
        assert_eq!(names(&found), ["a", "b"]);
        assert_eq!(found.files[0].path, other.path().join("a.toml"));
        assert_eq!(found.problems.len(), 1);
        assert_eq!(found.problems[0].file, one.path().join("a.toml"));
        assert_eq!(found.problems[0].message, "two pipelines are named `a`");
        // One file by two ways is no conflict.
        let found = discover(&[one.path().to_owned(), one.path().join("a.toml"), one.path().join("./a.toml")]);
        assert_eq!((names(&found), found.problems.len()), (vec!["a"], 0));
    }

    #[test]
    fn what_can_not_be_read_is_said() {
        let folder = folder(&["a.toml"]);
        let gone = folder.path().join("gone");
        let found = discover(&[gone.clone(), folder.path().to_owned()]);
        assert_eq!(names(&found), ["a"]);
        assert_eq!(found.unreadable, [gone]);
        assert!(found.problems[0].message.starts_with("can't be read: No such file"), "{:?}", found.problems);
    }
}
