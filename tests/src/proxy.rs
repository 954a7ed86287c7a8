//! A TCP proxy that does to a connection what networks do: cuts it, in the middle of a frame too, slows it down, falls silent.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::sleep;

/// So many bytes are carried at once.
const CHUNK: usize = 16 << 10;

/// How the proxy carries bytes, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// As they come.
    Fair,
    /// Each chunk (16 KiB at most) waits so long.
    Slow(Duration),
    /// So many bytes a second, in each direction of each connection.
    Narrow(u32),
    /// Connections stay open, new ones are taken, and no byte comes through: half-open, as when a cable is pulled.
    Silent,
    /// New connections are reset at once. Those that are there go on.
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct Sky {
    weather: Weather,
    /// Connections of an earlier generation are reset.
    generation: u64,
    /// Connections of an earlier generation carry so many bytes more before they are; `None` for none.
    last_bytes: Option<usize>,
}

/// A proxy in front of one server. It ends, and resets its connections, when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    sky: watch::Sender<Sky>,
    _runtime: Runtime,
}

impl Proxy {
    /// A proxy on a port of its own (see [`Proxy::address`]). Where it leads is said by `target`, `host:port`, which may be
    /// known later: a server may have to be told the proxy's port first.
    ///
    /// # Panics
    /// If there is no port.
    pub fn new(target: watch::Receiver<Option<String>>) -> Proxy {
        let (sky, seen) = watch::channel(Sky { weather: Weather::Fair, generation: 0, last_bytes: None });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()
            .expect("a runtime");
        let port = crate::servers::free_port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = runtime.block_on(TcpListener::bind(address)).expect("the proxy's port is free");
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, target.clone(), seen.clone()));
            }
        });
        Proxy { port, sky, _runtime: runtime }
    }

    /// A proxy to a server that is there.
    ///
    /// # Panics
    /// If there is no port.
    pub fn to(target: &str) -> Proxy {
        // The receiver keeps the last value when the sender is gone.
        Proxy::new(watch::channel(Some(target.to_owned())).1)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on, for the connections that are there and for new ones.
    pub fn set(&self, weather: Weather) {
        self.sky.send_modify(|sky| sky.weather = weather);
    }

    /// Reset all connections.
    pub fn cut(&self) {
        self.sky.send_modify(|sky| (sky.generation, sky.last_bytes) = (sky.generation + 1, None));
    }

    /// Reset all connections, each when it has carried so many bytes more in one direction: in the middle of a frame.
    pub fn cut_after(&self, bytes: usize) {
        self.sky.send_modify(|sky| (sky.generation, sky.last_bytes) = (sky.generation + 1, Some(bytes)));
    }
}

async fn serve(mut client: TcpStream, target: watch::Receiver<Option<String>>, sky: watch::Receiver<Sky>) {
    // A connection is reset by dropping it with nothing to linger for; that there is no such option is no reason to stop.
    let _ = client.set_zero_linger();
    let Sky { weather, generation, .. } = *sky.borrow();
    if weather == Weather::Closed {
        return;
    }
    let Some(address) = target.borrow().clone() else { return };
    let Ok(mut server) = TcpStream::connect(address).await else { return };
    let _ = server.set_zero_linger();
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    // Whichever direction ends first ends both: the connections are dropped.
    tokio::select! {
        () = carry(from_client, to_server, sky.clone(), generation) => {}
        () = carry(from_server, to_client, sky, generation) => {}
    }
}

async fn carry(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut sky: watch::Receiver<Sky>, generation: u64) {
    let mut chunk = vec![0; CHUNK];
    let mut carried_after_cut = 0;
    loop {
        let now = *sky.borrow_and_update();
        let left = match now {
            Sky { generation: current, .. } if current == generation => CHUNK,
            Sky { last_bytes: Some(bytes), .. } if bytes > carried_after_cut => (bytes - carried_after_cut).min(CHUNK),
            _ => return,
        };
        let read = tokio::select! {
            // What has changed holds for the bytes that come after it.
            biased;
            changed = sky.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(&mut chunk[..left]), if now.weather != Weather::Silent => read,
        };
        let count = match read {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let wait = match now.weather {
            Weather::Slow(wait) => wait,
            Weather::Narrow(bytes) => Duration::from_secs_f64(count as f64 / f64::from(bytes.max(1))),
            _ => Duration::ZERO,
        };
        // A chunk may have been read just as silence fell: it waits for the end of it.
        if !wait.is_zero() {
            sleep(wait).await;
        }
        if to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
        if now.generation != generation {
            carried_after_cut += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (Proxy, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::to(&listener.local_addr().unwrap().to_string());
        let client = TcpStream::connect(proxy.address()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        (proxy, client, server)
    }

    fn heard(stream: &mut TcpStream, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn silence_keeps_bytes_and_the_connection() {
        let (proxy, mut client, mut server) = pair();
        client.write_all(b"before").unwrap();
        assert_eq!(heard(&mut server, 6), b"before");
        proxy.set(Weather::Silent);
        client.write_all(b"after").unwrap();
        server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let error = server.read(&mut [0; 8]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        proxy.set(Weather::Fair);
        server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        assert_eq!(heard(&mut server, 5), b"after");
    }

    #[test]
    fn a_cut_may_come_in_the_middle_of_a_frame() {
        let (proxy, mut client, mut server) = pair();
        proxy.cut_after(3);
        client.write_all(b"frame").unwrap();
        assert_eq!(heard(&mut server, 3), b"fra");
        assert!(server.read(&mut [0; 8]).is_err(), "a reset, no end in good order");
        let mut again = TcpStream::connect(proxy.address()).unwrap();
        proxy.cut();
        assert!(matches!(again.read(&mut [0; 8]), Ok(0) | Err(_)));
    }
}
