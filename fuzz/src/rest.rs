//! Requests to the admin listener: every one is answered, with JSON where the answer says so, and never with 500 alone.

use std::sync::OnceLock;

use acequia::admin::fuzzing::router;
use acequia::admin::{Board, Info, Pass, ReloadRequest};
use acequia::pipeline::status::{Counts, State, Trouble};
use arbitrary::{Result, Unstructured};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use tokio::sync::mpsc;
use tower_service::Service;

use crate::rows;

const METHODS: [Method; 8] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::PATCH,
    Method::HEAD,
    Method::OPTIONS,
    Method::TRACE,
];

pub(crate) fn run(data: &[u8]) {
    let _ = inputs(&mut Unstructured::new(data));
}

/// The first byte is the method, the second says which headers there are; then the path, a line break, and the body.
fn inputs(input: &mut Unstructured<'_>) -> Result<()> {
    let method = METHODS[usize::from(input.arbitrary::<u8>()?) % METHODS.len()].clone();
    let headers: u8 = input.arbitrary()?;
    let rest = rows::rest(input)?;
    let (path, body) = match rest.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &[][..]),
    };
    let mut request = Request::builder().method(&method).uri(path);
    if headers & 1 == 0 {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    if headers & 2 != 0 {
        request = request.header(header::ORIGIN, "http://127.0.0.1:8083").header(header::HOST, "127.0.0.1:8083");
    }
    if headers & 4 != 0 {
        request = request.header(header::ORIGIN, body);
    }
    // What is no request at all never gets to the router.
    let Ok(request) = request.body(Body::from(body.to_vec())) else { return Ok(()) };
    let head = method == Method::HEAD;
    runtime().block_on(async {
        let (mut router, mut reloads) = server();
        let mut call = std::pin::pin!(router.call(request));
        let answer = loop {
            tokio::select! {
                answer = &mut call => break answer.expect("a router never fails"),
                Some(reload) = reloads.recv() => {
                    let errors = vec![("a.toml".to_owned(), "wrong".to_owned())];
                    let _ = reload.send(Pass { at: 1, generation: 2, changed: 1, errors });
                }
            }
        };
        check(answer, head).await;
    });
    Ok(())
}

async fn check(answer: axum::response::Response, head: bool) {
    let status = answer.status();
    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let kind = answer.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().expect("text").to_owned());
    let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
    if head {
        return;
    }
    let is_json = kind.as_deref() == Some("application/json");
    if is_json {
        let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON, as the answer says");
        if !status.is_success() && json.get("error_code").is_some() {
            assert_eq!(json["error_code"], status.as_u16());
            assert!(json["message"].is_string(), "{json}");
        }
    }
    assert!(status.is_success() || is_json, "{status} without JSON: {kind:?}");
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"))
}

/// A daemon with two pipelines.
fn server() -> (Router, mpsc::Receiver<ReloadRequest>) {
    let (board, reloads) = Board::new();
    let sequence = board.status_of("seq");
    sequence.arrange(&["source".to_owned(), "even-filter".to_owned()]);
    sequence.stage("source").add(Counts { rows_in: 3, rows_out: 3, ..Counts::default() });
    sequence.update(|facts| facts.state = State::Running);
    board.status_of("a \"b\"\\\n").update(|facts| {
        facts.state = State::Failed;
        facts.first_error = Some(Trouble { at: 1, message: "a\u{1b}[31m\n\"b\"".to_owned() });
    });
    let info = Info { version: "0.1.0".to_owned(), commit: "unknown".to_owned(), state_dir: "/state".into() };
    (router(board, info), reloads)
}
