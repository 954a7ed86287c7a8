//! What a stored position knows of files, and finding the file that an entry speaks of.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use acequia_connector_api::Position;
use serde::de::DeserializeOwned;

use crate::identity::{FileId, Mark};

/// The entries of a position that no open file has claimed yet.
pub(crate) struct Entries<E> {
    by_path: BTreeMap<PathBuf, E>,
    mark_of: fn(&E) -> &Mark,
}

/// An entry, and the path that it was stored under.
pub(crate) struct Found<E> {
    pub(crate) path: PathBuf,
    pub(crate) entry: E,
}

impl<E: DeserializeOwned> Entries<E> {
    /// The entries of `position`. Those that speak of no file of `files` are removed from both, so that a position does
    /// not grow for ever; see [`Entries::all`] to keep them.
    pub(crate) fn new(position: &mut Position, files: &[(PathBuf, FileId)], mark_of: fn(&E) -> &Mark) -> Self {
        let mut entries = Entries::all(position, mark_of);
        let paths: HashSet<&Path> = files.iter().map(|(path, _)| path.as_path()).collect();
        let ids: HashSet<FileId> = files.iter().map(|(_, id)| *id).collect();
        entries.by_path.retain(|path, entry| {
            let keep = paths.contains(path.as_path()) || ids.contains(&mark_of(entry).id);
            if !keep {
                position.0.remove(path.to_string_lossy().as_ref());
            }
            keep
        });
        entries
    }

    /// Every entry of `position`. The empty name is not a file's.
    pub(crate) fn all(position: &Position, mark_of: fn(&E) -> &Mark) -> Self {
        let by_path = position
            .0
            .iter()
            .filter(|(path, _)| !path.is_empty())
            .filter_map(|(path, value)| Some((PathBuf::from(path), E::deserialize(value).ok()?)))
            .collect();
        Entries { by_path, mark_of }
    }

    /// The entry that speaks of this open file: that of its inode under whatever name, else that of its name; in either
    /// case only if the content up to there is the same.
    pub(crate) fn take(&mut self, path: &Path, id: FileId, file: &File) -> io::Result<Option<Found<E>>> {
        let same_id = |entry: &E| (self.mark_of)(entry).id == id;
        // Its own name first: two names may be hard links of one file.
        let own = self.by_path.get(path).is_some_and(same_id).then(|| path.to_owned());
        let by_id = own.or_else(|| self.by_path.iter().find(|(_, entry)| same_id(entry)).map(|(path, _)| path.clone()));
        for candidate in by_id.into_iter().chain([path.to_owned()]) {
            let Some(entry) = self.by_path.get(&candidate) else { continue };
            if (self.mark_of)(entry).fits(file)? {
                let entry = self.by_path.remove(&candidate);
                return Ok(entry.map(|entry| Found { path: candidate, entry }));
            }
        }
        Ok(None)
    }

    /// Take out the entries that speak of files which `renamed` finds elsewhere.
    pub(crate) fn take_renamed(&mut self, listed: &[(PathBuf, FileId)]) -> io::Result<Vec<(PathBuf, Found<E>)>> {
        let mut found = Vec::new();
        for path in self.by_path.keys().cloned().collect::<Vec<_>>() {
            let Some(entry) = self.by_path.get(&path) else { continue };
            let mark = (self.mark_of)(entry);
            if listed.iter().any(|(_, id)| *id == mark.id) {
                continue;
            }
            if let Some(now) = mark.find_renamed(&path)?
                && let Some(entry) = self.by_path.remove(&path)
            {
                found.push((now, Found { path, entry }));
            }
        }
        Ok(found)
    }
}
