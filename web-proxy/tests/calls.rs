//! Calls of a browser through the proxy: both forms of grpc-web, streams, limits, failures.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use support::{
    Running, SOON,
    client::{Answer, Client, OpenCall, base64_encode, frame, path},
    upstream::{Event, Upstream},
};
use tokio::time::{Instant, timeout};

const TEXT: (&str, &str) = ("content-type", "application/grpc-web-text");

#[tokio::test]
async fn a_unary_call_passes_in_binary() {
    let upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http1(proxy.addr).await;

    let answer = client.call("Echo", &[], "hello").await;

    assert_eq!(answer.http, StatusCode::OK);
    assert_eq!(answer.headers["content-type"], "application/grpc-web+proto");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control")));
    assert_eq!((answer.messages.as_slice(), answer.code()), (&["hello".to_owned()][..], 0));
    assert_eq!(answer.trailers["x-last"], "yes");
}

#[tokio::test]
async fn a_unary_call_passes_in_text_whatever_its_length() {
    let upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http1(proxy.addr).await;

    for message in ["", "a", "ab", "abc", &"long ".repeat(40_000)] {
        let body = base64_encode(&frame(message.as_bytes()));
        let response = client.send(Method::POST, &path("Echo"), &[TEXT], body).await;
        let answer = Answer::read(response).await;

        assert_eq!(answer.headers["content-type"], "application/grpc-web-text+proto");
        assert_eq!(answer.messages, [message]);
        assert_eq!(answer.code(), 0);
    }
}

#[tokio::test]
async fn a_server_stream_passes_in_binary_and_in_text() {
    let upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http1(proxy.addr).await;

    let binary = client.call("Count", &[], "").await;
    let body = base64_encode(&frame(b""));
    let text = client.send(Method::POST, &path("Count"), &[TEXT], body).await;
    let text = Answer::read(text).await;

    for answer in [binary, text] {
        assert_eq!(answer.messages, ["one", "two", "three"]);
        assert_eq!(answer.code(), 0);
    }
}

#[tokio::test]
async fn a_stream_is_delivered_as_it_comes() {
    let upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http1(proxy.addr).await;

    let mut ticks = client.open("Ticks", &[], "").await.into_body();
    let first = timeout(SOON, ticks.frame()).await.unwrap().unwrap().unwrap();

    assert_eq!(first.into_data().unwrap(), frame(b"tick"));
}

#[tokio::test]
async fn an_error_of_the_server_passes_with_its_details() {
    let upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http1(proxy.addr).await;

    let answer = client.call("Denied", &[], "").await;

    assert_eq!((answer.http, answer.code(), answer.message()), (StatusCode::OK, 7, "not yours"));
    assert_eq!(answer.trailers["grpc-status-details-bin"], "CAc");
}

#[tokio::test]
async fn the_server_sees_the_call_and_nothing_of_the_browser() {
    let mut upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http1(proxy.addr).await;
    let origin = format!("http://{}", proxy.addr);
    let body = frame(b"x");
    let headers = [
        ("content-type", "application/grpc-web+proto"),
        ("accept-encoding", "gzip, br"),
        ("authorization", "Bearer token"),
        ("cookie", "session=secret"),
        ("origin", &origin),
        ("referer", "http://127.0.0.1/"),
        ("sec-fetch-mode", "cors"),
        ("x-request-bin", "AAEC"),
    ];

    let target = format!("{}?$httpHeaders=x-evil:1", path("Echo"));
    let answer = Answer::read(client.send(Method::POST, &target, &headers, body).await).await;

    assert_eq!(answer.code(), 0);
    let mut seen: Vec<&str> = answer.headers["x-seen"].to_str().unwrap().split(' ').collect();
    seen.sort_unstable();
    assert_eq!(seen, ["authorization", "content-type", "te", "x-request-bin"]);
    let called = format!("http://{}{}", upstream.addr, path("Echo"));
    assert_eq!(upstream.event().await, Event::Called(called));
}

#[tokio::test]
async fn a_deadline_is_carried_to_the_server_and_never_grows() {
    let upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http1(proxy.addr).await;

    let answer = client.call("Echo", &[("grpc-timeout", "5S")], "x").await;

    let carried = answer.headers["x-timeout"].to_str().unwrap();
    let micros: u64 = carried.strip_suffix('u').unwrap().parse().unwrap();
    assert!((1..=5_000_000).contains(&micros), "{carried}");
}

#[tokio::test]
async fn a_deadline_ends_silent_streams_floods_and_calls_that_hang() {
    let mut upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;

    for method in ["Ticks", "Flood", "Hang"] {
        let mut client = Client::http1(proxy.addr).await;
        let started = Instant::now();
        let answer = client.call(method, &[("grpc-timeout", "300m")], "").await;

        assert_eq!(answer.code(), 4, "{method}: {answer:?}");
        assert!(started.elapsed() >= Duration::from_millis(300), "{method}");
        assert!(matches!(upstream.event().await, Event::Called(_)));
        assert_eq!(upstream.event().await, Event::Dropped(method.to_owned()));
    }
}

#[tokio::test]
async fn a_deadline_ends_a_call_whose_client_keeps_its_side_open() {
    let mut upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;

    let call = OpenCall::start(proxy.addr, "Ticks", "300m").await;
    assert!(matches!(upstream.event().await, Event::Called(_)));
    let answer = timeout(SOON, call.response.collect()).await.unwrap().unwrap();

    assert_eq!(answer.trailers().unwrap()["grpc-status"], "4");
    assert_eq!(upstream.event().await, Event::Dropped("Ticks".to_owned()));
    drop(call.messages);
}

#[tokio::test]
async fn an_unreadable_deadline_is_refused_and_not_taken_for_none() {
    let mut upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http1(proxy.addr).await;

    for timeout in ["abc", "-1S", "123456789S"] {
        let answer = client.call("Echo", &[("grpc-timeout", timeout)], "").await;
        assert_eq!(answer.code(), 3, "{timeout}");
    }
    assert_eq!(client.call("Hang", &[("grpc-timeout", "1n")], "").await.code(), 4);
    assert_eq!(client.call("Echo", &[("grpc-timeout", "99999999H")], "").await.code(), 0);
    let called = format!("http://{}{}", upstream.addr, path("Echo"));
    assert_eq!(upstream.event().await, Event::Called(called));
}

#[tokio::test]
async fn a_browser_that_leaves_cancels_its_call_at_the_server() {
    let mut upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;

    for http2 in [false, true] {
        let mut client =
            if http2 { Client::http2(proxy.addr).await } else { Client::http1(proxy.addr).await };
        let stream = client.open("Ticks", &[], "").await;
        assert!(matches!(upstream.event().await, Event::Called(_)));
        drop((stream, client));
        assert_eq!(upstream.event().await, Event::Dropped("Ticks".to_owned()));
    }
}

#[tokio::test]
async fn a_browser_that_leaves_before_the_answer_cancels_its_call_too() {
    let mut upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http1(proxy.addr).await;

    let call = client.call("Hang", &[], "");
    tokio::select! {
        _ = call => panic!("it hangs"),
        event = upstream.event() => assert!(matches!(event, Event::Called(_))),
    }
    drop(client);

    assert_eq!(upstream.event().await, Event::Dropped("Hang".to_owned()));
}

#[tokio::test]
async fn one_cancelled_stream_of_http2_leaves_the_others() {
    let mut upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http2(proxy.addr).await;

    let stream = client.open("Ticks", &[], "").await;
    assert!(matches!(upstream.event().await, Event::Called(_)));
    drop(stream);
    assert_eq!(upstream.event().await, Event::Dropped("Ticks".to_owned()));

    assert_eq!(client.call("Echo", &[], "still here").await.messages, ["still here"]);
}

#[tokio::test]
async fn an_answer_that_breaks_or_has_no_status_ends_as_unavailable_without_internals() {
    let upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http1(proxy.addr).await;

    for method in ["Broken", "NoStatus"] {
        let answer = client.call(method, &[], "").await;

        assert_eq!(answer.code(), 14, "{method}");
        assert!(!answer.message().contains("secret"), "{}", answer.message());
    }
    assert_eq!(client.call("NoStatus", &[], "").await.messages, ["one"]);
    let web = client.call("Web", &[], "").await;
    assert_eq!((web.http, web.code()), (StatusCode::OK, 14));
}

#[tokio::test]
async fn a_malformed_body_is_the_clients_fault() {
    let upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http1(proxy.addr).await;

    for body in ["!!!!", "AAAA=AAA", "AAAAA"] {
        let response = client.send(Method::POST, &path("Echo"), &[TEXT], body).await;
        let answer = Answer::read(response).await;
        assert_eq!(answer.code(), 3, "{body}: {answer:?}");
    }
    let huge = vec![0; 2 * 1024 * 1024];
    let web = [("content-type", "application/grpc-web")];
    let response =
        Client::http2(proxy.addr).await.send(Method::POST, &path("Echo"), &web, huge).await;
    assert_eq!(Answer::read(response).await.code(), 8);
    assert_eq!(client.call("Echo", &[], "fine").await.code(), 0);
}

#[tokio::test]
async fn a_server_that_is_down_is_unavailable_and_comes_back_by_itself() {
    let upstream = Upstream::start().await;
    let addr = upstream.addr;
    let proxy = Running::before(addr).await;
    let mut client = Client::http1(proxy.addr).await;
    assert_eq!(client.call("Echo", &[], "up").await.code(), 0);

    let mut other = Client::http1(proxy.addr).await;
    let mut ticks = other.open("Ticks", &[], "").await.into_body();
    ticks.frame().await.unwrap().unwrap();
    drop(upstream);
    let rest = timeout(SOON, ticks.collect()).await.unwrap().unwrap().to_bytes();
    let (_, trailers) = support::client::parse(&rest);
    assert_eq!(trailers.unwrap()["grpc-status"], "14");

    let down = client.call("Echo", &[], "down").await;
    assert_eq!((down.http, down.code()), (StatusCode::OK, 14));
    assert!(down.message().contains("cannot%20be%20reached"), "{}", down.message());

    let _upstream = Upstream::at(addr).await;
    assert_eq!(client.call("Echo", &[], "back").await.messages, ["back"]);
}
