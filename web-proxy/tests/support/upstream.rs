//! A server that does what the called method's name says, and reports what it sees.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::timeout};

use super::{SOON, client::frame};

/// What the server saw.
#[derive(Debug, Eq, PartialEq)]
pub enum Event {
    Called(String),
    /// A call that never ends by itself was dropped.
    Dropped(String),
}

/// A scripted gRPC server; dropping it kills it with all its connections.
pub struct Upstream {
    pub addr: SocketAddr,
    pub events: mpsc::Receiver<Event>,
    connections: Arc<AtomicUsize>,
    floods: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    pub async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (report, events) = mpsc::channel(4096);
        let (connections, floods) = (Arc::default(), Arc::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, report, Arc::clone(&connections), Arc::clone(&floods)));
        Self { addr, events, connections, floods, _tasks: tasks }
    }

    /// How many connections were opened in all.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many messages of floods were taken in all.
    pub fn floods(&self) -> usize {
        self.floods.load(Ordering::SeqCst)
    }

    pub async fn event(&mut self) -> Event {
        timeout(SOON, self.events.recv()).await.expect("nothing happened").unwrap()
    }

    /// Whether no call came, up to now.
    pub fn was_not_called(&mut self) -> bool {
        self.events.try_recv().is_err()
    }
}

async fn accept(
    listener: TcpListener,
    report: mpsc::Sender<Event>,
    connections: Arc<AtomicUsize>,
    floods: Arc<AtomicUsize>,
) {
    let mut tasks = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        connections.fetch_add(1, Ordering::SeqCst);
        let (report, floods) = (report.clone(), Arc::clone(&floods));
        let service = service_fn(move |request| {
            let (report, floods) = (report.clone(), Arc::clone(&floods));
            async move { Ok::<_, Infallible>(answer(request, report, floods).await) }
        });
        tasks.spawn(async move {
            let connection = http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(1024)
                .serve_connection(TokioIo::new(stream), service);
            drop(connection.await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    report: mpsc::Sender<Event>,
    floods: Arc<AtomicUsize>,
) -> Response<Play> {
    let path = request.uri().to_string();
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    report.try_send(Event::Called(path)).ok();
    let seen: Vec<&str> = request.headers().keys().map(http::HeaderName::as_str).collect();
    let seen = seen.join(" ");
    let timeout = request.headers().get("grpc-timeout").cloned();
    let dropped = OnDrop(method.clone(), report);

    let mut response = match method.as_str() {
        "Echo" => match request.into_body().collect().await {
            Ok(body) => play(vec![Ok(Frame::data(body.to_bytes())), ok()], Then::End),
            Err(_) => play(vec![], Then::End),
        },
        "Count" => play(vec![data("one"), data("two"), data("three"), ok()], Then::End),
        "Broken" => play(vec![data("one"), Err("a secret of the server")], Then::End),
        "NoStatus" => play(vec![data("one")], Then::End),
        "Flood" => play(vec![], Then::Flood(dropped, floods)),
        "Ticks" => play(vec![data("tick")], Then::Silence(dropped)),
        "Hang" => {
            let () = std::future::pending().await;
            play(vec![], Then::Silence(dropped))
        }
        "Denied" => {
            let mut response = play(vec![], Then::End);
            response.headers_mut().insert("grpc-status", "7".parse().unwrap());
            response.headers_mut().insert("grpc-message", "not yours".parse().unwrap());
            response.headers_mut().insert("grpc-status-details-bin", "CAc".parse().unwrap());
            response
        }
        "Web" => {
            let mut response = play(vec![], Then::End);
            *response.status_mut() = http::StatusCode::BAD_GATEWAY;
            response
        }
        other => panic!("{other}"),
    };
    let headers = response.headers_mut();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    headers.insert("x-seen", seen.parse().unwrap());
    if let Some(timeout) = timeout {
        headers.insert("x-timeout", timeout);
    }
    response
}

/// A body that plays its frames, then goes on as told.
struct Play {
    frames: std::vec::IntoIter<Step>,
    then: Then,
}

enum Then {
    End,
    Flood(OnDrop, Arc<AtomicUsize>),
    Silence(OnDrop),
}

struct OnDrop(String, mpsc::Sender<Event>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if ["Flood", "Hang", "Ticks"].contains(&self.0.as_str()) {
            self.1.try_send(Event::Dropped(self.0.clone())).ok();
        }
    }
}

fn play(frames: Vec<Step>, then: Then) -> Response<Play> {
    Response::new(Play { frames: frames.into_iter(), then })
}

type Step = Result<Frame<Bytes>, &'static str>;

#[allow(clippy::unnecessary_wraps, reason = "a step of a script")]
fn data(message: &str) -> Step {
    Ok(Frame::data(frame(message.as_bytes())))
}

#[allow(clippy::unnecessary_wraps, reason = "a step of a script")]
fn ok() -> Step {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("x-last", "yes".parse().unwrap());
    Ok(Frame::trailers(trailers))
}

impl Body for Play {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Step>> {
        match (self.frames.next(), &self.then) {
            (Some(frame), _) => Poll::Ready(Some(frame)),
            (None, Then::End) => Poll::Ready(None),
            (None, Then::Flood(_, taken)) => {
                taken.fetch_add(1, Ordering::SeqCst);
                Poll::Ready(Some(data(&"more ".repeat(3000))))
            }
            (None, Then::Silence(_)) => Poll::Pending,
        }
    }
}
