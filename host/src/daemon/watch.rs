//! When to look at the directories again.
//!
//! An event of the file system is only a hint that something may have changed: what did is found by content. So that a
//! hint which never came costs little, there is a slow re-scan as well.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long it must be quiet after an event: editors and deployments write in several steps.
const QUIET: Duration = Duration::from_millis(50);
/// How long events that do not end are waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often everything is looked at without any event.
pub(super) const RESCAN: Duration = Duration::from_secs(5);

/// What tells a folder from another one of its name. The number of a deleted folder is soon given away again: hence its
/// birth, where the file system knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

/// Watches folders.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    events: mpsc::Receiver<()>,
    /// An event that nobody has been told of yet.
    pending: bool,
    watched: BTreeMap<PathBuf, Id>,
}

impl Watch {
    pub(super) fn new() -> Self {
        // One waiting event says as much as a thousand.
        let (sender, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is no change; without this, every pass would cause the next.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = sender.try_send(());
            }
        });
        let watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(error = error.to_string(), "files can't be watched: changes are found every {RESCAN:?}");
                None
            }
        };
        Watch { watcher, events, pending: false, watched: BTreeMap::new() }
    }

    /// Watch the folders of these paths and no others. What is a symbolic link is watched where it points to, and beside it,
    /// so that its swap is seen. A folder that has been put in the place of one that was watched is watched anew.
    pub(super) fn set(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let mut wanted = BTreeMap::new();
        let mut want = |folder: PathBuf| {
            if let Ok(metadata) = std::fs::metadata(&folder) {
                wanted.insert(
                    folder,
                    Id { device: metadata.dev(), inode: metadata.ino(), born: metadata.created().ok() },
                );
            }
        };
        for path in paths {
            let path = std::path::absolute(&path).unwrap_or(path);
            match path.canonicalize() {
                Ok(real) if real.is_dir() => {
                    want(real);
                    if !path.is_symlink() {
                        continue;
                    }
                }
                Ok(real) => {
                    if let Some(parent) = real.parent() {
                        want(parent.to_owned());
                    }
                }
                Err(_) => {}
            }
            if let Some(parent) = path.parent().and_then(|parent| parent.canonicalize().ok()) {
                want(parent);
            }
        }
        let Some(watcher) = &mut self.watcher else { return };
        self.watched.retain(|folder, id| {
            let stays = wanted.get(folder) == Some(id);
            if !stays {
                // It may be gone already, which is why it is no longer wanted.
                let _ = watcher.unwatch(folder);
            }
            stays
        });
        for (folder, id) in wanted {
            if !self.watched.contains_key(&folder) && watch(watcher, &folder) {
                self.watched.insert(folder, id);
            }
        }
    }

    /// Something may have changed, and it has been quiet since; or the time for a re-scan has come. Cancel safe: an event
    /// that came is told at the next call, if this one is dropped while it waits for quiet.
    pub(super) async fn changed(&mut self, rescan: Instant) {
        if self.watcher.is_none() {
            tokio::time::sleep_until(rescan).await;
            return;
        }
        if !self.pending {
            tokio::select! {
                _ = self.events.recv() => self.pending = true,
                () = tokio::time::sleep_until(rescan) => return,
            }
        }
        let patience = Instant::now() + PATIENCE;
        while let Ok(Some(())) = tokio::time::timeout(QUIET, self.events.recv()).await {
            if Instant::now() >= patience {
                break;
            }
        }
        self.pending = false;
    }
}

fn watch(watcher: &mut RecommendedWatcher, folder: &Path) -> bool {
    match watcher.watch(folder, RecursiveMode::NonRecursive) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(folder = %folder.display(), error = error.to_string(),
                "the folder can't be watched: changes in it are found every {RESCAN:?}");
            false
        }
    }
}
