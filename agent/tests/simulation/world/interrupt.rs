//! Processes that end, files that are put back, and machines that run twice.

use std::time::Duration;

use pasamanos_proto::model::AgentName;
use tokio::time::sleep;

use super::super::callers::Ask;
use super::super::farm::Machine;
use super::ask::insist;
use super::{Special, World, farm};

impl World {
    /// Processes, files and machines end at any time.
    pub(super) async fn interrupt(&mut self) {
        match self.random.u8(0..20) {
            0 | 1 => self.interrupt_agent().await,
            2 | 3 => self.interrupt_server().await,
            4 => {
                self.interrupt_agent().await;
                self.interrupt_server().await;
            }
            5..11 if self.special != Special::None => self.interrupt_specially().await,
            _ => {}
        }
    }

    async fn interrupt_agent(&mut self) {
        let i = self.random.usize(0..self.machines.len());
        match self.random.u8(0..5) {
            0 => {
                self.book.met("fault: the agent was stopped");
                self.machines[i].stop().await;
            }
            1 => {
                self.book.met("fault: the agent's machine was reset");
                self.machines[i].kill().await;
                self.machines[i].reboot();
            }
            _ => {
                self.book.met("fault: the agent was killed");
                self.machines[i].kill().await;
            }
        }
        if self.machines.len() == 1 {
            self.plc.plc().unplug();
        }
        if self.special == Special::OldJournal || self.special == Special::Clone {
            self.copy.get_or_insert_with(|| self.machines[i].copy());
        }
        if self.one_in(3) {
            self.live(1..40_000).await;
        }
        self.machines[i].start().await;
    }

    async fn interrupt_server(&mut self) {
        if self.one_in(3) {
            self.book.met("fault: the server was stopped");
            self.server.stop().await;
        } else {
            self.book.met("fault: the server was killed");
            self.server.kill().await;
        }
        if self.special == Special::OldDatabase {
            if self.random.bool() && self.server.put_back() {
                self.book.met("fault: an old database");
                self.excuse = Some("an old database was put back");
            } else {
                self.server.back_up();
            }
        }
        if self.one_in(3) {
            self.live(1..40_000).await;
        }
        self.server.start().await;
    }

    async fn interrupt_specially(&mut self) {
        match self.special {
            Special::OldDatabase => return self.interrupt_server().await,
            Special::OldBoth => return self.interrupt_both().await,
            Special::OldJournal => {}
            Special::Clone if self.machines.len() == 1 => {}
            Special::Clone => return self.unclone().await,
            _ => return,
        }
        let Some(copy) = self.copy.take_if(|c| c.is_old(&self.net)) else {
            return self.interrupt_agent().await;
        };
        if self.special == Special::OldJournal {
            self.book.met("fault: an old journal");
            self.excuse = Some("an old journal was put back");
            self.machines[0].kill().await;
            // A dose of its last session can start for so long: put back before, it may say of one
            // that runs that it never did.
            sleep(Duration::from_secs(30)).await;
            self.plc.plc().unplug();
            self.machines[0].put_back(&copy);
            self.machines[0].start().await;
        } else {
            self.book.met("fault: a cloned journal");
            self.excuse = Some("a cloned journal ran");
            let agent = AgentName::new(farm(), "agent-1".parse().unwrap());
            let (plc, net, book) = (self.plc.clone(), self.net.clone(), self.book.clone());
            let clone = Machine::new(self.built, agent, plc, net, book);
            self.built += 1;
            self.machines.push(clone.with(&copy));
            self.machines[1].start().await;
        }
    }

    /// Both ends stop and are copied together, or go back to the last such copy together.
    async fn interrupt_both(&mut self) {
        self.machines[0].kill().await;
        self.server.kill().await;
        self.plc.plc().unplug();
        let mut again = Vec::new();
        match self.copy.take_if(|c| c.is_old(&self.net)) {
            Some(copy) => {
                // As for a journal alone: a dose of its last session can start for so long.
                sleep(Duration::from_secs(30)).await;
                self.plc.plc().unplug();
                if self.server.put_back() {
                    self.book.met("fault: an old database and an old journal");
                    self.excuse = Some("an old database and an old journal were put back");
                    self.machines[0].put_back(&copy);
                    again.clone_from(&self.wishes);
                    again.retain(|wish| matches!(wish.what, Ask::Feed(_)));
                    self.random.shuffle(&mut again);
                }
            }
            None if self.copy.is_none() => {
                self.copy = Some(self.machines[0].copy());
                self.server.back_up();
            }
            None => {}
        }
        self.server.start().await;
        self.machines[0].start().await;
        self.calls.spawn(insist(again, self.net.clone(), self.book.clone()));
    }

    /// One of the two is found out, and switched off.
    pub(super) async fn unclone(&mut self) {
        if self.machines.len() < 2 {
            return;
        }
        let i = self.random.usize(0..2);
        let mut gone = self.machines.swap_remove(i);
        gone.kill().await;
        self.copy = None;
    }
}
