//! A Redis of a test's own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use crate::{Process, wait_for};

/// A `redis-server` on a port of its own, without persistence: what is killed is empty afterwards.
#[derive(Debug)]
pub struct Redis {
    dir: TempDir,
    port: u16,
    env: Vec<(String, PathBuf)>,
    process: Option<Process>,
}

impl Redis {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// If it is not installed (`make deps`) or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts it in this environment beside the test's own.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub async fn start_with(env: &[(&str, &Path)]) -> anyhow::Result<Self> {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), v.to_path_buf())).collect();
        // Free now; a race for it would fail the start, which is tried again.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut redis = Self { dir: TempDir::new()?, port, env, process: None };
        redis.restart().await?;
        Ok(redis)
    }

    /// Starts it again, empty, on the same port.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--dir", &self.dir.path().to_string_lossy()]);
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        self.process = Some(Process::start("redis", &mut command, self.dir.path())?);
        wait_for("redis answers", Duration::from_secs(10), || async {
            self.cli(&["ping"]).await.and_then(|pong| {
                anyhow::ensure!(pong == "PONG", "{pong}");
                Ok(())
            })
        })
        .await
    }

    /// kill -9.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs redis-cli and answers what it printed.
    ///
    /// # Errors
    /// If it fails.
    pub async fn cli(&self, args: &[&str]) -> anyhow::Result<String> {
        let port = self.port.to_string();
        let out = Command::new(PathBuf::from("redis-cli"))
            .args(["-p", &port])
            .args(args)
            .output()
            .await?;
        anyhow::ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }
}
