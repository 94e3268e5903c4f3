//! Changes that the server tells by itself: an accelerator of the poll and nothing more. Subscriptions
//! die silently on every server tried, so a change that is told only says which robot to read; a
//! server that refuses, limits or forgets a subscription costs latency and nothing else.

use std::sync::Arc;
use std::time::Duration;

use opcua::client::{MonitoredItem, OnSubscriptionNotification};
use opcua::types::{
    DataValue, MonitoredItemCreateRequest, MonitoringMode, MonitoringParameters, ReadValueId,
    StatusCode, TimestampsToReturn,
};
use pasamanos_proto::model::RobotId;
use tokio::time::timeout;

use super::live::{Live, STEP};
use super::{value, words};
use crate::config::tags::Address;
use crate::config::{Plc, Tag, TagName};

/// The server says that it lives at least this often, even if nothing changed.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// How long a server keeps a subscription that nobody asks about.
const LIFETIME: Duration = Duration::from_mins(1);
/// So many keep-alives missed, and this long, is silence.
const MISSED: u32 = 3;
const SILENCE: Duration = Duration::from_secs(10);

/// What a person at the farm or the PLC's own program changes, and what a dose shows. Not what moves
/// all the time: `alive`, clocks, weights, readings.
const OF_ROBOT: [TagName; 6] = [
    TagName::Local,
    TagName::Fault,
    TagName::Status,
    TagName::DoseEcho,
    TagName::DoseDone,
    TagName::DoseState,
];
const OF_FEEDER: [TagName; 11] = [
    TagName::ConfigStatus,
    TagName::Hold,
    TagName::Dosing,
    TagName::Total,
    TagName::Mode,
    TagName::Portion,
    TagName::Interval,
    TagName::DailyCap,
    TagName::MinDissolvedOxygen,
    TagName::MinOxygenSaturation,
    TagName::MaxWaterTemperature,
];

/// A tag whose changes are asked for.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    tag: Tag,
    /// A status block: its heartbeat and clock move all the time and are no change.
    status: bool,
    /// Whose it is: a tag may be mapped by several.
    robots: Vec<RobotId>,
}

/// What to subscribe to.
pub(super) fn watched(plc: &Plc) -> Vec<Watched> {
    let mut all: Vec<Watched> = Vec::new();
    let mut add = |robot: &RobotId, name: TagName, tag: &Tag| match all
        .iter_mut()
        .find(|w| w.tag.address == tag.address)
    {
        Some(there) if there.robots.contains(robot) => {}
        Some(there) => there.robots.push(robot.clone()),
        None => {
            let (status, robots) = (name == TagName::Status, vec![robot.clone()]);
            all.push(Watched { tag: tag.clone(), status, robots });
        }
    };
    for robot in &plc.robots {
        for name in OF_ROBOT {
            robot.tags.get(&name).into_iter().for_each(|tag| add(&robot.id, name, tag));
        }
        for (feeder, name) in robot.feeders.iter().flat_map(|f| OF_FEEDER.map(|name| (f, name))) {
            feeder.tags.get(&name).into_iter().for_each(|tag| add(&robot.id, name, tag));
        }
    }
    all
}

/// A subscription that the server took, wholly or in part.
pub(super) struct Subscribed {
    id: u32,
    /// How many tags the server watches.
    pub taken: usize,
    /// Why it does not watch all, if so.
    pub refused: Option<StatusCode>,
    /// How often it publishes.
    pub every: Duration,
    /// Nothing published for so long: it is dead.
    silence: Duration,
}

impl Live {
    /// Subscribes to these tags; `tell` is called with the robots of each that changed.
    ///
    /// # Errors
    /// If the server gives no subscription, or watches none of the tags.
    pub(super) async fn subscribe(
        &self,
        watched: &Arc<[Watched]>,
        every: Duration,
        tell: impl Fn(&[RobotId]) + Send + Sync + 'static,
    ) -> Result<Subscribed, StatusCode> {
        let times = |span: Duration| {
            u32::try_from(span.as_millis() / every.as_millis().max(1)).unwrap_or(1).max(1)
        };
        let told = Told { watched: watched.clone(), seen: vec![None; watched.len()], tell };
        let (lifetime, keep_alive) = (times(LIFETIME), times(KEEP_ALIVE));
        let asked = self.session.create_subscription(every, lifetime, keep_alive, 0, 0, true, told);
        let id = timeout(STEP, asked)
            .await
            .map_err(|_| StatusCode::BadTimeout)?
            .map_err(|e| e.status())?;
        let (mut taken, mut refused) = (0, None);
        let indexed: Vec<_> = watched.iter().enumerate().collect();
        for some in indexed.chunks(self.nodes_at_once) {
            let items = some.iter().map(|(i, w)| self.item(*i, &w.tag.address, every)).collect();
            let asked = self.session.create_monitored_items(id, TimestampsToReturn::Neither, items);
            let answer = timeout(STEP, asked).await;
            match answer.map_err(|_| StatusCode::BadTimeout).and_then(|a| a.map_err(|e| e.status()))
            {
                Ok(results) => {
                    let codes = results.iter().map(|r| r.result.status_code);
                    taken += codes.clone().filter(StatusCode::is_good).count();
                    refused = refused.or(codes.clone().find(|code| !code.is_good()));
                }
                Err(code) => {
                    refused = Some(code);
                    break;
                }
            }
        }
        if let (0, Some(code)) = (taken, refused) {
            self.unsubscribe(id).await;
            return Err(code);
        }
        let revised = self.session.subscription_state().lock().get(id).map(|s| {
            (
                s.publishing_interval(),
                s.publishing_interval().saturating_mul(s.max_keep_alive_count()),
            )
        });
        let (every, alive) = revised.unwrap_or((every, KEEP_ALIVE));
        let silence = SILENCE.max(alive.saturating_mul(MISSED));
        Ok(Subscribed { id, taken, refused, every, silence })
    }

    fn item(&self, index: usize, address: &Address, every: Duration) -> MonitoredItemCreateRequest {
        let parameters = MonitoringParameters {
            client_handle: handle(index),
            sampling_interval: every.as_secs_f64() * 1_000.0,
            // What it was in between does not matter: the value is read.
            queue_size: 1,
            discard_oldest: true,
            ..MonitoringParameters::default()
        };
        let node = ReadValueId::new_value(self.node(address));
        MonitoredItemCreateRequest::new(node, MonitoringMode::Reporting, parameters)
    }

    /// Returns when the server published nothing for too long; keep-alives count as published.
    pub(super) async fn silence(&self, of: &Subscribed) {
        let mut published = self.published.clone();
        while let Ok(Ok(())) = timeout(of.silence, published.changed()).await {}
    }

    /// Gives a subscription up.
    pub(super) async fn end(&self, of: Subscribed) {
        self.unsubscribe(of.id).await;
    }

    async fn unsubscribe(&self, id: u32) {
        // Without an answer the server drops it at the end of its lifetime.
        let _ = timeout(STEP, self.session.delete_subscription(id)).await;
    }
}

/// The library takes 0 for "none given".
fn handle(index: usize) -> u32 {
    u32::try_from(index).map_or(u32::MAX, |index| index.saturating_add(1))
}

/// What was told, and to whom it goes.
struct Told<F> {
    watched: Arc<[Watched]>,
    /// Of status blocks, what they said last.
    seen: Vec<Option<Vec<u32>>>,
    tell: F,
}

impl<F: Fn(&[RobotId]) + Send + Sync> OnSubscriptionNotification for Told<F> {
    fn on_data_value(&mut self, value: DataValue, item: &MonitoredItem) {
        let Some(index) = item.client_handle().checked_sub(1).map(|i| i as usize) else { return };
        let (Some(of), Some(seen)) = (self.watched.get(index), self.seen.get_mut(index)) else {
            return;
        };
        if of.status {
            let said = value::words(&of.tag, &value).ok().map(words::without_life);
            if said.is_some() && said == *seen {
                return;
            }
            *seen = said;
        }
        (self.tell)(&of.robots);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_no_change_and_a_hold_is() {
        let block = |time, beat, flags| {
            let mut words = vec![7, 1, 1, 9, 2, 0, 200, 200, time, beat, flags, 5, 6, 7, 0];
            words.push(words::checksum(&words));
            words::without_life(words)
        };
        assert_eq!(block(1, 1, 1), block(2, 40, 1));
        assert_ne!(block(1, 1, 1), block(1, 1, 0x81));
    }
}
