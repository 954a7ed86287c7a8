//! Errors of input and output, with the path that they are about.

use std::fs::File;
use std::io;
use std::path::Path;

use acequia_connector_api::{ConnectorError, Kind};
use serde::Serialize;
use serde_json::Value;

/// `could not ACTION `PATH``, because of `cause`. Retryable: disks get space again, rights are mended.
pub(crate) fn could_not(action: &str, path: &Path, cause: impl std::fmt::Display) -> ConnectorError {
    ConnectorError::retryable(format!("could not {action} `{}`: {cause}", path.display()))
}

/// The call must not be made again: the pipeline has to go back to its checkpoint.
pub(crate) fn fatal(error: ConnectorError) -> ConnectorError {
    ConnectorError { kind: Kind::Failed, ..error }
}

/// A state as it goes into the checkpoint.
pub(crate) fn state_value(state: &impl Serialize) -> Result<Value, ConnectorError> {
    serde_json::to_value(state).map_err(|error| ConnectorError::failed(format!("could not store the state: {error}")))
}

/// Bring the folder's entry for `path` to disk: without it a new file may be gone after a power cut, whatever was synced
/// of its content.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
