//! The `pasamanos-web-proxy` program: settings, log, proxy, exit code.

use std::process::ExitCode;

use pasamanos_web_proxy::{assets::Site, config::Settings, proxy::Proxy, stop, telemetry};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    let settings = match Settings::load(std::env::args_os()) {
        Ok(settings) => settings,
        Err(error) => return error.report(),
    };
    telemetry::init(&settings.log, settings.log_format);

    match run(&settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot run");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: &Settings) -> anyhow::Result<()> {
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    // First: whoever reads that the proxy listens may send a signal at once.
    let signals = stop::signals(stop.clone(), hurry.clone())?;
    let proxy = Proxy::bind(settings, Site::embedded()).await?;
    tokio::select! {
        result = proxy.run(stop, hurry) => result,
        () = signals => Ok(()),
    }
}
