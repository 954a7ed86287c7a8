//! temporary
use crate::daemon::Board;
use std::{future::Future, net::SocketAddr, path::PathBuf, sync::Arc};
pub struct Info;
impl Info {
    pub fn new(_: PathBuf) -> Self {
        Info
    }
}
pub async fn bind(a: SocketAddr) -> anyhow::Result<tokio::net::TcpListener> {
    Ok(tokio::net::TcpListener::bind(a).await?)
}
pub async fn serve(_: tokio::net::TcpListener, _: Arc<Board>, _: Info, s: impl Future<Output = ()>) {
    s.await
}
