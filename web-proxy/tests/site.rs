//! The built client as it is served: encodings, caching, deep links, security headers.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a test may panic")]

mod support;

use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use support::{Running, client::Client};

const SCRIPT: &str = "/assets/app-1a2b.js";
const PAGE: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

async fn start() -> (Running, Client) {
    // No server is needed, and none is there.
    let proxy = Running::start(&["--upstream", "http://127.0.0.1:1"]).await;
    let client = Client::http1(proxy.addr).await;
    (proxy, client)
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn the_best_encoding_that_the_browser_takes_is_sent() {
    let (_proxy, mut client) = start().await;

    for (accept, encoding, body) in [
        ("gzip, deflate, br", Some("br"), "br of app"),
        ("gzip", Some("gzip"), "gz of app"),
        ("br;q=0, gzip", Some("gzip"), "gz of app"),
        ("br;q=0.2, gzip;q=0.9", Some("gzip"), "gz of app"),
        ("br;q=0, gzip;q=0", None, "console.log('plain')"),
        ("identity", None, "console.log('plain')"),
    ] {
        let response = client.get(SCRIPT, &[("accept-encoding", accept)]).await;
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers();
        assert_eq!(
            headers.get("content-encoding").map(|v| v.to_str().unwrap()),
            encoding,
            "{accept}"
        );
        assert_eq!(headers["vary"], "accept-encoding");
        assert_eq!(headers["content-type"], "text/javascript; charset=utf-8");
        assert_eq!(headers["content-length"], body.len().to_string());
        assert_eq!(text(response).await, body);
    }
}

#[tokio::test]
async fn files_named_by_content_are_kept_for_ever_and_pages_are_asked_for_again() {
    let (_proxy, mut client) = start().await;

    let script = client.get(SCRIPT, &[]).await;
    assert_eq!(script.headers()["cache-control"], "public, max-age=31536000, immutable");
    text(script).await;
    for path in ["/", "/index.html", "/icon.svg"] {
        let response = client.get(path, &[]).await;
        assert_eq!(response.headers()["cache-control"], "no-cache", "{path}");
        text(response).await;
    }
}

#[tokio::test]
async fn an_unchanged_file_is_not_sent_again() {
    let (_proxy, mut client) = start().await;
    let first = client.get(SCRIPT, &[("accept-encoding", "br")]).await;
    let etag = first.headers()["etag"].to_str().unwrap().to_owned();
    text(first).await;
    assert!(etag.starts_with('"') && etag.ends_with('"'), "strong: {etag}");

    for known in [etag.clone(), format!("\"other\", {etag}"), format!("W/{etag}"), "*".to_owned()] {
        let headers = [("accept-encoding", "br"), ("if-none-match", known.as_str())];
        let response = client.get(SCRIPT, &headers).await;
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!(response.headers()["etag"], etag);
        assert_eq!(response.headers()["vary"], "accept-encoding");
        assert!(response.headers().contains_key("cache-control"));
        assert_eq!(text(response).await, "");
    }

    // Another representation is another content.
    let headers = [("accept-encoding", "gzip"), ("if-none-match", etag.as_str())];
    let response = client.get(SCRIPT, &headers).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_ne!(response.headers()["etag"], etag);
}

#[tokio::test]
async fn places_within_the_client_are_its_page() {
    let (_proxy, mut client) = start().await;

    for path in ["/", "/farms/laguna", "/farms/laguna/feeders/f-1", "/login"] {
        let response = client.get(path, &[PAGE]).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        assert!(text(response).await.contains("Pasamanos"));
    }
}

#[tokio::test]
async fn what_is_missing_is_missing() {
    let (_proxy, mut client) = start().await;

    for (path, accept) in [
        ("/assets/gone-9z.js", PAGE.1),
        ("/assets/gone-9z.js", "*/*"),
        ("/farms/laguna", "application/json"),
        ("/missing.png", "*/*"),
        ("/assets/app-1a2b.js.br", PAGE.1),
    ] {
        let response = client.get(path, &[("accept", accept)]).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path} {accept}");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert!(!text(response).await.contains("html"));
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let (_proxy, mut client) = start().await;

    for path in [SCRIPT, "/", "/farms/laguna", "/healthz"] {
        let get = client.get(path, &[PAGE]).await;
        let (status, length) = (get.status(), get.headers()["content-length"].clone());
        text(get).await;
        let head = client.send(Method::HEAD, path, &[PAGE], "").await;
        assert_eq!((head.status(), &head.headers()["content-length"]), (status, &length), "{path}");
        assert_eq!(text(head).await, "");
    }
}

#[tokio::test]
async fn every_static_answer_bears_the_security_headers() {
    let (_proxy, mut client) = start().await;

    for (path, headers) in [
        ("/", vec![PAGE]),
        (SCRIPT, vec![]),
        (SCRIPT, vec![("if-none-match", "*")]),
        ("/assets/gone.js", vec![]),
        ("/healthz", vec![]),
    ] {
        let response = client.get(path, &headers).await;
        let headers = response.headers();
        let policy = headers["content-security-policy"].to_str().unwrap();
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ] {
            assert!(policy.split("; ").any(|part| part == directive), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["cross-origin-opener-policy"], "same-origin");
        assert!(headers.contains_key("permissions-policy"));
        text(response).await;
    }
}

#[tokio::test]
async fn the_process_is_alive_whether_or_not_the_server_is() {
    let (_proxy, mut client) = start().await;

    let response = client.get("/healthz", &[]).await;

    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response).await, "ok\n");
}
