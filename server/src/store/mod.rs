//! What must last, behind [`crate::domain::ports::Store`].
//!
//! `sql/` is one SQL text for both databases: `$1` placeholders, `ON CONFLICT`, no dialect but what
//! `driver` names (connection, row, `FOR UPDATE`). `sqlite/` compiles it against `SQLite` by
//! `#[path]`. A Postgres twin is a directory beside it: the same `#[path]` lines under another
//! `driver`, a pool in place of the writer (each write is its own transaction there, in a spawned
//! task, serialised per farm by the lock on `farm_heads`), and the same suite in
//! `tests/store_contract.rs`. Not `sqlx::Any`: it reads wrong values.

pub mod sqlite;

pub use sqlite::{AuditFault, AuditReport, Chain, Options, SqliteStore, parse_head, verify_export};
