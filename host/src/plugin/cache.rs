//! Compiled components on disk.
//!
//! Compiled code is native code: who can write a cache file can run code in the daemon. A file is therefore only used if
//! it and its folder belong to the daemon's own user (or root) and nobody else may write to them; it is read through the
//! descriptor that was checked. A checksum finds files that are damaged: it is no defence against somebody who
//! may write there, and does not need to be one.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::Engine;
use wasmtime::component::Component;

/// Version of the file's layout: magic, checksum of the rest (BLAKE3), content hash of the `.wasm` (BLAKE3), code.
const MAGIC: &[u8; 8] = b"acequia1";
const HASH: usize = blake3::OUT_LEN;
const HEADER: usize = MAGIC.len() + 2 * HASH;

/// A folder with compiled components.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    /// Names what the code depends on beside the `.wasm`: wasmtime's version, its settings, the processor's features.
    engine: String,
}

impl Cache {
    /// Use `folder`, made if it is missing.
    ///
    /// # Errors
    /// If it can't be made or others may write to it.
    pub(crate) fn open(folder: &Path, engine: &Engine) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        check_owner(&std::fs::metadata(folder)?)?;
        // The hash may differ from one Rust release to the next: then everything is compiled once more.
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Cache { folder: folder.to_owned(), engine: format!("{:016x}", hasher.finish()) })
    }

    fn file(&self, hash: &blake3::Hash) -> PathBuf {
        self.folder.join(format!("{}-{}.bin", hash.to_hex(), self.engine))
    }

    /// The compiled component of the `.wasm` with that content, if there is a good one. A bad one is reported and counts
    /// as none.
    pub(crate) fn load(&self, engine: &Engine, hash: &blake3::Hash) -> Option<Component> {
        let path = self.file(hash);
        match self.try_load(engine, &path, hash) {
            Ok(component) => Some(component),
            Err(error)
                if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) =>
            {
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), "compiled code is not usable, compiling again: {error}");
                None
            }
        }
    }

    fn try_load(&self, engine: &Engine, path: &Path, hash: &blake3::Hash) -> wasmtime::Result<Component> {
        check_owner(&std::fs::metadata(&self.folder)?)?;
        let mut file = File::open(path)?;
        check_owner(&file.metadata()?)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let code = unwrap(&bytes, hash)?;
        // SAFETY: `deserialize` trusts its input, as it must: it is code. The input was written by `store`, that is, by
        // this daemon from what wasmtime compiled: nobody but this user or root could write the file or put another in
        // its place (checked above, on the open file), the checksum says that all of it is still there, and it is the code
        // for this very content. Wasmtime itself refuses code of another version or for other settings.
        unsafe { Component::deserialize(engine, code) }
    }

    /// Keep a compiled component. A failure costs only time at the next start, so it is logged and that is all.
    pub(crate) fn store(&self, component: &Component, hash: &blake3::Hash) {
        let path = self.file(hash);
        if let Err(error) = self.try_store(component, &path, hash) {
            tracing::warn!(path = %path.display(), "compiled code can't be kept: {error}");
        }
    }

    fn try_store(&self, component: &Component, path: &Path, hash: &blake3::Hash) -> wasmtime::Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let bytes = wrap(&component.serialize()?, hash);
        // Another daemon may write the same file at the same time: each has its own name until it is whole.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(format!(".{}-{number}.tmp", std::process::id()));
        let written = write_new(&temporary, &bytes).and_then(|()| std::fs::rename(&temporary, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        Ok(written?)
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What an earlier process with the same number left behind.
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

fn wrap(code: &[u8], hash: &blake3::Hash) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + code.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(checksum(hash.as_bytes(), code).as_bytes());
    bytes.extend_from_slice(hash.as_bytes());
    bytes.extend_from_slice(code);
    bytes
}

fn unwrap<'a>(bytes: &'a [u8], hash: &blake3::Hash) -> wasmtime::Result<&'a [u8]> {
    let Some((header, code)) = bytes.split_at_checked(HEADER) else {
        wasmtime::bail!("the file is cut short");
    };
    let (magic, hashes) = header.split_at(MAGIC.len());
    let (sum, content) = hashes.split_at(HASH);
    if magic != MAGIC {
        wasmtime::bail!("the file has another layout");
    }
    if content != hash.as_bytes() {
        wasmtime::bail!("the file belongs to another plugin");
    }
    if sum != checksum(content, code).as_bytes() {
        wasmtime::bail!("the file is damaged");
    }
    Ok(code)
}

fn checksum(content: &[u8], code: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(content).update(code).finalize()
}

fn check_owner(metadata: &Metadata) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user && metadata.uid() != 0 {
        return Err(io::Error::other(format!("it belongs to user {}, not to user {user}", metadata.uid())));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("others may write to it: take that right away (chmod go-w)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const WAT: &[u8] = b"(component)";

    fn fixture() -> (tempfile::TempDir, Engine, Cache, blake3::Hash) {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = Cache::open(&folder.path().join("compiled"), &engine).unwrap();
        let hash = blake3::hash(WAT);
        assert!(cache.load(&engine, &hash).is_none());
        cache.store(&Component::new(&engine, WAT).unwrap(), &hash);
        (folder, engine, cache, hash)
    }

    #[test]
    fn keeps_and_finds() {
        let (_folder, engine, cache, hash) = fixture();
        assert!(cache.load(&engine, &hash).is_some());
        let names: Vec<_> = std::fs::read_dir(&cache.folder).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file is left: {names:?}");
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let other = Engine::new(&config).unwrap();
        let other_cache = Cache::open(&cache.folder, &other).unwrap();
        assert!(other_cache.load(&other, &hash).is_none(), "another engine's code is not used");
    }

    #[test]
    fn a_damaged_or_foreign_file_counts_as_none() {
        let (_folder, engine, cache, hash) = fixture();
        let path = cache.file(&hash);
        let good = std::fs::read(&path).unwrap();
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let other = wrap(&good[HEADER..], &blake3::hash(b"other"));
        for bad in [&flipped[..], &good[..good.len() - 1], &good[..10], b"", &other] {
            std::fs::write(&path, bad).unwrap();
            assert!(cache.load(&engine, &hash).is_none());
        }
        std::fs::write(&path, &good).unwrap();
        assert!(cache.load(&engine, &hash).is_some());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o622)).unwrap();
        assert!(cache.load(&engine, &hash).is_none(), "others may write it");
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let error = Cache::open(folder.path(), &Engine::default()).unwrap_err();
        assert_eq!(error.to_string(), "others may write to it: take that right away (chmod go-w)");
    }
}
