//! The log: to stderr, for people on a terminal, as JSON elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt};

use crate::config::LogFormat;

/// Libraries whose finer levels print headers, and with them session tokens, or flood the log.
const CAPPED: &str = "h2=info,hyper=info,hyper_util=info,tonic=info,tonic_web=info,tower=info";

/// Starts the log; a panic anywhere becomes an error line. Does nothing if a log is already set.
pub fn init(filter: &str, format: LogFormat) {
    // Later directives win, so the cap holds whatever was asked for.
    let filter = EnvFilter::new(format!("{filter},{CAPPED}"));
    let stderr = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let pretty = match format {
        LogFormat::Pretty => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let started = if pretty {
        stderr.with_target(false).finish().try_init()
    } else {
        stderr.json().flatten_event(true).with_current_span(false).finish().try_init()
    };

    if started.is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string);
            tracing::error!(place, "panicked at {panic}");
        }));
    }
}
