//! What people ask, and how long they go on.

use std::time::Duration;

use pasamanos_proto::model::RequestId;
use tokio::time::sleep;
use uuid::Uuid;

use super::super::book::Book;
use super::super::callers::{Ask, Came, Patience, Wish};
use super::super::net::Net;
use super::{Special, World, feeder};
use crate::testing::{FEEDER, OTHER};

impl World {
    /// People ask, some at once.
    pub(super) async fn ask(&mut self) {
        for _ in 0..self.random.usize(1..4) {
            let Some(wish) = self.wish().await else { continue };
            self.wishes.push(wish.clone());
            let (net, book, random) = (self.net.clone(), self.book.clone(), self.random.fork());
            self.calls.spawn(pursue(wish, net, book, random));
        }
    }

    async fn wish(&mut self) -> Option<Wish> {
        if !self.wishes.is_empty() && self.one_in(8) {
            // An old id: the same again, or by mistake for something else; but not where nobody will
            // remember what it was for.
            let old = self.random.usize(0..self.wishes.len());
            let mut wish = self.wishes[old].clone();
            if self.random.bool()
                && self.special != Special::OldBoth
                && matches!(wish.what, Ask::Feed(_))
            {
                wish.what = Ask::Feed(self.random.i32(1..40) * 50);
            }
            return Some(wish);
        }
        let feeder = feeder(if self.one_in(3) { OTHER } else { FEEDER });
        self.numbers += 1;
        let request = RequestId::from(Uuid::from_u128(self.numbers));
        let what = match self.random.u8(0..20) {
            0..10 => Ask::Feed(self.random.i32(1..40) * 50),
            10..14 => {
                let (control, power) = self.net.server()?;
                let seen = tokio::select! {
                    seen = control.feeder(&feeder) => seen.ok()?.etag,
                    () = power.cancelled() => return None,
                };
                self.etags.push(seen.clone());
                let stale = self.one_in(6).then(|| self.random.usize(0..self.etags.len()));
                let etag = stale.map_or(seen, |i| self.etags[i].clone());
                if etag.is_empty() {
                    return None;
                }
                Ask::Portion(self.next_portion(), etag)
            }
            14 | 15 => Ask::Hold,
            16 | 17 => Ask::Resume,
            18 => {
                if self.random.bool() {
                    Ask::HoldFarm
                } else {
                    Ask::Reset(7)
                }
            }
            _ => {
                let doubts = self.book.in_doubt();
                let i = (!doubts.is_empty()).then(|| self.random.usize(0..doubts.len()))?;
                Ask::Resolve(doubts[i].clone(), self.random.bool())
            }
        };
        Some(Wish { feeder, request, what })
    }
}

/// Asks for each again, one after the other, until it is answered: nobody remembers that it was done.
pub(super) async fn insist(wishes: Vec<Wish>, net: Net, book: Book) {
    let patience = Patience {
        wait: Duration::from_secs(14),
        leaves: Duration::from_secs(60),
        validate_only: false,
    };
    for wish in wishes {
        for _ in 0..8 {
            if wish.ask(net.server(), &patience, &book).await == Came::Answered {
                break;
            }
            sleep(Duration::from_secs(4)).await;
        }
    }
}

/// One person's call, with as many tries as they have patience for.
async fn pursue(wish: Wish, net: Net, book: Book, mut random: fastrand::Rng) {
    for _ in 0..4 {
        let quick = random.u8(0..5) == 0;
        let wait = if quick { random.u64(100..3_000) } else { 14_700 };
        let leaves = if random.u8(0..7) == 0 { random.u64(1..2_000) } else { 65_000 };
        let patience = Patience {
            wait: Duration::from_millis(wait),
            leaves: Duration::from_millis(leaves),
            validate_only: random.u8(0..25) == 0,
        };
        let again = match wish.ask(net.server(), &patience, &book).await {
            Came::Answered => random.u8(0..6) == 0,
            Came::Refused { again: false, .. } => random.u8(0..8) == 0,
            Came::Refused { again: true, .. } | Came::Unknown => random.u8(0..4) != 0,
        };
        if !again {
            return;
        }
        book.met("a call was repeated");
        let pause = if random.u8(0..6) == 0 { 40_000 } else { 3_000 };
        sleep(Duration::from_millis(random.u64(20..pause))).await;
    }
}
