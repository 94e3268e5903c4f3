//! What the proxy refuses, and that the server never hears of it.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a test may panic")]

mod support;

use http::{Method, StatusCode};
use support::{
    Running,
    client::{Answer, Client, frame, path},
    upstream::Upstream,
};

const WEB: (&str, &str) = ("content-type", "application/grpc-web+proto");

#[tokio::test]
async fn the_agents_service_and_unknown_ones_are_never_forwarded() {
    let mut upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut http1 = Client::http1(proxy.addr).await;
    let mut http2 = Client::http2(proxy.addr).await;

    for path in [
        "/pasamanos.v1.AgentLinkService/Connect",
        "/pasamanos.v1.AgentLinkService/Enroll",
        "/pasamanos.v1.FeederService/../pasamanos.v1.AgentLinkService/Connect",
        "/pasamanos.v1.FeederService/Echo/extra",
        "//pasamanos.v1.FeederService/Echo",
        "/pasamanos.v1%2EFeederService/Echo",
        "/other.v1.Service/Method",
        "/Service/Method",
        "/",
    ] {
        for client in [&mut http1, &mut http2] {
            let response = client.send(Method::POST, path, &[WEB], frame(b"")).await;
            let answer = Answer::read(response).await;
            assert_eq!((answer.http, answer.code()), (StatusCode::OK, 12), "{path}");
            assert_eq!(answer.headers["content-type"], "application/grpc-web+proto");
        }
        let native = [("content-type", "application/grpc"), ("te", "trailers")];
        let response = http2.send(Method::POST, path, &native, frame(b"")).await;
        assert_eq!(response.headers()["grpc-status"], "12", "{path}");
        assert_eq!(response.headers()["content-type"], "application/grpc");
    }
    assert!(upstream.was_not_called());
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_foreign_page_is_refused_and_the_own_page_is_not() {
    let mut upstream = Upstream::start().await;
    let proxy = Running::start(&[
        "--upstream",
        &format!("http://{}", upstream.addr),
        "--origin",
        "https://farm.example",
    ])
    .await;
    let mut client = Client::http1(proxy.addr).await;
    let mut http2 = Client::http2(proxy.addr).await;
    let own = format!("http://{}", proxy.addr);

    for origin in
        ["https://evil.example", "null", "https://farm.example.evil", &format!("{own}.evil")]
    {
        for client in [&mut client, &mut http2] {
            let headers = [WEB, ("origin", origin), ("cookie", "session=real")];
            let response = client.send(Method::POST, &path("Echo"), &headers, frame(b"x")).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{origin}");
            assert!(!response.headers().contains_key("access-control-allow-origin"));
        }
    }
    assert!(upstream.was_not_called());

    for origin in [own.as_str(), "https://farm.example"] {
        assert_eq!(client.call("Echo", &[("origin", origin)], "x").await.code(), 0, "{origin}");
        assert_eq!(http2.call("Echo", &[("origin", origin)], "x").await.code(), 0, "{origin}");
    }
}

#[tokio::test]
async fn other_content_types_are_refused_before_anything() {
    let mut upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut http1 = Client::http1(proxy.addr).await;
    let mut http2 = Client::http2(proxy.addr).await;

    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json",
        "application/grpc-evil",
        "application/grpc-web+json",
        "application/grpc-web; charset=latin1",
    ] {
        for client in [&mut http1, &mut http2] {
            let headers = [("content-type", kind), ("origin", "https://evil.example")];
            let response = client.send(Method::POST, &path("Echo"), &headers, frame(b"x")).await;
            assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
        }
    }
    let response = http1.send(Method::POST, &path("Echo"), &[], frame(b"x")).await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let native = [("content-type", "application/grpc")];
    let response = http1.send(Method::POST, &path("Echo"), &native, frame(b"x")).await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(upstream.was_not_called());
}

#[tokio::test]
async fn a_charset_does_no_harm() {
    let upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http1(proxy.addr).await;

    let headers = [("content-type", "application/grpc-web+proto; charset=utf-8")];
    let response = client.send(Method::POST, &path("Echo"), &headers, frame(b"x")).await;

    assert_eq!(Answer::read(response).await.messages, ["x"]);
}

#[tokio::test]
async fn a_call_is_a_post() {
    let mut upstream = Upstream::start().await;
    let proxy = Running::before(upstream.addr).await;
    let mut client = Client::http1(proxy.addr).await;

    for method in [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ] {
        for path in [path("Echo"), "/pasamanos.v1.AgentLinkService/Connect".to_owned()] {
            let headers = [("accept", "text/html"), ("x-secret", "echo")];
            let response = client.send(method.clone(), &path, &headers, "").await;
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!(response.headers()["allow"], "POST");
            assert!(!response.headers().contains_key("access-control-allow-origin"));
            assert!(!response.headers().contains_key("x-secret"));
        }
    }
    for method in [Method::PUT, Method::DELETE, Method::OPTIONS] {
        let response = client.send(method, "/", &[], "").await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()["allow"], "GET, HEAD");
    }
    assert!(upstream.was_not_called());
}

#[tokio::test]
async fn reflection_is_forwarded_only_when_told() {
    let mut upstream = Upstream::start().await;
    let upstream_url = format!("http://{}", upstream.addr);
    let reflection = "/grpc.reflection.v1.ServerReflection/Echo";

    for (flag, code) in [("--reflection=false", 12), ("--reflection=true", 0)] {
        let proxy = Running::start(&["--upstream", &upstream_url, flag]).await;
        let mut client = Client::http1(proxy.addr).await;
        let response = client.send(Method::POST, reflection, &[WEB], frame(b"")).await;
        assert_eq!(Answer::read(response).await.code(), code, "{flag}");
        assert_eq!(upstream.was_not_called(), code != 0);
    }
}
