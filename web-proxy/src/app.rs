//! Which request goes where: calls to the server, everything else to the embedded client.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tonic::body::Body;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, ServiceExt};

use crate::{
    assets::Site,
    forward::Forward,
    headers,
    policy::{self, Policy},
};

/// The liveness probe's path. It says that this process answers, and nothing about the server.
const HEALTH: &str = "/healthz";

/// Answers every request.
#[derive(Clone, Debug)]
pub struct App {
    calls: GrpcWebService<Forward>,
    policy: Arc<Policy>,
    site: Arc<Site>,
}

impl App {
    /// Calls go through `forward`, translated from grpc-web where they come as that.
    pub fn new(forward: Forward, policy: Arc<Policy>, site: Site) -> Self {
        Self { calls: GrpcWebLayer::new().layer(forward), policy, site: Arc::new(site) }
    }

    /// Answers one request. Every POST is a call: the page has no other use for it.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        match *request.method() {
            Method::GET | Method::HEAD if path == HEALTH => text(StatusCode::OK, "ok\n"),
            _ if path == HEALTH => not_allowed("GET, HEAD"),
            Method::POST => self.call(request).await,
            _ if is_service(path) => not_allowed("POST"),
            Method::GET | Method::HEAD => self.site.respond(&request),
            _ => not_allowed("GET, HEAD"),
        }
    }

    async fn call(&self, mut request: Request<Body>) -> Response<Body> {
        let Some(protocol) = policy::protocol(request.headers(), request.version()) else {
            return text(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "a call is application/grpc-web, application/grpc-web-text or, over HTTP/2, \
                 application/grpc\n",
            );
        };
        if !self.policy.same_origin(request.headers(), authority(&request)) {
            return text(
                StatusCode::FORBIDDEN,
                "calls are accepted from this proxy's own page only\n",
            );
        }

        policy::normalise(request.headers_mut(), protocol);
        request.extensions_mut().insert(protocol);
        let mut response = match self.calls.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        headers::secure(response.headers_mut());
        response
    }
}

/// Where the request was sent to: in HTTP/2 it stands in the target, in HTTP/1.1 in `Host`.
fn authority<B>(request: &Request<B>) -> Option<&str> {
    match request.headers().get(header::HOST) {
        Some(host) => host.to_str().ok(),
        None => request.uri().authority().map(http::uri::Authority::as_str),
    }
}

/// Whether a path is `/package.Service/Method`. Places within the client have no dot at the front.
fn is_service(path: &str) -> bool {
    path.strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .is_some_and(|(service, _)| service.contains('.'))
}

fn not_allowed(allow: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers::secure_page(headers);
    response
}
