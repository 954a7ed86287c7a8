//! A door before a real InfluxDB: it counts the requests that write, and passes on, holds or refuses them.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::InfluxDb;

/// What becomes of a request that writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server gets it, and its answer is the answer.
    Pass,
    /// The server never hears of it: this status, and this body.
    Refuse(u16, &'static str),
    /// It waits until the gate is opened, and then passes.
    Hold,
}

/// A request that writes lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Line protocol.
    pub body: String,
    /// The status of the answer; `None` while there is none.
    pub status: Option<u16>,
}

impl Written {
    /// How many lines it has.
    pub fn lines(&self) -> usize {
        self.body.lines().count()
    }
}

/// The door. Requests without a line to write (questions, and a look whether writing is possible) always pass.
#[derive(Debug)]
pub struct Gate {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    judge: Box<dyn Fn(&str) -> Verdict + Send + Sync>,
    state: Mutex<State>,
    opened: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("server", &self.server).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    written: Vec<Written>,
}

impl Gate {
    /// On a port of its own before that server; `judge` is asked about the body of each request that writes lines.
    ///
    /// # Panics
    /// If there is no port.
    pub fn before(influxdb: &InfluxDb, judge: impl Fn(&str) -> Verdict + Send + Sync + 'static) -> Gate {
        Gate::at("127.0.0.1:0", influxdb, judge)
    }

    /// The same, on this address.
    ///
    /// # Panics
    /// If it is taken.
    pub fn at(address: &str, influxdb: &InfluxDb, judge: impl Fn(&str) -> Verdict + Send + Sync + 'static) -> Gate {
        let listener = TcpListener::bind(address).expect("a port for the gate");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let shared = Arc::new(Shared {
            server: influxdb.url().to_owned(),
            judge: Box::new(judge),
            state: Mutex::default(),
            opened: Condvar::new(),
        });
        let theirs = shared.clone();
        // It ends with the test process, as the threads of its connections do.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = theirs.clone();
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        Gate { url, shared }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on everything passes.
    pub fn open(&self) {
        self.shared.state().open = true;
        self.shared.opened.notify_all();
    }

    /// The requests that wrote lines, in the order in which they came.
    pub fn written(&self) -> Vec<Written> {
        self.shared.state().written.clone()
    }

    /// How many of them got this status.
    pub fn answered(&self, status: u16) -> usize {
        self.shared.state().written.iter().filter(|written| written.status == Some(status)).count()
    }
}

/// A request, as far as it matters here.
struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the client hangs up.
    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut writer = stream;
        while let Some(request) = receive(&mut reader) {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let writes = request.path.starts_with("/api/v2/write") && !body.starts_with('#');
            let (status, answer) = if writes { self.write(&request, body) } else { self.forward(&request) };
            let length = answer.len();
            let head =
                format!("HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
            if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(&answer)).is_err() {
                return;
            }
        }
    }

    fn write(&self, request: &Request, body: String) -> (u16, Vec<u8>) {
        let (number, open) = {
            let mut state = self.state();
            state.written.push(Written { body: body.clone(), status: None });
            (state.written.len() - 1, state.open)
        };
        let answer = match if open { Verdict::Pass } else { (self.judge)(&body) } {
            Verdict::Refuse(status, text) => (status, text.as_bytes().to_vec()),
            Verdict::Pass => self.forward(request),
            Verdict::Hold => {
                let held = self.opened.wait_while(self.state(), |state| !state.open);
                drop(held.unwrap_or_else(PoisonError::into_inner));
                self.forward(request)
            }
        };
        if let Some(written) = self.state().written.get_mut(number) {
            written.status = Some(answer.0);
        }
        answer
    }

    /// Ask the server. One that is not there is a bad gateway.
    fn forward(&self, request: &Request) -> (u16, Vec<u8>) {
        let mut builder = ureq::http::Request::builder().method(request.method.as_str());
        for (name, value) in request.headers.iter().filter(|(name, _)| name != "host" && name != "content-length") {
            builder = builder.header(name, value);
        }
        let built = builder.uri(format!("{}{}", self.server, request.path)).body(request.body.clone());
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
        let answer = built.map_err(ureq::Error::from).and_then(|built| ureq::Agent::from(config).run(built));
        match answer {
            Ok(mut answer) => (answer.status().as_u16(), answer.body_mut().read_to_vec().unwrap_or_default()),
            Err(error) => (502, error.to_string().into_bytes()),
        }
    }
}

fn receive(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = || {
        let mut text = String::new();
        reader.read_line(&mut text).ok().filter(|length| *length > 0)?;
        Some(text.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let header = line()?;
        let Some((name, value)) = header.split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}
