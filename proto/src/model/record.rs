//! Dose and alarm records: gap-free, hashed when journaled, stored exactly once.

use prost::Message as _;

use super::{BodyHash, Invalid};
use crate::pb;

/// The most records in a batch.
pub const MAX_RECORDS: usize = 500;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRecord {
    /// From 1 within the incarnation.
    pub sequence: i64,
    /// Of the content.
    pub hash: BodyHash,
    /// What happened.
    pub content: pb::record::Content,
}

impl StoredRecord {
    /// Numbers and hashes new content.
    #[must_use]
    pub fn new(sequence: i64, content: pb::record::Content) -> Self {
        let hash = content_hash(&content);
        Self { sequence, hash, content }
    }
}

fn content_hash(content: &pb::record::Content) -> BodyHash {
    let bare = pb::Record { content: Some(content.clone()), ..Default::default() };
    BodyHash::of(&bare.encode_to_vec())
}

/// Consecutive records of one incarnation.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordBatch {
    /// The journal's.
    pub incarnation: String,
    /// In order, at least one, without gaps.
    pub records: Vec<StoredRecord>,
}

impl TryFrom<pb::Records> for RecordBatch {
    type Error = Invalid;

    fn try_from(m: pb::Records) -> Result<Self, Invalid> {
        if m.incarnation.is_empty() || m.incarnation.len() > 64 {
            return Err(Invalid::field("incarnation", "is required"));
        }
        if m.records.is_empty() || m.records.len() > MAX_RECORDS {
            return Err(Invalid::field("records", format!("must be 1 to {MAX_RECORDS}")));
        }
        let mut records = Vec::with_capacity(m.records.len());
        for r in m.records {
            let content = r.content.ok_or_else(|| Invalid::field("content", "is required"))?;
            let hash = BodyHash::try_from(&r.hash[..])?;
            if hash != content_hash(&content) {
                return Err(Invalid::field("hash", "is not that of the content"));
            }
            let last =
                records.last().map_or(r.sequence.saturating_sub(1), |p: &StoredRecord| p.sequence);
            if r.sequence < 1 || r.sequence.checked_sub(1) != Some(last) {
                return Err(Invalid::field("sequence", "must be gap-free and begin at 1"));
            }
            records.push(StoredRecord { sequence: r.sequence, hash, content });
        }
        Ok(Self { incarnation: m.incarnation, records })
    }
}

impl From<RecordBatch> for pb::Records {
    fn from(b: RecordBatch) -> Self {
        let records = b.records.into_iter().map(|r| pb::Record {
            sequence: r.sequence,
            hash: r.hash.as_bytes().to_vec().into(),
            content: Some(r.content),
        });
        Self { incarnation: b.incarnation, records: records.collect() }
    }
}
