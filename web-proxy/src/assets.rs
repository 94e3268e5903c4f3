//! The embedded client: one table of files made at start, answered from memory.
//!
//! A file `x` may have compressed siblings `x.br` and `x.gz`, made when the client is built; they
//! are representations of `x`, not files of their own.

use std::{borrow::Cow, collections::HashMap};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use rust_embed::Embed;
use tonic::body::Body;

use crate::headers;

#[derive(Embed)]
#[folder = "$PASAMANOS_WEB_CLIENT"]
struct Client;

/// The page that every place within the client starts from.
const INDEX: &str = "index.html";

/// Vite names these files by their content, so a name never changes its meaning.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Everything else is asked for again each time, and answered 304 while it is the same.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// Content codings, best first, with the suffix of the file that holds them.
const CODINGS: [(&str, &str); 2] = [("br", ".br"), ("gzip", ".gz")];

/// A file to serve: path, content, and a digest of the content.
pub type File = (String, Cow<'static, [u8]>, [u8; 32]);

/// The files of the client.
#[derive(Debug)]
pub struct Site {
    assets: HashMap<String, Asset>,
    /// Whether these are the client's files, not the stub's.
    pub built: bool,
}

#[derive(Debug)]
struct Asset {
    kind: HeaderValue,
    cache: HeaderValue,
    plain: Representation,
    coded: Vec<(&'static str, Representation)>,
}

#[derive(Debug)]
struct Representation {
    content: Bytes,
    etag: HeaderValue,
}

impl Site {
    /// The client that was built into this program, or the stub that says how to build it.
    pub fn embedded() -> Self {
        // Hidden files are marks of the build, not of the client.
        let visible = Client::iter().filter(|path| !path.starts_with('.'));
        let files = visible.filter_map(|path| {
            let file = Client::get(&path)?;
            Some((path.into_owned(), file.data, file.metadata.sha256_hash()))
        });
        Self { built: env!("PASAMANOS_WEB_CLIENT_BUILT") == "true", ..Self::new(files) }
    }

    /// A site of the given files.
    pub fn new(files: impl IntoIterator<Item = File>) -> Self {
        let mut files: HashMap<String, Representation> = files
            .into_iter()
            .map(|(path, content, digest)| (path, Representation::new(content, &digest)))
            .collect();
        let plain: Vec<String> = files
            .keys()
            .filter(|path| {
                let sibling = CODINGS.iter().find_map(|(_, suffix)| path.strip_suffix(suffix));
                !sibling.is_some_and(|of| files.contains_key(of))
            })
            .cloned()
            .collect();

        let mut assets = HashMap::new();
        for path in plain {
            let coded = CODINGS
                .iter()
                .filter_map(|(coding, suffix)| {
                    Some((*coding, files.remove(&format!("{path}{suffix}"))?))
                })
                .collect();
            if let Some(plain) = files.remove(&path) {
                let cache = if path.starts_with("assets/") { IMMUTABLE } else { REVALIDATE };
                assets.insert(path.clone(), Asset { kind: kind(&path), cache, plain, coded });
            }
        }
        Self { assets, built: true }
    }

    /// Answers a GET or HEAD.
    pub fn respond<B>(&self, request: &Request<B>) -> Response<Body> {
        let Some(asset) = self.find(request.uri().path(), request.headers()) else {
            return not_found();
        };
        let (coding, representation) = asset.choose(request.headers());
        let unchanged = matches(request.headers(), &representation.etag);

        let (status, content) = if unchanged {
            (StatusCode::NOT_MODIFIED, Bytes::new())
        } else {
            (StatusCode::OK, representation.content.clone())
        };
        let mut response = respond(status, content, request.method() == http::Method::HEAD);
        let headers = response.headers_mut();
        headers.insert(header::ETAG, representation.etag.clone());
        headers.insert(header::CACHE_CONTROL, asset.cache.clone());
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if !unchanged {
            headers.insert(header::CONTENT_TYPE, asset.kind.clone());
            if let Some(coding) = coding {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
            }
        }
        response
    }

    /// The file of a path; for a place within the client, the page that shows it.
    fn find(&self, path: &str, headers: &HeaderMap) -> Option<&Asset> {
        let name = path.strip_prefix('/').unwrap_or(path);
        if name.is_empty() {
            return self.assets.get(INDEX);
        }
        // A missing script is missing: a page left open over an update would run HTML as its code.
        let deep_link = !name.starts_with("assets/") && wants_page(name, headers);
        self.assets.get(name).or_else(|| deep_link.then(|| self.assets.get(INDEX))?)
    }
}

impl Asset {
    /// The best representation that the client takes; the plain one if it takes none.
    fn choose(&self, headers: &HeaderMap) -> (Option<&'static str>, &Representation) {
        let accepted = AcceptEncoding::of(headers);
        let mut best: (u16, Option<&'static str>, &Representation) = (0, None, &self.plain);
        for (coding, representation) in &self.coded {
            let weight = accepted.weight(coding);
            if weight > best.0 {
                best = (weight, Some(coding), representation);
            }
        }
        (best.1, best.2)
    }
}

impl Representation {
    fn new(content: Cow<'static, [u8]>, digest: &[u8; 32]) -> Self {
        let content = match content {
            Cow::Borrowed(content) => Bytes::from_static(content),
            Cow::Owned(content) => Bytes::from(content),
        };
        // 96 bits of the digest, as quoted hexadecimal.
        let mut head = [0; 16];
        head[4..].copy_from_slice(&digest[..12]);
        let etag = HeaderValue::try_from(format!("\"{:024x}\"", u128::from_be_bytes(head)))
            .unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        Self { content, etag }
    }
}

/// What a client takes, in thousandths; absent is 0.
struct AcceptEncoding(Vec<(String, u16)>);

impl AcceptEncoding {
    fn of(headers: &HeaderMap) -> Self {
        let codings = headers
            .get_all(header::ACCEPT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|item| {
                let mut parts = item.split(';').map(str::trim);
                let coding = parts.next().filter(|coding| !coding.is_empty())?;
                let weight =
                    parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
                Some((coding.to_ascii_lowercase(), weight))
            });
        Self(codings.collect())
    }

    fn weight(&self, coding: &str) -> u16 {
        let named = |name: &str| self.0.iter().find(|(coding, _)| coding == name);
        named(coding).or_else(|| named("*")).map_or(0, |(_, weight)| *weight)
    }
}

/// Reads `0.8` as 800; what is not a weight counts as a refusal.
fn thousandths(text: &str) -> u16 {
    text.trim().parse::<f32>().ok().filter(|weight| (0.0..=1.0).contains(weight)).map_or(
        0,
        |weight| {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 0 and 1000"
            )]
            let weight = (weight * 1000.0) as u16;
            weight
        },
    )
}

/// Whether a path that is no file is a place within the client.
fn wants_page(name: &str, headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let file = name.rsplit('/').next().is_some_and(|last| last.contains('.'));
    accept.contains("text/html") || (accept.contains("*/*") && !file)
}

/// Whether the client has this representation already.
fn matches(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes())
    })
}

fn not_found() -> Response<Body> {
    let mut response = respond(StatusCode::NOT_FOUND, Bytes::from_static(b"not found\n"), false);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn respond(status: StatusCode, content: Bytes, head: bool) -> Response<Body> {
    let length = content.len();
    let body = if head { Body::empty() } else { Body::new(Full::new(content)) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if status != StatusCode::NOT_MODIFIED {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    headers::secure_page(response.headers_mut());
    response
}

fn kind(path: &str) -> HeaderValue {
    HeaderValue::from_static(match path.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("html") => "text/html; charset=utf-8",
        Some("ico") => "image/x-icon",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("png") => "image/png",
        Some("svg") => "image/svg+xml",
        Some("txt") => "text/plain; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("webmanifest") => "application/manifest+json",
        Some("webp") => "image/webp",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn accept(text: &str) -> AcceptEncoding {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
        AcceptEncoding::of(&headers)
    }

    #[test]
    fn weights_are_read_and_zero_refuses() {
        for (text, br, gzip) in [
            ("gzip, deflate, br, zstd", 1000, 1000),
            ("br;q=0, gzip;q=0.5", 0, 500),
            ("BR ; q=0.001", 1, 0),
            ("*", 1000, 1000),
            ("*;q=0, gzip", 0, 1000),
            ("br;q=0.0", 0, 0),
            ("br;q=nan, gzip;q=2", 0, 0),
            ("identity", 0, 0),
            ("", 0, 0),
        ] {
            let accepted = accept(text);
            assert_eq!((accepted.weight("br"), accepted.weight("gzip")), (br, gzip), "{text:?}");
        }
    }

    #[test]
    fn an_embedded_site_has_an_index() {
        assert!(Site::embedded().assets.contains_key(INDEX));
    }

    #[test]
    fn compressed_siblings_are_no_files_of_their_own() {
        let file = |path: &str| (path.to_owned(), Cow::Borrowed(&b"x"[..]), [0; 32]);
        let site = Site::new(["a.js", "a.js.br", "a.js.gz", "lone.gz"].map(file));

        let mut names: Vec<&String> = site.assets.keys().collect();
        names.sort();
        assert_eq!(names, ["a.js", "lone.gz"]);
        assert_eq!(site.assets["a.js"].coded.len(), 2);
    }
}
