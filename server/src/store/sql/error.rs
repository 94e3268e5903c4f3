//! Which failures of the database are worth trying again: decided here and nowhere else.

use sqlx::error::DatabaseError;

use crate::domain::ports::{AcceptError, IngestError, OpenError, StoreError};

impl From<sqlx::Error> for StoreError {
    fn from(e: sqlx::Error) -> Self {
        use sqlx::Error as E;
        let unavailable = match &e {
            E::Database(d) => refused_for_now(d.as_ref()),
            E::Io(_)
            | E::Tls(_)
            | E::PoolTimedOut
            | E::PoolClosed
            | E::WorkerCrashed
            | E::Protocol(_)
            | E::BeginFailed => true,
            _ => false,
        };
        if unavailable { Self::Unavailable(e.into()) } else { Self::Broken(e.into()) }
    }
}

/// Whether the database said "not now" rather than "never".
fn refused_for_now(e: &dyn DatabaseError) -> bool {
    let code = e.code().unwrap_or_default();
    match code.parse::<i32>() {
        // The low byte is SQLite's primary code: BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR,
        // FULL, CANTOPEN, PROTOCOL. CORRUPT and NOTADB are not ours to hide as an outage.
        Ok(sqlite) if code.len() < 5 => {
            matches!(sqlite & 0xff, 5 | 6 | 7 | 8 | 9 | 10 | 13 | 14 | 15)
        }
        // A SQLSTATE class: connection, resources, operator, system; read-only; serialization.
        _ => matches!(code.get(..2), Some("08" | "53" | "57" | "58" | "25" | "40")),
    }
}

/// An error that may be the database's.
pub trait Cause {
    /// The database's part in it; `None` for a refusal.
    fn store(&self) -> Option<&StoreError>;
}

impl Cause for StoreError {
    fn store(&self) -> Option<&StoreError> {
        // There is no such row: that is an answer.
        (!matches!(self, Self::NotFound)).then_some(self)
    }
}

macro_rules! cause {
    ($($error:ident),+) => {$(
        impl Cause for $error {
            fn store(&self) -> Option<&StoreError> {
                match self {
                    Self::Store(e) => e.store(),
                    _ => None,
                }
            }
        }

        impl From<sqlx::Error> for $error {
            fn from(e: sqlx::Error) -> Self {
                Self::Store(e.into())
            }
        }
    )+};
}
cause!(AcceptError, IngestError, OpenError);
