//! TCP and Unix sockets behind one face.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncRead;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// How long a connection may be silent before the kernel asks whether the other side is still there, and how often it asks
/// again. Without that a peer that lost its power would look like one with nothing to say, for ever.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// An established connection.
pub(crate) type Stream = Box<dyn AsyncRead + Send + Unpin>;

/// Where to connect to or to listen on.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    Tcp(String),
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => formatter.write_str(address),
            Endpoint::Unix(path) => write!(formatter, "{}", path.display()),
        }
    }
}

impl Endpoint {
    /// Connect; also brings the name of the other side.
    pub(crate) async fn connect(&self) -> io::Result<(Stream, String)> {
        match self {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                let peer = stream.peer_addr()?;
                watch_over(&stream);
                Ok((Box::new(stream), peer.to_string()))
            }
            Endpoint::Unix(path) => Ok((Box::new(UnixStream::connect(path).await?), self.to_string())),
        }
    }

    pub(crate) async fn listen(&self) -> io::Result<Listener> {
        match self {
            Endpoint::Tcp(address) => Ok(Listener::Tcp(TcpListener::bind(address).await?)),
            Endpoint::Unix(path) => {
                remove_stale(path).await?;
                let listener = UnixListener::bind(path)?;
                let file = SocketFile { path: path.clone(), identity: identity(path)? };
                Ok(Listener::Unix { listener, file, accepted: 0 })
            }
        }
    }
}

/// A socket that accepts connections.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix { listener: UnixListener, file: SocketFile, accepted: u64 },
}

impl Listener {
    /// The next client and its name. A client of a Unix socket has no address: it gets a number. Cancel safe.
    pub(crate) async fn accept(&mut self) -> io::Result<(Stream, String)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                watch_over(&stream);
                Ok((Box::new(stream), peer.to_string()))
            }
            Listener::Unix { listener, file, accepted } => {
                let (stream, _) = listener.accept().await?;
                *accepted += 1;
                Ok((Box::new(stream), format!("{}#{accepted}", file.path.display())))
            }
        }
    }

    /// The address that a TCP listener really has (port 0 is any free one).
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix { .. } => None,
        }
    }
}

/// Only a convenience, so that a system that has no keepalive is no error.
fn watch_over(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// The file of a Unix listener. It goes when the listener goes, unless another socket has taken the path by then.
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // Nothing can be done about a failure; the next listener removes it as stale.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Remove what a listener that died has left behind, and nothing else: not a file, not a socket that somebody listens on.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file there that is not a socket"));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.sock");
        let endpoint = Endpoint::Unix(path.clone());
        // A listener that died leaves its file.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = endpoint.listen().await.unwrap();
        let error = endpoint.listen().await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(!path.exists());
        // A file that was put there on purpose stays, and the error says what it is.
        std::fs::write(&path, "precious").unwrap();
        let error = endpoint.listen().await.err().unwrap();
        assert_eq!(error.to_string(), "there is a file there that is not a socket");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn the_old_listener_leaves_the_new_ones_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.sock");
        let endpoint = Endpoint::Unix(path.clone());
        let old = endpoint.listen().await.unwrap();
        std::fs::rename(&path, folder.path().join("aside")).unwrap();
        let new = endpoint.listen().await.unwrap();
        drop(old);
        assert!(path.exists());
        drop(new);
        assert!(!path.exists());
    }
}
