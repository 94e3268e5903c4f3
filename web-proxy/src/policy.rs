//! Who may call what: the allow-list of services, the content types, the origin.

use http::{HeaderMap, HeaderValue, Version, header};

use crate::config::Origin;

/// The services that a browser may reach. The agents' service is not among them, and never will be.
pub const SERVICES: &[&str] =
    &["grpc.health.v1.Health", "pasamanos.v1.FeederService", "pasamanos.v1.StatusService"];

/// The services that tools need to call without a copy of the contract; see `--reflection`.
pub const REFLECTION: &[&str] =
    &["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const WEB: HeaderValue = HeaderValue::from_static("application/grpc-web+proto");
const WEB_TEXT: HeaderValue = HeaderValue::from_static("application/grpc-web-text+proto");

/// What may be called.
#[derive(Clone, Debug)]
pub struct Policy {
    reflection: bool,
    origins: Vec<Origin>,
}

/// How a call is spoken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// grpc-web, binary.
    Web,
    /// grpc-web in base64, for browsers that cannot read binary streams.
    WebText,
}

impl Policy {
    /// Origins other than the proxy's own are those given.
    pub fn new(reflection: bool, origins: Vec<Origin>) -> Self {
        Self { reflection, origins }
    }

    /// Whether `/service/method` may be forwarded. Anything that is not exactly that is not.
    pub fn allows(&self, path: &str) -> bool {
        let Some((service, method)) = path.strip_prefix('/').and_then(|p| p.split_once('/')) else {
            return false;
        };
        let named =
            !method.is_empty() && method.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        named && (SERVICES.contains(&service) || (self.reflection && REFLECTION.contains(&service)))
    }

    /// Whether the page that sent this may call: it is the proxy's own, a named one, or no page.
    ///
    /// This, and content types that a foreign page cannot send without asking first, is what stops
    /// a foreign page from using the farmer's login. Only the authority is compared: behind a
    /// TLS-terminating proxy the page is https and we are not.
    pub fn same_origin(&self, headers: &HeaderMap, authority: Option<&str>) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return true };
        if origins.next().is_some() {
            return false;
        }
        let Ok(origin) = origin.to_str() else { return false };
        let origin = origin.to_ascii_lowercase();
        if self.origins.iter().any(|known| known.as_str() == origin) {
            return true;
        }

        let (page, default_port) = match origin.split_once("://") {
            Some(("http", page)) => (page, ":80"),
            Some(("https", page)) => (page, ":443"),
            _ => return false,
        };
        authority.is_some_and(|ours| {
            let ours = ours.to_ascii_lowercase();
            !page.is_empty() && ours.strip_suffix(default_port).unwrap_or(&ours) == page
        })
    }
}

/// Reads the content type; `None` is a type that is not gRPC, or one that this HTTP cannot carry.
pub fn protocol(headers: &HeaderMap, version: Version) -> Option<Protocol> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }

    // Some clients append a charset, which says nothing here; any other parameter is unknown.
    let (kind, parameter) = match value.split_once(';') {
        Some((kind, parameter)) => (kind.trim_end(), Some(parameter.trim())),
        None => (value, None),
    };
    if parameter.is_some_and(|p| !p.eq_ignore_ascii_case("charset=utf-8")) {
        return None;
    }

    match kind.to_ascii_lowercase().as_str() {
        "application/grpc-web" | "application/grpc-web+proto" => Some(Protocol::Web),
        "application/grpc-web-text" | "application/grpc-web-text+proto" => Some(Protocol::WebText),
        // Its trailers exist in HTTP/2 only.
        "application/grpc" | "application/grpc+proto" if version == Version::HTTP_2 => {
            Some(Protocol::Grpc)
        }
        _ => None,
    }
}

/// Writes content type and accept in the one form that tonic-web compares with.
///
/// The answer comes in the form that `Accept` names; where it names none, as the call came.
pub fn normalise(headers: &mut HeaderMap, protocol: Protocol) {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let text = if accept.contains("application/grpc-web-text") {
        true
    } else if accept.contains("application/grpc-web") {
        false
    } else {
        protocol == Protocol::WebText
    };
    let name = |text| if text { WEB_TEXT } else { WEB };

    match protocol {
        Protocol::Grpc => {
            headers.insert(header::CONTENT_TYPE, GRPC);
        }
        Protocol::Web | Protocol::WebText => {
            headers.insert(header::CONTENT_TYPE, name(protocol == Protocol::WebText));
            headers.insert(header::ACCEPT, name(text));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| {
                (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())
            })
            .collect()
    }

    fn spoken(content_type: &str, version: Version) -> Option<Protocol> {
        protocol(&headers(&[("content-type", content_type)]), version)
    }

    #[test]
    fn only_listed_services_are_forwarded() {
        let policy = Policy::new(false, Vec::new());

        for path in ["/pasamanos.v1.FeederService/GetFeeder", "/grpc.health.v1.Health/Watch"] {
            assert!(policy.allows(path), "{path}");
        }
        for path in [
            "/pasamanos.v1.AgentLinkService/Connect",
            "/pasamanos.v1.AgentLinkService/Enroll",
            "/pasamanos.v1.agentlinkservice/Connect",
            "/pasamanos.v1.FeederService",
            "/pasamanos.v1.FeederService/",
            "/pasamanos.v1.FeederService/Get/extra",
            "/pasamanos.v1.FeederService/../pasamanos.v1.AgentLinkService/Connect",
            "/pasamanos.v1.FeederService/Get%2f",
            "//pasamanos.v1.FeederService/GetFeeder",
            "pasamanos.v1.FeederService/GetFeeder",
            "/",
            "",
            "*",
        ] {
            assert!(!policy.allows(path), "{path}");
        }
    }

    #[test]
    fn the_agents_service_is_on_no_list() {
        assert!(SERVICES.iter().chain(REFLECTION).all(|name| !name.contains("Agent")));
    }

    #[test]
    fn reflection_is_forwarded_only_when_asked_for() {
        for service in REFLECTION {
            let path = format!("/{service}/ServerReflectionInfo");
            assert!(Policy::new(true, Vec::new()).allows(&path));
            assert!(!Policy::new(false, Vec::new()).allows(&path));
        }
    }

    #[test]
    fn content_types_are_exactly_those_of_grpc() {
        for (text, protocol) in [
            ("application/grpc-web", Some(Protocol::Web)),
            ("application/grpc-web+proto", Some(Protocol::Web)),
            ("application/grpc-web+proto; charset=utf-8", Some(Protocol::Web)),
            ("application/grpc-web+proto;charset=UTF-8", Some(Protocol::Web)),
            ("application/grpc-web-text", Some(Protocol::WebText)),
            ("application/grpc-web-text+proto", Some(Protocol::WebText)),
            ("application/grpc", Some(Protocol::Grpc)),
            ("application/grpc+proto", Some(Protocol::Grpc)),
            ("application/grpc+json", None),
            ("application/grpc-evil", None),
            ("application/grpc-web+proto; charset=utf-8; boundary=x", None),
            ("application/grpc-web+proto, text/plain", None),
            ("text/plain", None),
            ("text/plain; application/grpc-web", None),
            ("application/x-www-form-urlencoded", None),
            ("multipart/form-data", None),
            ("", None),
        ] {
            assert_eq!(spoken(text, Version::HTTP_2), protocol, "{text:?}");
        }
        assert_eq!(spoken("application/grpc", Version::HTTP_11), None);
        assert_eq!(protocol(&HeaderMap::new(), Version::HTTP_2), None);

        let mut twice = headers(&[("content-type", "application/grpc-web")]);
        twice.append(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        assert_eq!(protocol(&twice, Version::HTTP_11), None);
    }

    #[test]
    fn only_the_own_page_and_named_pages_may_call() {
        let policy = Policy::new(false, vec!["https://farm.example".parse().unwrap()]);
        let ours = Some("127.0.0.1:8080");

        assert!(policy.same_origin(&HeaderMap::new(), ours));
        for (origin, host, allowed) in [
            ("http://127.0.0.1:8080", ours, true),
            ("https://127.0.0.1:8080", ours, true),
            ("HTTP://LOCALHOST:8080", Some("localhost:8080"), true),
            ("https://farm.example", ours, true),
            ("https://other.example", Some("other.example:443"), true),
            ("https://farm.example.evil", ours, false),
            ("https://farm.example.", ours, false),
            ("http://farm.example", ours, false),
            ("http://127.0.0.1:8081", ours, false),
            ("http://127.0.0.1", ours, false),
            ("http://evil.example", ours, false),
            ("null", ours, false),
            ("", ours, false),
            ("http://", Some(""), false),
            ("http://127.0.0.1:8080", None, false),
        ] {
            let headers = headers(&[("origin", origin)]);
            assert_eq!(policy.same_origin(&headers, host), allowed, "{origin} at {host:?}");
        }

        let twice =
            headers(&[("origin", "http://127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")]);
        assert!(!policy.same_origin(&twice, ours));
    }

    #[test]
    fn the_answer_comes_as_accept_asks_and_else_as_the_call_came() {
        let web = "application/grpc-web+proto";
        let text = "application/grpc-web-text+proto";
        for (protocol, accept, answer) in [
            (Protocol::Web, "*/*", web),
            (Protocol::Web, "application/grpc-web-text", text),
            (Protocol::WebText, "*/*", text),
            (Protocol::WebText, "application/grpc-web-text, */*", text),
            (Protocol::WebText, "application/grpc-web+proto", web),
        ] {
            let mut headers = headers(&[("accept", accept)]);
            normalise(&mut headers, protocol);
            assert_eq!(headers[header::ACCEPT], answer, "{protocol:?} {accept}");
        }
    }
}
