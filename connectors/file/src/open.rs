//! Finding and opening the files that a source reads.

use std::fs::File;
use std::path::{Path, PathBuf};

use acequia_connector_api::ConnectorError;

use crate::errors::could_not;
use crate::identity::{FileId, is_missing};
use crate::listing::Listing;

/// The files of a finite source with their ids, and their bytes in all.
///
/// # Errors
/// If there is none, or one is no regular file.
pub(crate) fn list_or_fail(listing: &Listing) -> Result<(Vec<(PathBuf, FileId)>, u64), ConnectorError> {
    let paths = list(listing)?;
    if paths.is_empty() {
        return Err(ConnectorError::failed(match listing {
            Listing::One(path) => format!("there is no file `{}`", path.display()),
            Listing::Pattern(pattern) => format!("no file matches the pattern `{pattern}`"),
        }));
    }
    let (mut files, mut total) = (Vec::with_capacity(paths.len()), 0);
    for path in paths {
        let metadata = std::fs::metadata(&path).map_err(|error| could_not("look at", &path, error))?;
        if !metadata.is_file() {
            return Err(not_regular(&path, metadata.is_dir()));
        }
        total += metadata.len();
        files.push((path, FileId::of(&metadata)));
    }
    Ok((files, total))
}

/// The paths that the listing names now.
pub(crate) fn list(listing: &Listing) -> Result<Vec<PathBuf>, ConnectorError> {
    listing.files().map_err(|error| ConnectorError::retryable(format!("could not list `{}`: {error}", listing.shown())))
}

/// Open a file that a listing named a while ago.
///
/// # Errors
/// Retryable, with a text of its own if the file is gone.
pub(crate) fn open_listed(path: &Path) -> Result<(File, FileId), ConnectorError> {
    // Looked at first: opening a pipe would wait for a writer.
    let metadata = match std::fs::metadata(path) {
        Err(error) if is_missing(&error) => {
            return Err(ConnectorError::retryable(format!(
                "`{}` is gone since the source was opened; put it back, or restart the pipeline to go on without it",
                path.display()
            )));
        }
        metadata => metadata.map_err(|error| could_not("look at", path, error))?,
    };
    if !metadata.is_file() {
        return Err(not_regular(path, metadata.is_dir()));
    }
    let file = File::open(path).map_err(|error| could_not("open", path, error))?;
    let id = FileId::of(&file.metadata().map_err(|error| could_not("look at", path, error))?);
    Ok((file, id))
}

fn not_regular(path: &Path, folder: bool) -> ConnectorError {
    let shown = path.display();
    ConnectorError::failed(if folder {
        format!("`{shown}` is a folder; for the files in it write `{shown}/*`")
    } else {
        format!("`{shown}` is not a regular file; only such can be read again from a checkpoint")
    })
}
