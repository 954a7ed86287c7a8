//! Following: which files there are now, and what became of those that are open.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use acequia_connector_api::ConnectorError;

use crate::errors::could_not;
use crate::identity::{FileId, is_missing};
use crate::listing::Listing;
use crate::open::{list, open_listed};
use crate::source::Reader;
use crate::tail::Tail;

/// How long a file that was rotated away must be quiet before it is let go: its writer may still have it open, and go
/// over to the new one only when it is told to.
pub(crate) fn grace(poll: Duration) -> Duration {
    poll.saturating_mul(4)
}

impl Reader {
    /// Go on with files that were rotated to a name outside the listing while the pipeline was down.
    pub(crate) fn resume_renamed(&mut self) -> Result<(), ConnectorError> {
        let listed = self.listed()?;
        let renamed = self.entries.take_renamed(&listed);
        let renamed = renamed.map_err(|error| {
            ConnectorError::retryable(format!(
                "could not look for rotated files of `{}`: {error}",
                self.listing.shown()
            ))
        })?;
        for (now, found) in renamed {
            let (file, id) = open_listed(&now)?;
            let mut tail = Tail::new(found.path, file, id, Some(found.entry), &self.options, self.max_record);
            tail.rotated = Some(Instant::now());
            self.tails.push(tail);
        }
        Ok(())
    }

    /// Look at the names: new files, renamed files, files whose name another one has now.
    pub(crate) fn scan(&mut self) -> Result<(), ConnectorError> {
        let listed = self.listed()?;
        self.follow_renames(&listed);
        for (path, _) in listed {
            // A file that is rotated away keeps its name here until it is read to its end; then its successor gets it.
            if self.tails.iter().any(|tail| tail.path == path) {
                continue;
            }
            match self.open_tail(path.clone()) {
                Ok(tail) => {
                    self.left_out.remove(&path);
                    self.tails.push(tail);
                }
                // Gone again already.
                Err(_) if !path.exists() => {}
                Err(error) if matches!(self.listing, Listing::One(_)) => return Err(error),
                Err(error) => {
                    // The other files must not wait for it. Said once, tried each time.
                    if self.left_out.insert(path) {
                        tracing::warn!(%error, "a file that matches the pattern is left out for now");
                    }
                }
            }
        }
        // A pattern means reading whole folders: less often.
        let pause = match self.listing {
            Listing::One(_) => self.poll,
            Listing::Pattern(_) => self.poll.saturating_mul(4),
        };
        self.next_scan = Instant::now() + pause;
        Ok(())
    }

    fn listed(&self) -> Result<Vec<(PathBuf, FileId)>, ConnectorError> {
        let mut listed = Vec::new();
        for path in list(&self.listing)? {
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => listed.push((path, FileId::of(&metadata))),
                Ok(_) => {}
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(could_not("look at", &path, error)),
            }
        }
        Ok(listed)
    }

    /// An open file that the listing has under another name goes on under that one; one that it does not have any more is
    /// read to its end.
    fn follow_renames(&mut self, listed: &[(PathBuf, FileId)]) {
        let mut renamed = Vec::new();
        for (index, tail) in self.tails.iter_mut().enumerate() {
            let is_here = |(path, id): &&(PathBuf, FileId)| *path == tail.path && *id == tail.id;
            if listed.iter().any(|entry| is_here(&entry)) {
                tail.rotated = None;
            } else if let Some((path, _)) = listed.iter().find(|(_, id)| *id == tail.id) {
                renamed.push((index, path.clone()));
            } else if tail.rotated.is_none() && (listed.iter().any(|(path, _)| *path == tail.path) || is_deleted(tail))
            {
                tail.rotated = Some(Instant::now());
            }
        }
        // A chain of renames (log.1 to log.2, log to log.1) moves at once: first all old names go.
        for (index, _) in &renamed {
            if let Some(tail) = self.tails.get(*index) {
                self.building.forget(&tail.partition);
            }
        }
        for (index, path) in renamed {
            if let Some(tail) = self.tails.get_mut(index) {
                tail.rename(path);
                self.building.note(tail);
            }
        }
    }
}

/// Whether no name leads to the file any more.
fn is_deleted(tail: &Tail) -> bool {
    use std::os::unix::fs::MetadataExt;
    tail.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
}
