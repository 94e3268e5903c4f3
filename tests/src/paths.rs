//! Where things are in a checkout.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The checkout's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A binary of this workspace, beside the running one.
///
/// # Errors
/// If it was not built: `make build` does.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let dir = this.ancestors().skip(1).find(|d| d.join(name).is_file());
    dir.map(|d| d.join(name)).with_context(|| format!("{name} is not built: run `make build`"))
}

/// Python with the packages of `tests/plc/requirements.txt`.
///
/// # Errors
/// If it is not there: `make deps` installs it.
pub fn python() -> anyhow::Result<PathBuf> {
    installed("target/venv/bin/python")
}

/// The real grpcurl.
///
/// # Errors
/// If it is not there: `make deps` installs it.
pub fn grpcurl() -> anyhow::Result<PathBuf> {
    installed("target/venv/bin/grpcurl")
}

fn installed(path: &str) -> anyhow::Result<PathBuf> {
    let path = root().join(path);
    anyhow::ensure!(path.exists(), "{} is missing: run `make deps`", path.display());
    Ok(path)
}
