//! Which names the journal surely does not hold, without asking the database: a new command is the
//! common case, and each question is a trip to another thread.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use pasamanos_proto::model::CommandName;

/// A power of two: 64 KiB. With 50,000 commands in the journal one new name in seventy is looked up
/// in vain; with more, more are.
const BITS: u64 = 1 << 19;
/// Bits a name sets.
const PLACES: u32 = 3;

/// A Bloom filter over all names in the journal. Names are only added.
#[derive(Debug)]
pub(super) struct Known(Vec<u64>);

impl Default for Known {
    fn default() -> Self {
        Self(vec![0; usize::try_from(BITS / 64).unwrap_or(0)])
    }
}

impl Known {
    /// The journal holds it, or is about to.
    pub(super) fn add(&mut self, name: &str) {
        for (word, bit) in places(name) {
            if let Some(word) = self.0.get_mut(word) {
                *word |= bit;
            }
        }
    }

    /// Whether the journal may hold it; if not, it surely does not.
    pub(super) fn may_hold(&self, name: &CommandName) -> bool {
        places(&name.to_string()).all(|(word, bit)| self.0.get(word).is_none_or(|w| w & bit != 0))
    }
}

/// Word and bit of each place.
fn places(name: &str) -> impl Iterator<Item = (usize, u64)> {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let hash = hasher.finish();
    (0..PLACES).map(move |i| {
        let place = (hash >> (i * BITS.trailing_zeros())) % BITS;
        (usize::try_from(place / 64).unwrap_or(0), 1 << (place % 64))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use pasamanos_proto::model::RequestId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn forgets_none_and_takes_few_others_for_known() {
        let name = |i: u128| {
            CommandName::new("farm-1".parse().unwrap(), RequestId::from(Uuid::from_u128(i)))
        };
        let mut known = Known::default();
        for i in 0..20_000 {
            known.add(&name(i).to_string());
        }
        assert!((0..20_000).all(|i| known.may_hold(&name(i))));
        let vain = (20_000..40_000).filter(|i| known.may_hold(&name(*i))).count();
        assert!(vain < 400, "{vain} of 20,000");
    }
}
