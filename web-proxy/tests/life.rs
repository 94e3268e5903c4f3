//! The life of the proxy: its limits, its draining, its program.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use http_body_util::BodyExt;
use support::{
    Running, SOON,
    client::{self, Client, path},
    upstream::{Event, Upstream},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

/// What `Running` sets as its drain time.
const DRAIN: Duration = Duration::from_secs(4);

#[tokio::test]
async fn another_connection_is_opened_before_500_calls_share_one() {
    const STREAMS: usize = 500;
    let upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http2(proxy.addr).await;

    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = client.open("Ticks", &[], "").await.into_body();
        timeout(SOON, stream.frame()).await.unwrap().unwrap().unwrap();
        open.push(stream);
    }
    assert_eq!(upstream.connections(), 2);

    // Places are given back: the same again needs no third connection.
    let mut upstream = upstream;
    drop(open);
    let mut dropped = 0;
    while dropped < STREAMS {
        dropped += usize::from(upstream.event().await == Event::Dropped("Ticks".to_owned()));
    }
    for _ in 0..STREAMS {
        assert_eq!(client.call("Echo", &[], "").await.code(), 0);
    }
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn browsers_that_stop_reading_stall_nobody_else() {
    let upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;

    let mut stalled = Vec::new();
    for _ in 0..40 {
        let mut client = Client::http1(proxy.addr).await;
        let flood = client.open("Flood", &[], "").await;
        stalled.push((client, flood));
    }

    // Until every flood has filled what is between the server and its browser.
    let mut client = Client::http1(proxy.addr).await;
    let mut quiet = 0;
    while quiet < 20 {
        let before = upstream.floods();
        assert_eq!(client.call("Echo", &[], "through").await.messages, ["through"]);
        quiet = if upstream.floods() == before { quiet + 1 } else { 0 };
    }
}

#[tokio::test]
async fn draining_ends_open_streams_with_a_status() {
    let mut upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut http1 = Client::http1(proxy.addr).await;
    let mut http2 = Client::http2(proxy.addr).await;
    let mut streams = Vec::new();
    for client in [&mut http1, &mut http2] {
        let mut stream = client.open("Ticks", &[], "").await.into_body();
        timeout(SOON, stream.frame()).await.unwrap().unwrap().unwrap();
        assert!(matches!(upstream.event().await, Event::Called(_)));
        streams.push(stream);
    }

    let (started, addr) = (Instant::now(), proxy.addr);
    proxy.stop.cancel();
    for stream in streams {
        let rest = timeout(SOON, stream.collect()).await.unwrap().unwrap().to_bytes();
        let (_, trailers) = client::parse(&rest);
        assert_eq!(trailers.unwrap()["grpc-status"], "14");
    }
    proxy.ended().await;

    assert!(started.elapsed() < DRAIN);
    assert_eq!(upstream.event().await, Event::Dropped("Ticks".to_owned()));
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn draining_ends_whatever_the_peers_do() {
    let mut upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    // Reads nothing of an endless answer.
    let mut deaf = TcpStream::connect(proxy.addr).await.unwrap();
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/grpc-web\r\ncontent-length: 0\r\n\r\n",
        path("Flood"),
        proxy.addr
    );
    deaf.write_all(request.as_bytes()).await.unwrap();
    assert!(matches!(upstream.event().await, Event::Called(_)));
    // Sends half a request, half a preface, and nothing.
    let mut half = TcpStream::connect(proxy.addr).await.unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut preface = TcpStream::connect(proxy.addr).await.unwrap();
    preface.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let _silent = TcpStream::connect(proxy.addr).await.unwrap();
    // Waits for an answer that never begins.
    let mut waiting = Client::http1(proxy.addr).await;

    let started = Instant::now();
    let (answer, ()) = tokio::join!(waiting.call("Hang", &[], ""), async {
        assert!(matches!(upstream.event().await, Event::Called(_)));
        proxy.stop.cancel();
        proxy.ended().await;
    });

    assert_eq!(answer.code(), 14);
    assert!(started.elapsed() < DRAIN + Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_idle_proxy_stops_at_once() {
    let upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http1(proxy.addr).await;
    assert_eq!(client.call("Echo", &[], "").await.code(), 0);

    let started = Instant::now();
    proxy.stop.cancel();
    proxy.ended().await;

    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_connection_that_sends_nothing_is_closed() {
    let proxy = Running::start(&[]).await;
    let mut silent = TcpStream::connect(proxy.addr).await.unwrap();

    let end = timeout(SOON, silent.read(&mut [0])).await.expect("still open");

    assert!(matches!(end, Ok(0) | Err(_)));
}

/// The program itself; killed if a test fails.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pasamanos-web-proxy"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[cfg(unix)]
#[test]
fn the_program_tells_its_address_and_ends_on_a_signal() {
    for signal in ["TERM", "INT"] {
        let place =
            std::env::temp_dir().join(format!("pasamanos-web-{}-{signal}", std::process::id()));
        let child = program()
            .args(["--listen", "127.0.0.1:0"])
            .env("PASAMANOS_PORT_FILE", &place)
            .spawn()
            .unwrap();
        let mut program = Program(child);
        let mut log = BufReader::new(program.0.stderr.take().unwrap()).lines().map(Result::unwrap);

        // Not on a terminal, so each line is JSON.
        let listening = log.find(|line| line.contains("\"message\":\"listening\"")).unwrap();
        let addr = std::fs::read_to_string(&place).unwrap();
        std::fs::remove_file(&place).unwrap();
        assert!(listening.contains(&format!("\"addr\":\"{}\"", addr.trim())), "{listening}");
        assert!(std::net::TcpStream::connect(addr.trim()).is_ok());

        let pid = program.0.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        assert!(program.0.wait().unwrap().success());
        assert!(log.any(|line| line.contains("stopped")));
    }
}

#[test]
fn a_bad_setting_names_its_flag_and_its_variable() {
    let output = program().env("PASAMANOS_WEB_LISTEN", "nowhere").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();

    assert_eq!(output.status.code(), Some(2));
    for part in ["--listen", "nowhere", "PASAMANOS_WEB_LISTEN"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn help_explains_every_setting() {
    let output = program().arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();

    assert!(output.status.success());
    for name in ["LISTEN", "WEB_ORIGIN", "WEB_REFLECTION", "DRAIN_TIMEOUT", "LOG", "LOG_FORMAT"] {
        assert!(text.contains(name), "{name}");
    }
}

#[test]
fn a_taken_address_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();

    let output = program().args(["--listen", &addr]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains(&addr) && text.contains("PASAMANOS_WEB_LISTEN"), "{text}");
}
