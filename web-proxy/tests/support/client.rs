//! A browser's side: HTTP/1.1 or HTTP/2 on one connection, and the frames of grpc-web.

use std::{convert::Infallible, net::SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::SOON;

/// One connection; dropping it closes the socket.
pub struct Client {
    sender: Sender,
    authority: String,
    _connection: JoinSet<()>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub async fn http1(addr: SocketAddr) -> Self {
        let io = connect(addr).await;
        let (sender, connection) = http1::handshake(io).await.unwrap();
        Self::new(Sender::Http1(sender), addr, async { drop(connection.await) })
    }

    pub async fn http2(addr: SocketAddr) -> Self {
        let io = connect(addr).await;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        Self::new(Sender::Http2(sender), addr, async { drop(connection.await) })
    }

    fn new(
        sender: Sender,
        addr: SocketAddr,
        connection: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Self { sender, authority: addr.to_string(), _connection: tasks }
    }

    /// Sends a request with these headers and gives the answer once its headers are there.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(body.into());
        let answer = match &mut self.sender {
            Sender::Http1(sender) => {
                let host = headers.iter().all(|(name, _)| *name != "host");
                if host {
                    request = request.header("host", &self.authority);
                }
                let request = request.uri(path).body(body).unwrap();
                timeout(SOON, async {
                    sender.ready().await.unwrap();
                    sender.send_request(request).await
                })
                .await
            }
            Sender::Http2(sender) => {
                let uri = format!("http://{}{path}", self.authority);
                let request = request.uri(uri).body(body).unwrap();
                timeout(SOON, sender.send_request(request)).await
            }
        };
        answer.expect("no answer").unwrap()
    }

    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
        self.send(Method::GET, path, headers, Bytes::new()).await
    }

    /// Makes a binary grpc-web call of the scripted service and reads it to its end.
    pub async fn call(&mut self, method: &str, headers: &[(&str, &str)], message: &str) -> Answer {
        Answer::read(self.open(method, headers, message).await).await
    }

    /// The same, read by the caller.
    pub async fn open(
        &mut self,
        method: &str,
        headers: &[(&str, &str)],
        message: &str,
    ) -> Response<Incoming> {
        let mut all = vec![("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1")];
        all.extend(headers);
        self.send(Method::POST, &path(method), &all, frame(message.as_bytes())).await
    }
}

/// A call over HTTP/2 whose request stays open until the sender is dropped.
pub struct OpenCall {
    pub response: Response<Incoming>,
    pub messages: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
    _connection: JoinSet<()>,
}

impl OpenCall {
    pub async fn start(addr: SocketAddr, method: &str, timeout: &str) -> Self {
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), connect(addr).await).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async { drop(connection.await) });
        let (messages, body) = mpsc::channel(1);
        let request = Request::post(format!("http://{addr}{}", path(method)))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", timeout)
            .body(StreamBody::new(ReceiverStream::new(body)))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        Self { response, messages, _connection: tasks }
    }
}

async fn connect(addr: SocketAddr) -> TokioIo<TcpStream> {
    let stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    TokioIo::new(stream)
}

/// The path of a method of a service that may be called.
pub fn path(method: &str) -> String {
    format!("/pasamanos.v1.FeederService/{method}")
}

/// A message in its five-byte frame.
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    framed.freeze()
}

/// A grpc-web answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub http: StatusCode,
    pub headers: HeaderMap,
    pub messages: Vec<String>,
    /// Those in the body, or those in the headers where there is no body.
    pub trailers: HeaderMap,
}

impl Answer {
    pub async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = timeout(SOON, body.collect()).await.expect("no end").unwrap().to_bytes();
        let text =
            parts.headers["content-type"].as_bytes().starts_with(b"application/grpc-web-text");
        let body = if text { base64_decode(&body) } else { body.to_vec() };
        let (messages, in_body) = parse(&body);
        Self {
            http: parts.status,
            trailers: in_body.unwrap_or_else(|| parts.headers.clone()),
            headers: parts.headers,
            messages,
        }
    }

    /// The gRPC status code.
    pub fn code(&self) -> i32 {
        let status = self.trailers.get("grpc-status").expect("an answer has a status");
        status.to_str().unwrap().parse().unwrap()
    }

    pub fn message(&self) -> &str {
        self.trailers.get("grpc-message").map_or("", |value| value.to_str().unwrap())
    }
}

/// Messages, and the trailers if they came.
pub fn parse(mut body: &[u8]) -> (Vec<String>, Option<HeaderMap>) {
    let (mut messages, mut trailers) = (Vec::new(), None);
    while !body.is_empty() {
        assert!(trailers.is_none(), "nothing may follow the trailers");
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        let content = std::str::from_utf8(&body[5..5 + length]).unwrap();
        match body[0] {
            0 => messages.push(content.to_owned()),
            0x80 => trailers = Some(header_block(content)),
            other => panic!("flag {other}"),
        }
        body = &body[5 + length..];
    }
    (messages, trailers)
}

fn header_block(text: &str) -> HeaderMap {
    text.split_terminator("\r\n")
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| {
            (name.parse::<http::HeaderName>().unwrap(), value.trim().parse().unwrap())
        })
        .collect()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub fn base64_encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// Frames are encoded one by one, so padding may stand anywhere.
fn base64_decode(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for group in text.chunks(4) {
        let digits = group.iter().filter(|digit| **digit != b'=');
        let count = digits.clone().count();
        let bits = digits.fold(0_u32, |bits, digit| {
            let value = ALPHABET.iter().position(|known| known == digit).expect("base64");
            bits << 6 | u32::try_from(value).unwrap()
        }) << (6 * (4 - count));
        bytes.extend(&bits.to_be_bytes()[1..count]);
    }
    bytes
}
