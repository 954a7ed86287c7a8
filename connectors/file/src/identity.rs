//! Which file is this? A name can come to mean another file (rotation, an editor that saves by renaming), a file can be
//! cut short and written anew, and an inode number is given out again as soon as its file is gone. So a checkpoint
//! remembers the inode **and** the content just before its offset.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How many bytes before an offset are remembered by their hash.
const FINGERPRINT: u64 = 4096;

/// Device and inode: what a file is while it exists, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }

    /// The file that `path` names now; `None` if there is none.
    pub(crate) fn at(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(FileId::of(&metadata))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether the error says that there is no such file, or no folder that could hold it.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A place in a file, and what tells whether a file that is found later is still that one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// The file.
    #[serde(flatten)]
    pub(crate) id: FileId,
    /// The place: bytes from the start.
    pub(crate) offset: u64,
    /// Hash of the bytes before it, in hexadecimal: 64 bits don't survive a JSON reader that only knows doubles.
    fingerprint: String,
}

impl Mark {
    pub(crate) fn new(file: &File, id: FileId, offset: u64) -> io::Result<Self> {
        Ok(Mark { id, offset, fingerprint: fingerprint(file, offset)? })
    }

    /// A mark that fits no file.
    pub(crate) fn of_nothing(id: FileId, offset: u64) -> Self {
        Mark { id, offset, fingerprint: String::new() }
    }

    /// Whether the file has, up to this place, the content that it had.
    pub(crate) fn fits(&self, file: &File) -> io::Result<bool> {
        Ok(file.metadata()?.len() >= self.offset
            && !self.fingerprint.is_empty()
            && fingerprint(file, self.offset)? == self.fingerprint)
    }

    /// The marked file under whatever name it has in the folder of `path` now: where a rotation leaves it.
    pub(crate) fn find_renamed(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        let Some(folder) = path.parent() else { return Ok(None) };
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            // Cheap first: the entry's own metadata does not follow a link, and a file that was renamed is none.
            let Ok(metadata) = entry.metadata() else { continue };
            let is_ours = metadata.is_file() && FileId::of(&metadata) == self.id && entry.path() != path;
            if is_ours && File::open(entry.path()).and_then(|file| self.fits(&file)).unwrap_or(false) {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo; RFC 9923), of the last bytes before `offset`.
fn fingerprint(file: &File, offset: u64) -> io::Result<String> {
    let length = offset.min(FINGERPRINT);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    match file.read_exact_at(&mut bytes, offset - length) {
        Ok(()) => Ok(format!("{:016x}", fnv1a(&bytes))),
        // Cut short meanwhile: a fingerprint that nothing has.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(String::new()),
        Err(error) => Err(error),
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_published() {
        // RFC 9923, appendix C: test vectors for FNV-1a 64.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn knows_a_file_by_its_content_and_finds_it_after_a_rename() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let file = File::open(&path).unwrap();
        let id = FileId::at(&path).unwrap().unwrap();
        let mark = Mark::new(&file, id, 4).unwrap();
        assert!(mark.fits(&file).unwrap());
        assert_eq!(mark.find_renamed(&path).unwrap(), None);

        std::fs::rename(&path, folder.path().join("log.1")).unwrap();
        std::fs::write(&path, "other\n").unwrap();
        assert!(!mark.fits(&File::open(&path).unwrap()).unwrap());
        assert_eq!(mark.find_renamed(&path).unwrap(), Some(folder.path().join("log.1")));

        std::fs::write(folder.path().join("log.1"), "on").unwrap();
        assert_eq!(mark.find_renamed(&path).unwrap(), None, "cut short: no longer what it was");
    }
}
