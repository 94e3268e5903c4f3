//! What the tests share: the proxy as it runs in production, clients, and a scripted server.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod client;
pub mod upstream;

use std::{borrow::Cow, net::SocketAddr, time::Duration};

use pasamanos_web_proxy::{assets::Site, config::Settings, proxy::Proxy};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything that must happen; only a failing test waits for it.
pub const SOON: Duration = Duration::from_secs(10);

/// The proxy, started through its composition root on a free port.
pub struct Running {
    pub addr: SocketAddr,
    pub stop: CancellationToken,
    run: JoinSet<anyhow::Result<()>>,
}

impl Running {
    /// In front of the given server.
    pub async fn before(upstream: SocketAddr) -> Self {
        Self::start(&["--upstream", &format!("http://{upstream}")]).await
    }

    /// With the given flags.
    pub async fn start(flags: &[&str]) -> Self {
        let always = ["pasamanos-web-proxy", "--listen", "127.0.0.1:0", "--drain-timeout", "4s"];
        let settings = Settings::load(always.iter().chain(flags)).unwrap();
        let proxy = Proxy::bind(&settings, site()).await.unwrap();
        let (addr, stop) = (proxy.addr(), CancellationToken::new());
        let mut run = JoinSet::new();
        run.spawn(proxy.run(stop.clone(), CancellationToken::new()));
        Self { addr, stop, run }
    }

    /// Waits for the end that `stop` began.
    pub async fn ended(mut self) {
        timeout(SOON, self.run.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    }
}

/// A small built client.
fn site() -> Site {
    let files: &[(&str, &[u8])] = &[
        ("index.html", b"<!doctype html><title>Pasamanos</title>"),
        ("index.html.gz", b"gzipped page"),
        ("assets/app-1a2b.js", b"console.log('plain')"),
        ("assets/app-1a2b.js.br", b"br of app"),
        ("assets/app-1a2b.js.gz", b"gz of app"),
        ("icon.svg", b"<svg/>"),
    ];
    Site::new(files.iter().enumerate().map(|(number, (path, content))| {
        let digest = [u8::try_from(number).unwrap() + 1; 32];
        ((*path).to_owned(), Cow::Borrowed(*content), digest)
    }))
}
