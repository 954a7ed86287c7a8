//! The `socket` source.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use acequia_tests::conformance::{Place, SourceWorld, text_of};
use acequia_tests::wait_until;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The other side: a thread that sends lines as fast as they are taken.
pub struct Peer {
    config: String,
    place: Option<PathBuf>,
    address: Option<SocketAddr>,
    queue: Option<Sender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    given: u64,
    _folder: TempDir,
}

#[derive(Default)]
struct Shared {
    /// Bytes that the kernel has taken.
    written: AtomicU64,
    /// Both ends of a TCP connection: this one, and the source's.
    ends: Mutex<Option<(SocketAddr, SocketAddr)>>,
    gone: AtomicBool,
}

impl Shared {
    fn send(&self, mut stream: impl Write, queue: &Receiver<Vec<u8>>) {
        while let Ok(bytes) = queue.recv() {
            for piece in bytes.chunks(4 << 10) {
                if stream.write_all(piece).is_err() {
                    return;
                }
                self.written.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        }
    }

    fn send_tcp(&self, stream: TcpStream, queue: &Receiver<Vec<u8>>) {
        *self.ends.lock().unwrap() = Some((stream.local_addr().unwrap(), stream.peer_addr().unwrap()));
        self.send(stream, queue);
    }

    /// Try until it works, or until the world is gone.
    fn attempt<T>(&self, mut connect: impl FnMut() -> std::io::Result<T>) -> Option<T> {
        while !self.gone.load(Ordering::Relaxed) {
            if let Ok(stream) = connect() {
                return Some(stream);
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        None
    }
}

impl Peer {
    fn new(config: String, folder: TempDir, work: impl FnOnce(&Shared, &Receiver<Vec<u8>>) + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let (queue, receiver) = channel();
        let there = shared.clone();
        let writer = std::thread::spawn(move || work(&there, &receiver));
        Peer {
            config,
            place: None,
            address: None,
            queue: Some(queue),
            writer: Some(writer),
            shared,
            given: 0,
            _folder: folder,
        }
    }

    /// A server, which the source connects to.
    pub fn that_listens() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let config = format!("type = 'socket'\naddress = '{address}'");
        Peer::new(config, tempfile::tempdir().unwrap(), move |shared, queue| {
            let Some((stream, _)) = shared.attempt(|| listener.accept()) else { return };
            stream.set_nonblocking(false).unwrap();
            shared.send_tcp(stream, queue);
            // A source that is opened again finds the server still there.
            shared.attempt(|| Err::<(), _>(std::io::ErrorKind::WouldBlock.into()));
            drop(listener);
        })
    }

    /// A client of a source that listens.
    pub fn that_connects() -> Self {
        // An address of this process alone: nobody else takes the port between here and the source.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let own = Ipv4Addr::new(127, 77, high, low);
        let address = TcpListener::bind((own, 0)).and_then(|listener| listener.local_addr()).unwrap();
        let config = format!("type = 'socket'\naddress = '{address}'\nlisten = true");
        let mut peer = Peer::new(config, tempfile::tempdir().unwrap(), move |shared, queue| {
            let Some(stream) = shared.attempt(|| TcpStream::connect(address)) else { return };
            shared.send_tcp(stream, queue);
        });
        peer.address = Some(address);
        peer
    }

    /// The same with a Unix socket.
    pub fn that_connects_to_a_path() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.sock");
        let config = format!("type = 'socket'\nunix = '{}'\nlisten = true", path.display());
        let there = path.clone();
        let mut peer = Peer::new(config, folder, move |shared, queue| {
            let Some(stream) = shared.attempt(|| UnixStream::connect(&there)) else { return };
            shared.send(stream, queue);
        });
        peer.place = Some(path);
        peer
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::Relaxed);
        self.queue = None;
        self.writer.take().unwrap().join().unwrap();
    }
}

impl SourceWorld for Peer {
    fn config(&self) -> toml::Table {
        let text = format!("{}\nformat = 'json'\nschema = {{ n = 'int64', text = 'text' }}", self.config);
        toml::from_str(&text).unwrap()
    }

    fn prepare(&mut self, numbers: Range<u64>, more: usize) {
        let mut bytes = Vec::new();
        for number in numbers {
            let line = match self.broken(number) {
                true => format!(r#"{{"n":{number},"text":}}"#),
                false => json!({ "n": number, "text": text_of(number, more) }).to_string(),
            };
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
        }
        self.given += bytes.len() as u64;
        // Fails if the source has closed the connection: then nobody waits for these rows.
        let _ = self.queue.as_ref().unwrap().send(bytes);
    }

    fn number(&self, row: &Value, more: usize) -> u64 {
        let number = row["n"].as_u64().unwrap();
        assert_eq!(*row, json!({ "n": number, "text": text_of(number, more) }));
        number
    }

    /// Lines of the one connection.
    fn place(&self, number: u64) -> Option<Place> {
        Some(Place { partition: None, offset: i64::try_from(number).unwrap() + 1 })
    }

    fn broken(&self, number: u64) -> bool {
        number % 11 == 4
    }

    fn replays(&self) -> bool {
        false
    }

    /// Sent, and no byte is left in the kernel on either side.
    fn settle(&mut self) -> bool {
        if self.place.is_some() {
            return false;
        }
        wait_until("the source has read all that was sent", || {
            let ends = *self.shared.ends.lock().unwrap();
            self.shared.written.load(Ordering::Relaxed) == self.given && ends.is_some_and(|ends| in_kernel(ends) == 0)
        });
        true
    }

    fn taken(&self) -> Option<u64> {
        Some(self.shared.written.load(Ordering::Relaxed))
    }

    fn assert_free(&self) {
        if let Some(address) = self.address {
            TcpListener::bind(address).unwrap_or_else(|error| panic!("{address} is not free: {error}"));
        }
        if let Some(path) = &self.place {
            UnixListener::bind(path).unwrap_or_else(|error| panic!("{} is not free: {error}", path.display()));
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// Bytes of this connection that wait in the kernel, unsent or unread.
fn in_kernel((here, there): (SocketAddr, SocketAddr)) -> u64 {
    let (here, there) = (in_proc(here), in_proc(there));
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let mut bytes = 0;
    for line in table.lines().skip(1) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (unsent, unread) = columns[4].split_once(':').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        if columns[1] == here && columns[2] == there {
            bytes += number(unsent);
        } else if columns[1] == there && columns[2] == here {
            bytes += number(unread);
        }
    }
    bytes
}

/// As the kernel's table has it: the address as a number in the machine's byte order.
fn in_proc(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { panic!("{address} is IPv6") };
    let ip = u32::from_ne_bytes(SocketAddrV4::ip(&address).octets());
    format!("{ip:08X}:{:04X}", address.port())
}
