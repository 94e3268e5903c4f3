//! Statements that go to the database's thread together: each trip there and back costs more than what
//! most statements do.

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments as _, AssertSqlSafe, Encode, Sqlite, Type};

use super::JournalError;

/// Statements in order, with their arguments. The first that fails ends it.
///
/// A text is prepared once and kept, so it must be one of few: lists go in as one JSON argument.
#[derive(Debug, Default)]
pub(super) struct Script {
    text: String,
    arguments: SqliteArguments,
    error: Option<JournalError>,
}

impl Script {
    /// Adds a statement. Its arguments follow, in order; its placeholders are bare `?`, which count
    /// on over the whole script.
    pub(super) fn add(&mut self, statement: &str) -> &mut Self {
        self.text.push_str(statement);
        self.text.push(';');
        self
    }

    /// The next argument.
    pub(super) fn bind<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        if let Err(e) = self.arguments.add(value) {
            self.fail(e.to_string());
        }
        self
    }

    /// It will not run.
    pub(super) fn fail(&mut self, why: String) {
        self.error.get_or_insert(JournalError::Content(why));
    }

    /// Runs it.
    pub(super) async fn run(self, conn: &mut SqliteConnection) -> Result<(), JournalError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let query = sqlx::query_with(AssertSqlSafe(self.text), self.arguments);
        query.execute(conn).await?;
        Ok(())
    }
}
