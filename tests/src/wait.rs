//! Waiting for something that can be observed, never for time to pass.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Asks until the probe answers `Ok`. A failure says what was waited for and the last answer.
///
/// # Errors
/// If it did not come within the deadline.
pub async fn wait_for<T, E, F>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, E>>,
    E: Debug,
{
    let deadline = Instant::now() + within;
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= deadline => {
                anyhow::bail!("{what}: not within {within:?}; last: {last:?}")
            }
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}
