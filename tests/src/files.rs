//! Copies of the programs' files, as an operator makes them and puts them back.

use std::path::{Path, PathBuf};

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

/// A copy of one database, with all that belongs to it.
#[derive(Debug)]
pub struct Copy {
    of: PathBuf,
    at: PathBuf,
}

const PARTS: [&str; 3] = ["", "-wal", "-shm"];

fn part(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Copy {
    /// Copies the files of a program that is not running.
    ///
    /// # Errors
    /// If they cannot be copied.
    pub fn of(path: PathBuf, name: &str) -> anyhow::Result<Self> {
        let at = path.with_extension(name);
        for suffix in PARTS.iter().filter(|s| part(&path, s).exists()) {
            std::fs::copy(part(&path, suffix), part(&at, suffix))?;
        }
        Ok(Self { of: path, at })
    }

    /// Copies a database beside the program that uses it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn beside(path: PathBuf, name: &str) -> anyhow::Result<Self> {
        let at = path.with_extension(name);
        let options = SqliteConnectOptions::new().filename(&path);
        let mut conn = SqliteConnection::connect_with(&options).await?;
        sqlx::query("VACUUM INTO ?").bind(at.to_string_lossy()).execute(&mut conn).await?;
        conn.close().await?;
        Ok(Self { of: path, at })
    }

    /// Puts it back in the place of what is there, while the program is not running.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn put_back(&self) -> anyhow::Result<()> {
        for suffix in PARTS {
            let (from, to) = (part(&self.at, suffix), part(&self.of, suffix));
            if to.exists() {
                std::fs::remove_file(&to)?;
            }
            if from.exists() {
                std::fs::copy(from, to)?;
            }
        }
        Ok(())
    }
}

/// Copies a whole directory: a disk.
///
/// # Errors
/// If it cannot be copied.
pub fn copy_disk(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy_disk(&path, &to.join(name))?;
        } else {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
