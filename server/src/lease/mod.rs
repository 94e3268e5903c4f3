//! Leases: the expiring keys that say "this agent is alive", behind
//! [`crate::domain::ports::Leases`]. In process, or in Redis for many replicas; one conformance
//! suite (`tests/lease_conformance.rs`) holds for both.

mod memory;
mod redis;

use pasamanos_faults::planted;

pub use memory::MemoryLeases;
pub use redis::RedisLeases;

use crate::domain::ports::{Holder, Renewal};

/// What an acquisition does to the lease that is there.
fn may_acquire(there: Option<&Holder>, new: &Holder) -> Renewal {
    match there {
        Some(h) if h.epoch > new.epoch => Renewal::Fenced,
        Some(h) if h.epoch == new.epoch && h.session != new.session => Renewal::Fenced,
        _ => Renewal::Held,
    }
}

/// What a renewal does to the lease that is there. One of a lower epoch is not the renewer's: its
/// own is lost, and it may acquire.
fn may_renew(there: Option<&Holder>, own: &Holder) -> Renewal {
    match there {
        _ if planted!("server-lease-renewed-unseen") => Renewal::Held,
        Some(h) if h.epoch == own.epoch && h.session == own.session => Renewal::Held,
        Some(h) if h.epoch >= own.epoch => Renewal::Fenced,
        _ => Renewal::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(epoch: i64, session: &str) -> Holder {
        Holder { epoch, session: session.into(), replica: "r".into(), counter: 1 }
    }

    #[test]
    fn a_higher_epoch_takes_over_and_a_lower_one_is_fenced() {
        let (old, new) = (holder(7, "a"), holder(8, "b"));
        assert_eq!(may_acquire(Some(&old), &new), Renewal::Held);
        assert_eq!(may_acquire(Some(&new), &old), Renewal::Fenced);
        assert_eq!(may_renew(Some(&new), &old), Renewal::Fenced);
        assert_eq!(may_renew(Some(&old), &new), Renewal::Lost);
    }

    #[test]
    fn one_epoch_has_one_session() {
        let (mine, other) = (holder(7, "a"), holder(7, "b"));
        assert_eq!(may_acquire(Some(&mine), &mine), Renewal::Held);
        assert_eq!(may_acquire(Some(&other), &mine), Renewal::Fenced);
        assert_eq!(may_renew(Some(&other), &mine), Renewal::Fenced);
        assert_eq!(may_renew(Some(&mine), &mine), Renewal::Held);
        assert_eq!(may_renew(None, &mine), Renewal::Lost);
    }
}
