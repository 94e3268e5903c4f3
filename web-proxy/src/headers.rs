//! Headers: what is stripped from a call before it goes on, and what every answer bears.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers that belong to one hop or to the browser, not to the call.
const STRIPPED: [HeaderName; 13] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CONNECTION,
    // The length of the base64 text, or a promise that a cut body would break.
    header::CONTENT_LENGTH,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::ORIGIN,
    header::REFERER,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The same, by names that the http crate has no constant for.
const STRIPPED_TOO: [&str; 6] =
    ["dnt", "keep-alive", "priority", "proxy-connection", "x-grpc-web", "x-user-agent"];

/// Leaves only what the call itself says: its metadata, its timeout, its message encoding.
pub fn strip(headers: &mut HeaderMap) {
    // Headers that `Connection` names are of this hop as well.
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let browser: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name.starts_with("sec-") || name.starts_with("access-control-")
        })
        .cloned()
        .collect();

    for name in named.iter().chain(&browser).chain(&STRIPPED) {
        headers.remove(name);
    }
    for name in STRIPPED_TOO {
        headers.remove(name);
    }
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
}

/// Forbids all that the client does not use, and all use of it by others.
///
/// `style-src` needs no `unsafe-inline`: scripts set styles through the object model.
const PAGE: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src 'self' data:; font-src 'self'; manifest-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "accelerometer=(), browsing-topics=(), camera=(), display-capture=(), \
         geolocation=(), gyroscope=(), hid=(), idle-detection=(), magnetometer=(), microphone=(), \
         midi=(), payment=(), publickey-credentials-get=(), serial=(), usb=()",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// Secures an answer that a browser may show as a page, or load from one.
pub fn secure_page(headers: &mut HeaderMap) {
    for (name, value) in PAGE {
        headers.insert(name, HeaderValue::from_static(value));
    }
    secure(headers);
}

/// Secures any answer.
pub fn secure(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn only_what_belongs_to_the_call_goes_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "application/grpc-web-text"),
            ("accept-encoding", "gzip, br"),
            ("authorization", "Bearer token"),
            ("connection", "keep-alive, x-hop"),
            ("content-length", "8"),
            ("content-type", "application/grpc"),
            ("cookie", "session=secret"),
            ("grpc-accept-encoding", "gzip"),
            ("grpc-encoding", "identity"),
            ("grpc-timeout", "5S"),
            ("host", "127.0.0.1:8080"),
            ("origin", "http://127.0.0.1:8080"),
            ("referer", "http://127.0.0.1:8080/"),
            ("sec-fetch-site", "same-origin"),
            ("transfer-encoding", "chunked"),
            ("x-custom-bin", "AAEC"),
            ("x-grpc-web", "1"),
            ("x-hop", "1"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }

        strip(&mut headers);

        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let expected = [
            "authorization",
            "content-type",
            "grpc-accept-encoding",
            "grpc-encoding",
            "grpc-timeout",
            "te",
            "x-custom-bin",
        ];
        assert_eq!(left, expected);
    }
}
