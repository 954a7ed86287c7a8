//! The files that a `path` with or without wildcards names.

use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern, PatternError};

/// What a source's `path` names: one file, or all that match a pattern.
#[derive(Clone, Debug)]
pub(crate) enum Listing {
    One(PathBuf),
    Pattern(String),
}

/// `*` and `?` stop at a folder's border and do match a leading dot only where it is written, as in a shell.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Whether the pattern can be read.
pub(crate) fn check(path: &str) -> Result<(), PatternError> {
    if has_wildcard(path) { Pattern::new(path).map(drop) } else { Ok(()) }
}

fn has_wildcard(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

impl Listing {
    /// `path` starts from `base`. A file whose very name has a `[` or `*` in it is taken before the pattern.
    pub(crate) fn new(base: &Path, path: &str) -> Self {
        let literal = normalize(&base.join(path));
        if !has_wildcard(path) || literal.is_file() {
            return Listing::One(literal);
        }
        if Path::new(path).is_absolute() {
            return Listing::Pattern(path.to_owned());
        }
        // The folder of the configuration is no pattern, whatever it is called.
        Listing::Pattern(format!("{}/{path}", Pattern::escape(&normalize(base).to_string_lossy())))
    }

    /// Every file that it names now, sorted by name. Folders are left out.
    ///
    /// # Errors
    /// If the pattern is none or a folder can't be read.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>, String> {
        match self {
            Listing::One(path) => Ok(if path.exists() { vec![path.clone()] } else { Vec::new() }),
            Listing::Pattern(pattern) => {
                let matches = glob::glob_with(pattern, OPTIONS).map_err(|error| error.to_string())?;
                let mut files = Vec::new();
                for path in matches {
                    let path = path.map_err(|error| error.to_string())?;
                    if !path.is_dir() {
                        files.push(normalize(&path));
                    }
                }
                files.sort();
                files.dedup();
                Ok(files)
            }
        }
    }

    /// For messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            Listing::One(path) => path.display().to_string(),
            Listing::Pattern(pattern) => pattern.clone(),
        }
    }
}

/// Without `.` and `..`, by the letters alone, so that one file has one spelling.
pub(crate) fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !matches!(normal.components().next_back(), Some(Component::Normal(_))) || !normal.pop() {
                    normal.push("..");
                }
            }
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_has_one_spelling() {
        for (path, normal) in [("/a/./b/../c", "/a/c"), ("a/../../b", "../b"), ("/a//b/", "/a/b")] {
            assert_eq!(normalize(Path::new(path)), Path::new(normal));
        }
    }

    #[test]
    fn matches_are_sorted_and_folders_left_out() {
        // The folder's own name looks like a pattern, and must not be taken for one.
        let folder = tempfile::Builder::new().prefix("[a-b]*").tempdir().unwrap();
        for name in ["b.json", "a.json", "c.txt", ".hidden.json"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("d.json")).unwrap();
        let names = |pattern: &str| -> Vec<String> {
            let files = Listing::new(folder.path(), pattern).files().unwrap();
            files.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names("*.json"), ["a.json", "b.json"]);
        assert_eq!(names("./[bc].*"), ["b.json", "c.txt"]);
        assert_eq!(names("c.txt"), ["c.txt"]);
        assert!(names("*.csv").is_empty());

        std::fs::write(folder.path().join("e[1].json"), "").unwrap();
        assert_eq!(names("e[1].json"), ["e[1].json"], "a name before a pattern");
        assert!(check("a[").is_err());
    }
}
