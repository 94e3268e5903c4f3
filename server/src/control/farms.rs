//! What is live: per farm one state behind one lock, each resource stamped with the sequence of its
//! last change. A watcher keeps one number and asks what came after it, so a slow one is conflated
//! and costs no queue.

mod live;
mod state;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pasamanos_proto::model::{AgentId, CommandName, FarmId, FeederId};
use tokio::sync::watch;

pub(super) use self::live::STALE_MS;
pub(super) use self::state::{AgentView, FeederView, RobotView, State, TankView};
use super::outcomes::Progress;
use crate::domain::ports::{Clock, Store, StoredCommand, StoredFarm};
use crate::domain::{Error, ports::StoreError};

/// One farm.
pub struct Farm {
    /// Its id.
    pub id: FarmId,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    /// One reading of the stored side at a time: an older one must not be taken over after a newer one.
    reading: tokio::sync::Mutex<()>,
}

/// All farms that were asked for, loaded from the store on first use.
pub struct Farms {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    map: Mutex<HashMap<FarmId, Arc<Farm>>>,
}

impl Farms {
    pub(super) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, map: Mutex::default() }
    }

    /// The farm, from memory or the store.
    ///
    /// # Errors
    /// `NOT_FOUND`, or that the store cannot be asked.
    pub async fn get(&self, id: &FarmId) -> Result<Arc<Farm>, Error> {
        if let Some(farm) = self.loaded(id) {
            return Ok(farm);
        }
        let stored = self.store.farm(id).await.map_err(store_error)?;
        let stored = stored.ok_or_else(|| Error::not_found(id.name()))?;
        let farm = Arc::new(Farm::new(stored, self.clock.clone()));
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(map.entry(id.clone()).or_insert(farm).clone())
    }

    /// The farm if it is in memory.
    pub fn loaded(&self, id: &FarmId) -> Option<Arc<Farm>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Every farm in memory.
    pub fn all(&self) -> Vec<Arc<Farm>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Reads a farm's stored side anew: after a session brought its inventory, at its end, and where the
    /// store is seen to be ahead.
    pub(super) async fn reload(&self, id: &FarmId) -> Result<Arc<Farm>, Error> {
        let farm = self.get(id).await?;
        let one = farm.reading.lock().await;
        let stored = self.store.farm(id).await.map_err(store_error)?;
        let stored = stored.ok_or_else(|| Error::not_found(id.name()))?;
        let here: Vec<_> = stored.unsettled.iter().map(|c| c.name.request).collect();
        farm.update(|s, now| s.load(stored, now));
        // What is live as unsettled and was settled in the store meanwhile is read anew.
        let live = farm.unsettled(|_| true);
        for name in live.into_iter().filter(|n| !here.contains(&n.request)) {
            if let Some(command) = self.store.command(&name).await.map_err(store_error)? {
                farm.update(|s, _| s.put_command(Progress::stored(command)));
            }
        }
        drop(one);
        Ok(farm)
    }

    /// The store has a commit a moment before its session has shown it. Whoever is told of these ends must
    /// find here what came with them, such as the new config.
    ///
    /// # Errors
    /// That the store cannot be asked.
    pub(super) async fn catch_up(&self, farm: &Farm, told: &[StoredCommand]) -> Result<(), Error> {
        let ended = told.iter().filter(|c| c.state.is_terminal());
        let ahead: Vec<_> = farm.read(|s, _| {
            let here = |c: &StoredCommand| s.commands.get(&c.name.request).map(|c| c.value.state);
            ended.filter(|c| here(c).is_some_and(|here| here != c.state)).cloned().collect()
        });
        if ahead.is_empty() {
            return Ok(());
        }
        self.reload(&farm.id).await?;
        // A doubt that a person settled is not looked for by a reading anew.
        farm.update(|s, _| ahead.into_iter().for_each(|c| s.put_command(Progress::stored(c))));
        Ok(())
    }
}

/// What a failed read or write means for a caller.
pub(super) fn store_error(e: StoreError) -> Error {
    match e {
        StoreError::Unavailable(cause) => Error::unavailable(
            pasamanos_proto::model::Reason::DatabaseUnreachable,
            "the database cannot be asked now: try again with the same request_id",
        )
        .retry_after(std::time::Duration::from_secs(1))
        .caused_by(cause),
        StoreError::NotFound => Error::not_found("such resource"),
        StoreError::Broken(cause) => Error::internal(cause),
    }
}

/// The two clocks at one instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub wall_ms: i64,
    pub ms: i64,
}

impl Farm {
    fn new(stored: StoredFarm, clock: Arc<dyn Clock>) -> Self {
        let id = stored.farm.id.clone();
        let mut state = State {
            info: stored.farm.clone(),
            sequence: 1,
            agents: BTreeMap::new(),
            robots: BTreeMap::new(),
            tanks: BTreeMap::new(),
            feeders: BTreeMap::new(),
            commands: BTreeMap::new(),
            doses: VecDeque::new(),
            floor: 0,
        };
        state.load(stored, Now { wall_ms: clock.wall_ms(), ms: clock.monotonic_ms() });
        let (changed, _) = watch::channel(1);
        Self {
            id,
            clock,
            state: Mutex::new(state),
            changed,
            reading: tokio::sync::Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both clocks.
    pub(super) fn now(&self) -> Now {
        Now { wall_ms: self.clock.wall_ms(), ms: self.clock.monotonic_ms() }
    }

    /// Reads the state.
    pub(super) fn read<T>(&self, f: impl FnOnce(&State, Now) -> T) -> T {
        f(&self.lock(), self.now())
    }

    /// Changes the state; watchers wake if anything was stamped.
    pub(super) fn update<T>(&self, f: impl FnOnce(&mut State, Now) -> T) -> T {
        let (out, sequence) = {
            let mut state = self.lock();
            let out = f(&mut state, self.now());
            (out, state.sequence)
        };
        self.changed.send_if_modified(|seen| {
            let newer = *seen != sequence;
            *seen = sequence;
            newer
        });
        out
    }

    /// Wakes at every change.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Live commands that count as unsettled, of the agents that are asked for.
    pub(super) fn unsettled(&self, of: impl Fn(&AgentId) -> bool) -> Vec<CommandName> {
        let state = self.lock();
        let commands = state.commands.values().map(|c| &c.value.command);
        let open = commands.filter(|c| super::view::is_unsettled(c) && of(&c.agent));
        open.map(|c| c.name.clone()).collect()
    }

    /// A feeder as it is stored.
    pub(super) fn feeder(&self, id: &FeederId) -> Option<FeederView> {
        self.lock().feeders.get(id).map(|f| f.value.clone())
    }
}
