//! What every request passes before its handler.

use std::any::Any;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{HeaderValue, Request, Response, StatusCode, header};
use tonic::body::Body;
use tower::{Layer, Service};

use super::status::panicked;

/// A handler that panicked answers `INTERNAL`; it ends one rpc, not the process.
#[derive(Clone, Copy, Debug)]
pub struct Panicked;

impl tower_http::catch_panic::ResponseForPanic for Panicked {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, _: Box<dyn Any + Send>) -> Response<Body> {
        panicked().into_http()
    }
}

/// Lets only gRPC in: tonic itself looks at no content type, and a browser form must not reach a
/// handler.
#[derive(Clone, Copy, Debug)]
pub struct GrpcOnlyLayer;

impl<S> Layer<S> for GrpcOnlyLayer {
    type Service = GrpcOnly<S>;

    fn layer(&self, inner: S) -> GrpcOnly<S> {
        GrpcOnly { inner }
    }
}

/// See [`GrpcOnlyLayer`].
#[derive(Clone, Debug)]
pub struct GrpcOnly<S> {
    inner: S,
}

fn is_grpc(value: Option<&HeaderValue>) -> bool {
    let bytes = value.map(HeaderValue::as_bytes);
    bytes.is_some_and(|b| b == b"application/grpc" || b == b"application/grpc+proto")
}

impl<S, B> Service<Request<B>> for GrpcOnly<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if is_grpc(request.headers().get(header::CONTENT_TYPE)) {
            return Either::Left(self.inner.call(request));
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Either::Right(ready(Ok(response)))
    }
}
