//! The agent's journal, read from outside while the agent runs.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Row as _};

/// What it holds of one feeder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// Up to where the totaliser's growth is in records, mg.
    pub recorded_mg: i64,
    /// Recorded and not yet shown by the totaliser, mg.
    pub ahead_mg: i64,
    /// What was recorded on the last days, mg: all of it, if the journal is younger than three days.
    pub days_mg: i64,
}

/// Each feeder's book.
///
/// # Errors
/// If the journal cannot be read.
pub async fn books(agent_dir: &Path) -> anyhow::Result<BTreeMap<String, Book>> {
    let mut conn = open(agent_dir).await?;
    let mut books: BTreeMap<String, Book> = BTreeMap::new();
    for row in
        sqlx::query("SELECT feeder, total_mg, ahead_mg FROM feeders").fetch_all(&mut conn).await?
    {
        let book = books.entry(row.get("feeder")).or_default();
        book.recorded_mg = row.get::<Option<i64>, _>("total_mg").unwrap_or(0);
        book.ahead_mg = row.get("ahead_mg");
    }
    for row in sqlx::query("SELECT feeder, sum(mg) AS mg FROM days GROUP BY feeder")
        .fetch_all(&mut conn)
        .await?
    {
        books.entry(row.get("feeder")).or_default().days_mg = row.get("mg");
    }
    conn.close().await?;
    Ok(books)
}

/// How many records the server does not have for good yet, and the number of the last one made.
///
/// # Errors
/// If the journal cannot be read.
pub async fn backlog(agent_dir: &Path) -> anyhow::Result<(i64, i64)> {
    let mut conn = open(agent_dir).await?;
    let waiting = sqlx::query("SELECT count(*) AS n FROM records").fetch_one(&mut conn).await?;
    let last = sqlx::query("SELECT value FROM meta WHERE key = 'record_high_water'")
        .fetch_optional(&mut conn)
        .await?;
    conn.close().await?;
    let last = last.map(|row| row.get::<String, _>("value").parse()).transpose()?;
    Ok((waiting.get("n"), last.unwrap_or(0)))
}

async fn open(agent_dir: &Path) -> anyhow::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(agent_dir.join("journal.db"));
    Ok(SqliteConnection::connect_with(&options.read_only(true)).await?)
}
