//! What can be set: each value by flag, else by environment, else by default.

use std::{
    ffi::OsString, fmt, io::Write, net::SocketAddr, path::PathBuf, process::ExitCode, str::FromStr,
    time::Duration,
};

use clap::{
    CommandFactory, Parser,
    error::{ContextKind, ContextValue},
};
use http::{Uri, uri::Authority};

/// Passes grpc-web calls of browsers to the Pasamanos server and serves the browser client.
///
/// Knows no message: it forwards an allow-list of services and refuses all others, so the
/// agents' service cannot be reached through it. Calls are accepted from its own page only.
/// It speaks HTTP/1.1 and HTTP/2 without TLS: beyond this machine, put a TLS-terminating proxy
/// in front of it that keeps the Host header (or name its address with --origin).
#[derive(Clone, Debug, Parser)]
#[command(name = "pasamanos-web-proxy", version)]
pub struct Settings {
    /// Address to listen on; port 0 takes a free port, which the log and --port-file tell
    #[arg(
        long,
        env = "PASAMANOS_WEB_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,

    /// The server that calls are passed to, by gRPC without TLS
    #[arg(
        long,
        env = "PASAMANOS_UPSTREAM",
        value_name = "URL",
        default_value = "http://127.0.0.1:50051"
    )]
    pub upstream: Upstream,

    /// Further origins whose pages may call, such as `https://farm.example`, separated by commas:
    /// for a proxy in front that does not keep the Host header
    #[arg(
        long = "origin",
        env = "PASAMANOS_WEB_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    pub origins: Vec<Origin>,

    /// Forward gRPC reflection (buf curl --protocol grpcweb needs it); the default is yes when
    /// listening on loopback, no otherwise
    #[arg(
        long,
        env = "PASAMANOS_WEB_REFLECTION",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub reflection: Option<bool>,

    /// Longest time from SIGTERM or SIGINT to the end, whatever the peers do
    #[arg(
        long,
        env = "PASAMANOS_DRAIN_TIMEOUT",
        value_name = "TIME",
        default_value = "20s",
        value_parser = parse_duration
    )]
    pub drain_timeout: Duration,

    /// File to write the bound address into once the proxy listens (renamed into place)
    #[arg(long, env = "PASAMANOS_PORT_FILE", value_name = "PATH")]
    pub port_file: Option<PathBuf>,

    /// What to log: a level, or directives such as `info,pasamanos_web_proxy=debug`
    #[arg(
        long,
        env = "PASAMANOS_LOG",
        value_name = "FILTER",
        default_value = "info",
        value_parser = parse_filter
    )]
    pub log: String,

    /// Form of the log, which goes to stderr; auto is pretty on a terminal and JSON otherwise
    #[arg(
        long,
        env = "PASAMANOS_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value = "auto"
    )]
    pub log_format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl Settings {
    /// Reads flags and environment. The error says which of the two a bad value came from.
    pub fn load<I>(args: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        Self::try_parse_from(&args).map_err(|error| ConfigError {
            origin: environment_variable(&error, &args),
            error: Box::new(error),
        })
    }

    /// Whether reflection is forwarded: as told, else only for a listener on loopback.
    pub fn reflection(&self) -> bool {
        self.reflection.unwrap_or(self.listen.ip().is_loopback())
    }
}

/// Settings that cannot be used, or a request for help or the version.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", origin.as_deref().unwrap_or_default())]
pub struct ConfigError {
    error: Box<clap::Error>,
    /// Names the environment variable that the bad value came from, if it did.
    origin: Option<String>,
}

impl ConfigError {
    /// Prints what is wrong (or the help that was asked for) and gives the exit code.
    pub fn report(&self) -> ExitCode {
        // Nothing can be done about a closed stderr.
        let _ = self.error.print();
        if let Some(origin) = &self.origin {
            let _ = writeln!(std::io::stderr(), "\n{origin}");
        }
        u8::try_from(self.error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
    }
}

/// Names the environment variable of a bad value that no flag gave.
fn environment_variable(error: &clap::Error, args: &[OsString]) -> Option<String> {
    let ContextValue::String(shown) = error.get(ContextKind::InvalidArg)? else { return None };
    let flag = shown.split([' ', '=', '[']).next()?;
    let long = flag.strip_prefix("--")?;
    let given = args.iter().filter_map(|arg| arg.to_str());
    if given.into_iter().any(|arg| arg == flag || arg.starts_with(&format!("{flag}="))) {
        return None;
    }

    let command = Settings::command();
    let arg = command.get_arguments().find(|arg| arg.get_long() == Some(long))?;
    let variable = arg.get_env()?.to_str()?;
    Some(format!(
        "The value came from the environment variable {variable}; {flag} would override it."
    ))
}

/// Where the server is: `http://host[:port]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upstream(Authority);

impl Upstream {
    /// The `host:port` of requests.
    pub fn authority(&self) -> &Authority {
        &self.0
    }

    /// The host to connect to; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.0.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(80)
    }
}

impl FromStr for Upstream {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let uri: Uri =
            text.parse().map_err(|_| BadValue("not a URL like http://127.0.0.1:50051"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(BadValue(
                    "TLS to the server is not supported: use http://, with the \
                    proxy next to the server",
                ));
            }
            _ => return Err(BadValue("not a URL like http://127.0.0.1:50051")),
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(BadValue("a server has no path: write http://host:port"));
        }

        let authority = uri.authority().ok_or(BadValue("the host is missing"))?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(BadValue("write http://host:port"));
        }
        Ok(Self(authority.clone()))
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

/// An origin as browsers send it: `scheme://host[:port]`, in lower case, no default port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin(String);

impl Origin {
    /// The text that an `Origin` header must equal.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let text = text.trim().to_ascii_lowercase();
        let bad = BadValue("not an origin like https://farm.example");
        let (scheme, authority) = text.split_once("://").ok_or(bad)?;
        let default_port = match scheme {
            "https" => ":443",
            "http" => ":80",
            _ => return Err(bad),
        };
        let authority = authority.strip_suffix(default_port).unwrap_or(authority);
        match authority.parse::<Authority>() {
            Ok(parsed) if !parsed.host().is_empty() && !authority.contains('@') => {
                Ok(Self(format!("{scheme}://{authority}")))
            }
            _ => Err(bad),
        }
    }
}

/// Why a value cannot be used.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadValue(&'static str);

fn parse_duration(text: &str) -> Result<Duration, BadValue> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().map_err(|_| BadValue("not a time like 20s, 500ms or 1m"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number.into())),
        "s" => Ok(Duration::from_secs(number.into())),
        "m" => Ok(Duration::from_secs(u64::from(number) * 60)),
        _ => Err(BadValue("a time needs a unit: ms, s or m, as in 20s")),
    }
}

fn parse_filter(text: &str) -> Result<String, BadValue> {
    tracing_subscriber::EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|_| BadValue("not a level (error, warn, info, debug, trace) or target=level list"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn load(args: &[&str]) -> Result<Settings, ConfigError> {
        Settings::load(std::iter::once("pasamanos-web-proxy").chain(args.iter().copied()))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Settings::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let settings = load(&[]).unwrap();

        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(settings.upstream.to_string(), "http://127.0.0.1:50051");
        assert_eq!(settings.drain_timeout, Duration::from_secs(20));
        assert_eq!(settings.log_format, LogFormat::Auto);
        assert!(settings.origins.is_empty());
        assert!(settings.reflection());
    }

    #[test]
    fn reflection_is_off_beyond_loopback_unless_asked_for() {
        assert!(!load(&["--listen", "0.0.0.0:8080"]).unwrap().reflection());
        assert!(load(&["--listen", "0.0.0.0:8080", "--reflection"]).unwrap().reflection());
        assert!(!load(&["--reflection=false"]).unwrap().reflection());
    }

    #[test]
    fn a_bad_flag_is_named_and_not_blamed_on_the_environment() {
        let error = load(&["--listen", "nowhere"]).unwrap_err().to_string();

        assert!(error.contains("--listen") && error.contains("nowhere"), "{error}");
        assert!(!error.contains("environment"), "{error}");
    }

    #[test]
    fn upstreams_that_cannot_be_called_are_refused_with_the_reason() {
        for (text, why) in [
            ("https://farm.example", "TLS"),
            ("127.0.0.1:50051", "URL"),
            ("http://host:1/path", "path"),
            ("http://user@host:1", "host:port"),
        ] {
            let error = load(&["--upstream", text]).unwrap_err().to_string();
            assert!(error.contains("--upstream") && error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn an_ipv6_upstream_is_dialled_without_its_brackets() {
        let upstream: Upstream = "http://[::1]:50051".parse().unwrap();

        assert_eq!((upstream.host(), upstream.port()), ("::1", 50051));
        assert_eq!(upstream.authority().as_str(), "[::1]:50051");
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(parse_duration("1500ms").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse_duration("2m").unwrap(), Duration::from_mins(2));
        for bad in ["20", "s", "", "-1s", "1h", "99999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn origins_are_kept_as_browsers_send_them() {
        let origin: Origin = "HTTPS://Farm.example:443".parse().unwrap();

        assert_eq!(origin.as_str(), "https://farm.example");
        for bad in ["farm.example", "null", "https://", "ftp://farm.example", "https://a/b"] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
