//! A child process: logged to a file, signalled by id, ended with its owner.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output in `dir/name.log` (appended).
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, command: &mut Command, dir: &Path) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Starts a program that shares the caller's output.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_shared(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: PathBuf::new() })
    }

    /// Its process id; `None` once it ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it ended already.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let id = id.with_context(|| format!("{} has ended", self.name))?;
        Ok(kill_process(id, signal)?)
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn wait(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let ended = timeout(within, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} did not end within {within:?}", self.name))??)
    }

    /// Waits for its end, however long it takes.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn terminate(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        if self.id().is_some() {
            self.signal(Signal::TERM)?;
        }
        self.wait(within).await
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident memory now, KiB.
    ///
    /// # Errors
    /// If it ended.
    pub fn rss_kib(&self) -> anyhow::Result<u64> {
        let id = self.id().context("has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib = line.split_whitespace().nth(1).context("no VmRSS")?;
        Ok(kib.parse()?)
    }

    /// Processor time that it used so far, ms, in user and kernel mode.
    ///
    /// # Errors
    /// If it ended.
    pub fn cpu_ms(&self) -> anyhow::Result<u64> {
        // Linux tells it in hundredths of a second, whatever the kernel's own tick.
        const TICK_MS: u64 = 10;
        let id = self.id().context("has ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        // Behind the name, which may hold anything: utime and stime are fields 14 and 15 of all.
        let rest = stat.rsplit_once(')').context("no name")?.1;
        let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        Ok(ticks.sum::<Result<u64, _>>()? * TICK_MS)
    }
}
