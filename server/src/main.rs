//! `pasamanos-server`: arguments, logs, run until told to stop.

use clap::Parser as _;
use pasamanos_server::config::{Cli, Command};
use pasamanos_server::{admin, shutdown, startup, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    telemetry::init(&cli.settings.log, cli.settings.log_format)?;
    match cli.command {
        None | Some(Command::Run) => {
            let app = startup::Application::build(&cli.settings).await?;
            app.run(shutdown::on_signal()?).await
        }
        Some(command) => admin::run(command, &cli.settings, &mut std::io::stdout()).await,
    }
}
