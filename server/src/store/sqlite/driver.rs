//! The words of the SQL text that differ between databases.

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};

/// The database.
pub type Db = sqlx::Sqlite;
/// A connection to it.
pub type Conn = sqlx::SqliteConnection;
/// One of its rows.
pub type Row = SqliteRow;
/// A statement with its arguments.
pub type Statement = Query<'static, Db, SqliteArguments>;

/// Locks the rows that a `SELECT` reads until the transaction ends. `SQLite`'s one writer holds the
/// whole database.
macro_rules! for_update {
    () => {
        ""
    };
}
pub(super) use for_update;
