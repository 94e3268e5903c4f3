//! How a run ends: everything is made well, what is to come comes, and the judge looks at all of it.

use std::time::Duration;

use pasamanos_proto::model::{CommandName, ObservedConfig, PageRequest, Reason, RequestId};
use pasamanos_proto::pb::ConfigAuthor;
use pasamanos_tests::check::{self, Author, Config, Dose, Feed, Version};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::super::callers::{Ask, Came, Patience, Wish};
use super::{Judged, PATIENCE, Special, World, farm, feeder};
use crate::testing::{FEEDER, Fate, OTHER, Ran};

/// Longer than any write is late and any limit runs, so that what is to come has come.
const SETTLE: Duration = Duration::from_secs(100);

fn portion(config: &ObservedConfig) -> i64 {
    config.valid().and_then(|c| c.portion_mg).expect("a portion").into()
}

impl World {
    /// Everything is well again, and what is to come has come.
    pub(super) async fn heal(&mut self) {
        self.unclone().await;
        self.net.heal();
        {
            let mut plc = self.plc.plc();
            plc.readable = true;
            plc.read_takes = Default::default();
            plc.alive = true;
            plc.revert_after = None;
            plc.fates = [Fate::Answered].into();
            for id in [FEEDER, OTHER] {
                plc.feeder(id).held = false;
            }
        }
        let settled = Instant::now() + SETTLE;
        let all = async { while self.calls.join_next().await.is_some() {} };
        if timeout(PATIENCE, all).await.is_err() {
            self.book.wrong("a caller got no answer".into());
        }
        self.online().await;
        for id in [FEEDER, OTHER] {
            self.numbers += 1;
            let request = RequestId::from(Uuid::from_u128(self.numbers));
            let wish = Wish { feeder: feeder(id), request, what: Ask::Resume };
            let patience = Patience {
                wait: Duration::from_secs(30),
                leaves: Duration::from_secs(60),
                validate_only: false,
            };
            let mut came = Came::Unknown;
            for _ in 0..20 {
                came = wish.ask(self.net.server(), &patience, &self.book).await;
                let why_not = match came {
                    Came::Refused { again, why } => again || why == Reason::AgentOffline,
                    came => came == Came::Unknown,
                };
                if !why_not {
                    break;
                }
                sleep(Duration::from_secs(3)).await;
            }
            if came != Came::Answered && self.excuse.is_none() {
                self.book.wrong(format!("after all healed, a resume of {id} came to {came:?}"));
            }
        }
        tokio::time::sleep_until(settled).await;
        let until = Instant::now() + 2 * SETTLE;
        while !self.quiet() && self.excuse.is_none() && Instant::now() < until {
            sleep(Duration::from_secs(5)).await;
        }
    }

    /// Nothing is in doubt any more.
    fn quiet(&self) -> bool {
        self.book.open_ends() == 0
    }

    pub(super) async fn judge(&mut self) -> Judged {
        // The store is asked directly, and its disk is a real one.
        let _still = self.machines[0].clock().still();
        let store = self.server.store();
        let forgot = matches!(self.special, Special::OldDatabase | Special::OldBoth);
        let mut known = std::collections::BTreeSet::new();
        for name in self.book.names() {
            if let Some(command) = store.command(&name).await.unwrap() {
                self.book.stored(&command);
                if !command.state.is_terminal() {
                    self.book.wrong(format!("{name}: it has no end, whatever happened"));
                }
                known.insert(name);
            } else if self.book.accepted_ever(&name) && !forgot {
                self.book.wrong(format!("{name}: it was accepted and is not known any more"));
            }
        }
        let (mut feeds, mut records, mut configs) = (Vec::new(), Vec::new(), Vec::new());
        for id in [FEEDER, OTHER] {
            let history_mg = self.history(id, &mut records).await;
            let plc_mg = i64::try_from(self.plc.plc().feeder(id).total_mg).unwrap();
            let excuse = self.excuse.or(self.book.persons_word());
            feeds.push(Feed { feeder: id.into(), plc_mg, history_mg, excuse });
            configs.push(self.config(id).await);
        }
        let (commands, refusals, acceptances, wrong, met) =
            self.book.close(&|name: &CommandName| known.contains(name), self.excuse);
        let plc = self.plc.plc();
        let dose = |r: &Ran| Dose {
            token: r.token,
            mg: r.mg.into(),
            started_ms: Some(self.book.ms(r.at)),
        };
        let run = check::Run {
            commands,
            refusals,
            acceptances,
            doses: plc.ran.iter().map(dose).collect(),
            values: plc.portions_set.iter().map(|v| (*v).into()).collect(),
            farm_values: self.farm_portions.iter().map(|v| (*v).into()).collect(),
            lost_values: self.lost_portions.iter().map(|v| (*v).into()).collect(),
            configs,
            feeds,
            records,
            lives: if forgot { self.book.lives() } else { Vec::new() },
            // It counts seconds.
            expiry_ms: 1_000,
        };
        let wrong = wrong.into_iter().chain(check::check(&run)).collect();
        Judged { wrong, met }
    }

    /// A feeder's config: what its PLC runs, and the server's history of it.
    async fn config(&self, id: &str) -> Config {
        let (store, feeder) = (self.server.store(), feeder(id));
        let (mut versions, mut after) = (Vec::new(), String::new());
        loop {
            let page = store.versions(&feeder, &PageRequest { size: 500, after }).await.unwrap();
            for v in page.items {
                let author = match v.author {
                    ConfigAuthor::Command => Author::Command(
                        CommandName::new(farm(), v.command.expect("its command")).to_string(),
                    ),
                    ConfigAuthor::PlcMemoryLost => Author::Nobody,
                    _ => Author::Farm,
                };
                self.book.met(format!("a version of {}", v.author.as_str_name()));
                versions.push(Version { number: v.number, value: portion(&v.config), author });
            }
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        versions.reverse();
        let runs = portion(&self.plc.plc().feeder(id).config);
        Config { feeder: id.into(), runs: Some(runs), versions, excuse: self.excuse }
    }

    /// What the server's history has of a feeder, mg.
    async fn history(&self, id: &str, records: &mut Vec<String>) -> i64 {
        let (store, id) = (self.server.store(), id.parse().unwrap());
        let (mut sum, mut after) = (0, String::new());
        loop {
            let page = PageRequest { size: 500, after };
            let page = store.doses(&farm(), Some(&id), &page).await.unwrap();
            for dose in page.items {
                sum += dose.dispensed_mg.unwrap_or(0);
                records.push(dose.name);
            }
            match page.next {
                Some(next) => after = next,
                None => return sum,
            }
        }
    }
}
