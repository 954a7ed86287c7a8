//! What a plugin may import, and what it finds there.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder};

use super::bindings::log;
use super::capture::{Capture, Stream};
use super::error::NotGranted;
use super::instance::GuestState;
use crate::config::model::Grants;

/// WASI 0.2's interfaces that wasmtime offers, and the package's own.
const OFFERED: [&str; 30] = [
    "acequia:plugin/log",
    "acequia:plugin/types",
    "acequia:plugin/transform",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// The grants that decide what is linked (the others decide what the linked functions find).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkedGrants {
    pub(crate) random: bool,
    pub(crate) clocks: bool,
}

impl LinkedGrants {
    /// How many different ones there are.
    pub(crate) const COUNT: usize = 4;

    pub(crate) fn of(grants: &Grants) -> Self {
        LinkedGrants { random: grants.random, clocks: grants.clocks }
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.random) * 2 + usize::from(self.clocks)
    }

    /// The key in `grants` that this import needs and has not.
    fn missing(self, import: &str) -> Option<&'static str> {
        if import.starts_with("wasi:random/") && !self.random {
            Some("random")
        } else if import.starts_with("wasi:clocks/") && !self.clocks {
            Some("clocks")
        } else {
            None
        }
    }
}

/// A linker with everything that can be offered.
pub(crate) fn complete_linker(engine: &Engine) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    log::add_to_linker::<GuestState, HasSelf<GuestState>>(&mut linker, |state| state)?;
    Ok(linker)
}

impl log::Host for GuestState {
    fn log(&mut self, level: log::Level, message: String) {
        self.capture.log(level, &message);
    }
}

/// `linker`, with what `component` imports and is not granted replaced by functions that end the call with a message that
/// names the grant.
pub(crate) fn granted_linker(
    linker: &Linker<GuestState>,
    component: &Component,
    grants: LinkedGrants,
) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = linker.clone();
    let engine = component.engine().clone();
    linker.allow_shadowing(true);
    for (import, item) in component.component_type().imports(&engine) {
        let (Some(grant), ComponentItem::ComponentInstance(interface)) = (grants.missing(import), item.ty) else {
            continue;
        };
        // Defined under the very version that the component names, which is found before a compatible one. The
        // interface's resources are others' (wasi:io's pollable), already defined there.
        let mut instance = linker.instance(import)?;
        let interface_name = import.split('@').next().unwrap_or(import);
        for (function, item) in interface.exports(&engine) {
            if matches!(item.ty, ComponentItem::ComponentFunc(_)) {
                let denied = NotGranted { import: format!("{interface_name}.{function}"), grant };
                instance.func_new(function, move |_, _, _, _| Err(denied.clone().into()))?;
            }
        }
    }
    Ok(linker)
}

/// The first import that nobody offers.
pub(crate) fn unknown_import(component: &Component) -> Option<String> {
    let ty = component.component_type();
    ty.imports(component.engine()).map(|(import, _)| import).find(|import| !is_offered(import)).map(str::to_owned)
}

fn is_offered(import: &str) -> bool {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    let of_line = if name.starts_with("acequia:") { "0.1." } else { "0.2." };
    version.starts_with(of_line) && OFFERED.contains(&name)
}

/// The keys of `grants` that an import makes use of.
pub(crate) fn grant_for(import: &str) -> Option<&'static str> {
    let name = import.split('@').next().unwrap_or(import);
    match name {
        "wasi:cli/environment" => Some("environment"),
        "wasi:sockets/tcp-create-socket" | "wasi:sockets/udp-create-socket" => Some("network"),
        "wasi:filesystem/preopens" => Some("directories"),
        _ if name.starts_with("wasi:random/") => Some("random"),
        _ if name.starts_with("wasi:clocks/") => Some("clocks"),
        _ => None,
    }
}

/// The world as one instance sees it.
///
/// # Errors
/// If a granted folder can't be opened; says which.
pub(crate) fn wasi_context(grants: &Grants, base: &Path, capture: &Capture) -> Result<WasiCtx, String> {
    let mut builder = WasiCtxBuilder::new();
    builder.stdout(capture.stream(Stream::Output)).stderr(capture.stream(Stream::Error));
    for name in &grants.environment {
        // One that is not set, or is no text, is not there for the plugin either.
        if let Ok(value) = std::env::var(name) {
            builder.env(name, value);
        }
    }
    for directory in &grants.directories {
        let path = base.join(&directory.path);
        let permissions = if directory.write { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        builder
            .preopened_dir(&path, &directory.guest, permissions)
            .map_err(|error| format!("the granted folder {} can't be opened: {error}", path.display()))?;
    }
    if grants.network.is_empty() {
        builder.allow_tcp(false).allow_udp(false);
    } else {
        let granted: Arc<[String]> = grants.network.clone().into();
        builder.allow_ip_name_lookup(true);
        builder.socket_addr_check(move |address, usage| {
            let granted = granted.clone();
            Box::pin(async move { may_use(&granted, address, usage).await })
        });
    }
    Ok(builder.build())
}

/// A plugin may connect and send to what is granted; the sockets for that are bound to any port. It may not listen.
async fn may_use(granted: &[String], address: SocketAddr, usage: SocketAddrUse) -> bool {
    match usage {
        SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => {}
        SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => {
            return address.port() == 0 && address.ip().is_unspecified();
        }
        SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => return false,
    }
    for name in granted {
        if name == "*" {
            return true;
        }
        let is_same = match name.parse::<SocketAddr>() {
            Ok(granted) => granted == address,
            // A host's name is looked up when it is used, since its addresses change.
            Err(_) => match tokio::net::lookup_host(name.as_str()).await {
                Ok(mut addresses) => addresses.any(|granted| granted == address),
                Err(_) => false,
            },
        };
        if is_same {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_one_line_are_offered() {
        assert!(is_offered("wasi:random/random@0.2.3"));
        assert!(is_offered("acequia:plugin/log@0.1.7"));
        assert!(!is_offered("wasi:random/random@0.3.0"));
        assert!(!is_offered("acequia:plugin/log@0.2.0"));
        assert!(!is_offered("wasi:http/outgoing-handler@0.2.0"));
        assert!(!is_offered("wasi:random/random"));
    }

    #[tokio::test]
    async fn the_network_is_what_was_granted() {
        let granted = ["127.0.0.1:9042".to_owned(), "localhost:80".to_owned()];
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(may_use(&granted, address("127.0.0.1:9042"), SocketAddrUse::TcpConnect).await);
        assert!(may_use(&granted, address("127.0.0.1:80"), SocketAddrUse::TcpConnect).await);
        assert!(!may_use(&granted, address("127.0.0.1:9043"), SocketAddrUse::TcpConnect).await);
        assert!(!may_use(&granted, address("127.0.0.1:9042"), SocketAddrUse::TcpListen).await);
        assert!(may_use(&granted, address("0.0.0.0:0"), SocketAddrUse::TcpBind).await);
        assert!(!may_use(&granted, address("0.0.0.0:80"), SocketAddrUse::TcpBind).await);
        assert!(may_use(&["*".to_owned()], address("10.0.0.1:1"), SocketAddrUse::UdpSend).await);
    }
}
