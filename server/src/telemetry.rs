//! Logs to stderr: pretty on a terminal, JSON otherwise.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::LogFormat;

/// Targets that would log bodies or secrets at lower levels, whatever is asked for.
const CAPPED: [&str; 4] = ["h2=info", "hyper=info", "tonic=info", "sqlx=warn"];

/// Starts logging.
///
/// # Errors
/// If the filter cannot be read (names flag and variable), or logging was started before.
pub fn init(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let mut parsed = EnvFilter::try_new(filter)
        .map_err(|e| anyhow::anyhow!("--log (PASAMANOS_LOG): {filter:?}: {e}"))?;
    for directive in CAPPED {
        parsed = parsed.add_directive(directive.parse()?);
    }
    let pretty = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let logs = fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    let started = if pretty {
        logs.with_ansi(std::io::stderr().is_terminal()).try_init()
    } else {
        logs.json().flatten_event(true).try_init()
    };
    started.map_err(|e| anyhow::anyhow!("logging: {e}"))
}
