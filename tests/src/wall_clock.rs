//! A wall clock of a program's own, that a test moves while the program runs (`tests/clock/shim.c`).

use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::paths;
use crate::stack::{Part, StackBuilder};

/// The wall clock of one program.
#[derive(Debug)]
pub struct WallClock {
    shim: PathBuf,
    offset: PathBuf,
}

impl WallClock {
    /// A clock that shows the machine's time, for now. `dir` outlives the program.
    ///
    /// # Errors
    /// If there is no C compiler, or the files cannot be made.
    pub async fn new(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let clock = Self {
            shim: dir.join(format!("{name}-clock.so")),
            offset: dir.join(format!("{name}-clock.offset")),
        };
        std::fs::write(&clock.offset, 0_i64.to_le_bytes())?;
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&clock.shim)
            .arg(paths::root().join("tests/clock/shim.c"))
            .output()
            .await?;
        let said = String::from_utf8_lossy(&compiled.stderr);
        anyhow::ensure!(compiled.status.success(), "{said}");
        Ok(clock)
    }

    /// The program runs by this clock.
    #[must_use]
    pub fn of(&self, part: Part, stack: StackBuilder) -> StackBuilder {
        self.env().into_iter().fold(stack, |stack, (key, value)| stack.env(part, key, value))
    }

    /// The environment of a program that runs by this clock.
    pub fn env(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", &self.shim), ("CLOCK_OFFSET_FILE", &self.offset)]
    }

    /// Moves it, s from the machine's time. Written in place: the program has the file mapped.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set(&self, seconds: i64) -> anyhow::Result<()> {
        let mut file = std::fs::File::options().write(true).open(&self.offset)?;
        file.rewind()?;
        file.write_all(&seconds.to_le_bytes())?;
        Ok(())
    }
}
