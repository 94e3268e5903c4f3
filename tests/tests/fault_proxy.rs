//! The fault proxy does what it says: the tests of the link are worth what it is.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::io::ErrorKind;
use std::time::Duration;

use pasamanos_tests::fault_proxy::{Cut, FaultProxy, Flow, Way};
use pasamanos_tests::wait_for;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Shorter than any test's patience, longer than loopback takes.
const A_WHILE: Duration = Duration::from_millis(200);

/// The proxy with a listener behind it.
async fn behind() -> (TcpListener, FaultProxy) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap().to_string();
    let proxy = FaultProxy::start(upstream).await.unwrap();
    (listener, proxy)
}

/// One connection through it: the client's end and the server's.
async fn pair(listener: &TcpListener, proxy: &FaultProxy) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.addr).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

async fn exactly(stream: &mut TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// Whatever comes until the end, and how it ended.
async fn to_the_end(stream: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let end = timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await;
    (bytes, end.expect("an end").err().map(|e| e.kind()))
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
}

#[tokio::test]
async fn bytes_pass_unchanged_both_ways_and_are_counted() {
    let (listener, proxy) = behind().await;
    let (mut client, mut server) = pair(&listener, &proxy).await;
    let sent = pattern(1_000_000);
    let (mut read, mut write) = client.split();
    let echo = async {
        let (mut from, mut to) = server.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let send = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let receive = async {
        let mut back = Vec::new();
        read.read_to_end(&mut back).await.unwrap();
        back
    };
    let ((), (), back) = tokio::join!(echo, send, receive);
    assert!(back == sent, "what came back differs");
    assert_eq!((proxy.passed(Way::Up), proxy.passed(Way::Down)), (1_000_000, 1_000_000));
    assert_eq!(proxy.connections(), 1);
    proxy.stop().await.unwrap();
}

#[tokio::test]
async fn a_cut_comes_after_exactly_so_many_bytes_and_in_its_kind() {
    let (listener, proxy) = behind().await;
    for (n, cut) in [
        (0, Cut::Close),
        (1, Cut::Close),
        (777, Cut::Close),
        (4_096, Cut::Reset),
        (4_097, Cut::Reset),
        (60_000, Cut::Close),
    ] {
        let (mut client, mut server) = pair(&listener, &proxy).await;
        server.write_all(b"before").await.unwrap();
        assert_eq!(exactly(&mut client, 6).await, b"before");
        proxy.cut_after(Way::Up, n, cut);
        // The link may be gone before all is written.
        let _ = client.write_all(&pattern(70_000)).await;
        let (got, end) = to_the_end(&mut server).await;
        let n = usize::try_from(n).unwrap();
        assert!(got == pattern(70_000)[..n], "{} bytes of {n}", got.len());
        assert_eq!(end, (cut == Cut::Reset).then_some(ErrorKind::ConnectionReset), "{n} {cut:?}");
        let (rest, _) = to_the_end(&mut client).await;
        assert!(rest.is_empty(), "the other way lives");
        assert!(!proxy.disarm(Way::Up), "it was fulfilled");
    }
}

#[tokio::test]
async fn an_order_to_cut_can_be_taken_back() {
    let (listener, proxy) = behind().await;
    let (mut client, mut server) = pair(&listener, &proxy).await;
    proxy.cut_after(Way::Down, 3, Cut::Reset);
    assert!(proxy.disarm(Way::Down));
    server.write_all(b"whole").await.unwrap();
    assert_eq!(exactly(&mut client, 5).await, b"whole");
}

#[tokio::test]
async fn a_cut_ends_every_connection_and_new_ones_pass() {
    let (listener, proxy) = behind().await;
    let (mut first, _first) = pair(&listener, &proxy).await;
    let (mut second, _second) = pair(&listener, &proxy).await;
    proxy.cut(Cut::Reset);
    assert_eq!(to_the_end(&mut first).await.1, Some(ErrorKind::ConnectionReset));
    assert_eq!(to_the_end(&mut second).await.1, Some(ErrorKind::ConnectionReset));
    let (mut client, mut server) = pair(&listener, &proxy).await;
    client.write_all(b"again").await.unwrap();
    assert_eq!(exactly(&mut server, 5).await, b"again");
}

#[tokio::test]
async fn one_way_is_swallowed_and_the_other_lives() {
    let (listener, proxy) = behind().await;
    let (mut client, mut server) = pair(&listener, &proxy).await;
    proxy.flow(Way::Up, Flow::Swallow);
    client.write_all(b"lost").await.unwrap();
    server.write_all(b"heard").await.unwrap();
    assert_eq!(exactly(&mut client, 5).await, b"heard");
    wait_for("the bytes were read", Duration::from_secs(5), || async {
        if proxy.held(Way::Up) == 0 { Ok(()) } else { Err(proxy.held(Way::Up)) }
    })
    .await
    .unwrap();
    proxy.flow(Way::Up, Flow::Pass);
    client.write_all(b"kept").await.unwrap();
    assert_eq!(exactly(&mut server, 4).await, b"kept");
    assert_eq!(proxy.passed(Way::Up), 4);
}

#[tokio::test]
async fn what_is_held_back_comes_late_and_in_order() {
    let (listener, proxy) = behind().await;
    let (mut client, mut server) = pair(&listener, &proxy).await;
    proxy.flow(Way::Up, Flow::Hold);
    client.write_all(b"one ").await.unwrap();
    client.write_all(b"two").await.unwrap();
    wait_for("it is held", Duration::from_secs(5), || async {
        if proxy.held(Way::Up) == 7 { Ok(()) } else { Err(proxy.held(Way::Up)) }
    })
    .await
    .unwrap();
    let mut byte = [0];
    assert!(timeout(A_WHILE, server.read(&mut byte)).await.is_err(), "it came through");
    proxy.flow(Way::Up, Flow::Pass);
    assert_eq!(exactly(&mut server, 7).await, b"one two");
    assert_eq!(proxy.held(Way::Up), 0);
}

#[tokio::test]
async fn a_stalled_way_fills_the_senders_buffers() {
    let (listener, proxy) = behind().await;
    let (mut client, mut server) = pair(&listener, &proxy).await;
    proxy.flow(Way::Up, Flow::Stall);
    // Far more than any socket buffer.
    let sent = pattern(64 << 20);
    let blocked = timeout(A_WHILE, client.write_all(&sent)).await;
    assert!(blocked.is_err(), "it was read");
    assert_eq!(proxy.passed(Way::Up), 0);
    proxy.flow(Way::Up, Flow::Pass);
    drop(client);
    let (got, _) = to_the_end(&mut server).await;
    assert!(!got.is_empty() && got == sent[..got.len()]);
}

#[tokio::test]
async fn latency_is_waited_for() {
    let (listener, proxy) = behind().await;
    let (mut client, mut server) = pair(&listener, &proxy).await;
    proxy.latency(Way::Down, A_WHILE);
    let began = Instant::now();
    server.write_all(b"late").await.unwrap();
    assert_eq!(exactly(&mut client, 4).await, b"late");
    assert!(began.elapsed() >= A_WHILE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_mute_proxy_accepts_and_never_answers() {
    let (listener, proxy) = behind().await;
    proxy.mute(true);
    let mut client = TcpStream::connect(proxy.addr).await.unwrap();
    client.write_all(b"anybody?").await.unwrap();
    assert!(timeout(A_WHILE, listener.accept()).await.is_err(), "it was passed on");
    assert_eq!(proxy.connections(), 0);
    proxy.mute(false);
    assert!(to_the_end(&mut client).await.0.is_empty());
    let (mut client, mut server) = pair(&listener, &proxy).await;
    client.write_all(b"now").await.unwrap();
    assert_eq!(exactly(&mut server, 3).await, b"now");
}
