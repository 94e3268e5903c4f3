//! What is read by page, newest first.

use pasamanos_proto::model::{FarmId, FeederId, FeederName, PageRequest};
use pasamanos_proto::pb;
use sqlx::Row as _;

use super::driver::{Conn, Row};
use super::rows::{self, command_columns};
use crate::domain::ports::{Page, StoreError, StoredCommand, StoredVersion};

/// The rows of one page and one more, which tells that there is a next.
fn limit(page: &PageRequest) -> i64 {
    i64::from(page.size) + 1
}

/// Cuts the extra row off; the key of the last one shown is where the next page begins.
fn cut<T>(mut items: Vec<T>, page: &PageRequest, key: impl Fn(&T) -> String) -> Page<T> {
    let size = usize::try_from(page.size).unwrap_or(usize::MAX);
    let more = items.len() > size;
    items.truncate(size);
    let next = if more { items.last().map(key) } else { None };
    Page { items, next }
}

/// The key of a page by number; from the newest if it is not one.
fn below(page: &PageRequest) -> i64 {
    page.after.parse().unwrap_or(i64::MAX)
}

/// Commands of a farm or of one feeder, newest first.
pub async fn commands(
    conn: &mut Conn,
    farm: &FarmId,
    feeder: Option<&FeederId>,
    page: &PageRequest,
) -> Result<Page<StoredCommand>, StoreError> {
    let rows = match feeder {
        None => {
            sqlx::query(concat!(
                "SELECT ",
                command_columns!(),
                " FROM commands c WHERE farm = $1 AND ord < $2 ORDER BY ord DESC LIMIT $3"
            ))
            .bind(farm.to_string())
            .bind(below(page))
            .bind(limit(page))
            .fetch_all(conn)
            .await?
        }
        Some(feeder) => {
            sqlx::query(concat!(
                "SELECT ",
                command_columns!(),
                " FROM commands c
                  WHERE farm = $1 AND feeder = $2 AND number < $3 ORDER BY number DESC LIMIT $4"
            ))
            .bind(farm.to_string())
            .bind(feeder.to_string())
            .bind(below(page))
            .bind(limit(page))
            .fetch_all(conn)
            .await?
        }
    };
    let items = rows.iter().map(rows::command).collect::<Result<_, _>>()?;
    Ok(cut(items, page, |c: &StoredCommand| {
        if feeder.is_some() { c.number } else { c.order }.to_string()
    }))
}

/// Config versions of a feeder, newest first.
pub async fn versions(
    conn: &mut Conn,
    feeder: &FeederName,
    page: &PageRequest,
) -> Result<Page<StoredVersion>, StoreError> {
    let rows = sqlx::query(
        "SELECT number AS version, etag, author AS version_author, command AS version_command,
                config, created_ms AS version_ms, restored, displaced, displaced_command
         FROM config_versions
         WHERE farm = $1 AND feeder = $2 AND number < $3 ORDER BY number DESC LIMIT $4",
    )
    .bind(feeder.farm.to_string())
    .bind(feeder.feeder.to_string())
    .bind(below(page))
    .bind(limit(page))
    .fetch_all(conn)
    .await?;
    let items = rows.iter().map(rows::version).collect::<Result<_, _>>()?;
    Ok(cut(items, page, |v| v.number.to_string()))
}

/// A dose and where it stands in the order of pages.
struct Placed(String, pb::Dose);

impl Placed {
    fn of(row: &Row) -> Result<Self, StoreError> {
        let (at, dose): (i64, &str) = (row.try_get("at_ms")?, row.try_get("dose")?);
        Ok(Self(format!("{at}/{dose}"), rows::dose(row)?))
    }
}

/// Doses of a farm or of one feeder, newest first by the time of the dose. One that arrives late
/// takes its place; it moves no other.
pub async fn doses(
    conn: &mut Conn,
    farm: &FarmId,
    feeder: Option<&FeederId>,
    page: &PageRequest,
) -> Result<Page<pb::Dose>, StoreError> {
    let key = page.after.split_once('/');
    let (at, dose) = key
        .and_then(|(at, dose)| Some((at.parse().ok()?, dose.to_owned())))
        .unwrap_or((i64::MAX, String::new()));
    let rows = match feeder {
        None => {
            sqlx::query(
                "SELECT at_ms, dose, body FROM doses
                 WHERE farm = $1 AND (at_ms, dose) < ($2, $3)
                 ORDER BY at_ms DESC, dose DESC LIMIT $4",
            )
            .bind(farm.to_string())
            .bind(at)
            .bind(dose)
            .bind(limit(page))
            .fetch_all(conn)
            .await?
        }
        Some(feeder) => {
            sqlx::query(
                "SELECT at_ms, dose, body FROM doses
                 WHERE farm = $1 AND feeder = $2 AND (at_ms, dose) < ($3, $4)
                 ORDER BY at_ms DESC, dose DESC LIMIT $5",
            )
            .bind(farm.to_string())
            .bind(feeder.to_string())
            .bind(at)
            .bind(dose)
            .bind(limit(page))
            .fetch_all(conn)
            .await?
        }
    };
    let items = rows.iter().map(Placed::of).collect::<Result<_, _>>()?;
    let page = cut(items, page, |Placed(key, _)| key.clone());
    Ok(Page {
        items: page.items.into_iter().map(|Placed(_, dose)| dose).collect(),
        next: page.next,
    })
}
