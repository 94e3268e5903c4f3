//! A small farm and short words for what happens on it.

use std::collections::BTreeMap;
use std::time::Duration;

use pasamanos_proto::model::{
    Action, AgentName, AuditAnchor, BodyHash, Capabilities, CommandName, CommandOrder,
    CommandReport, CommandState, ConfigField, Enforcer, FarmId, FeedNowCapability, FeederConfig,
    FeederId, FeederName, FieldAccess, FieldCapability, FieldSet, Hello, Interlocks, Inventory,
    InventoryFeeder, InventoryRobot, InventoryTank, JournalState, Limits, Mode, ObservedConfig,
    PageRequest, Reason, RecordBatch, RequestId, RobotId, RobotSlot, StoredRecord,
};
use pasamanos_proto::pb;
use pasamanos_server::domain::ports::{
    AcceptError, Ingest, IngestError, Ingested, NewCommand, NewFarm, OpenError, OpenSession,
    SessionOpened, Store, StoredCommand, StoredFeeder,
};
use uuid::Uuid;

pub const NOW: i64 = 1_795_000_000_000;
pub const PATIENCE: Duration = Duration::from_secs(2);

pub fn farm() -> FarmId {
    "norte".parse().unwrap()
}

pub fn agent() -> AgentName {
    agent_named("agent-1")
}

pub fn agent_named(name: &str) -> AgentName {
    AgentName::new(farm(), name.parse().unwrap())
}

pub fn feeder_id(n: u32) -> FeederId {
    format!("feeder-{n}").parse().unwrap()
}

pub fn feeder_name(n: u32) -> FeederName {
    FeederName::new(farm(), feeder_id(n))
}

/// Feeders 1 and 2 share a robot; every other has its own.
pub fn robot_of(feeder: u32) -> RobotId {
    format!("robot-{}", if feeder == 2 { 1 } else { feeder }).parse().unwrap()
}

pub fn config(portion_mg: i32) -> FeederConfig {
    FeederConfig {
        mode: Mode::Automatic,
        portion_mg: Some(portion_mg),
        interval_s: Some(1_800),
        windows: Vec::new(),
        daily_cap_mg: Some(100_000),
        interlocks: Interlocks::default(),
    }
}

pub fn observed(portion_mg: i32) -> ObservedConfig {
    ObservedConfig::Valid(config(portion_mg))
}

pub fn inventory(feeders: u32) -> Inventory {
    let writable = FieldCapability { access: FieldAccess::Writable, enforced_by: Enforcer::Plc };
    let feeder = |n: u32| InventoryFeeder {
        id: feeder_id(n),
        robot: robot_of(n),
        tank: format!("tank-{n}").parse().unwrap(),
        display_name: format!("Comedero {n}"),
        limits: Limits { portion_step_mg: Some(10), ..Limits::default() },
        capabilities: Capabilities::new(
            FeedNowCapability::Exact,
            true,
            [(ConfigField::Portion, writable)],
        ),
        config: Some(observed(1_000)),
        memory_lost: false,
    };
    let tank = |n: u32| InventoryTank {
        id: format!("tank-{n}").parse().unwrap(),
        display_name: format!("Estanque {n}"),
        group: String::new(),
    };
    Inventory {
        tanks: (1..=feeders).map(tank).collect(),
        robots: (1..=feeders)
            .filter(|n| *n != 2)
            .map(|n| InventoryRobot { id: robot_of(n) })
            .collect(),
        feeders: (1..=feeders).map(feeder).collect(),
    }
}

/// A hello of a journal that is whole as far as `last_epoch`: every slot is readable and agrees.
pub fn hello(last_epoch: i64) -> Hello {
    let inventory = inventory(3);
    let slot = |r: &InventoryRobot| RobotSlot {
        robot: r.id.clone(),
        readable: true,
        sequenced: true,
        plc: (9, 4),
        journal: (9, 4),
    };
    Hello {
        protocol_version: 1,
        agent: agent(),
        agent_version: "0.1.0".into(),
        journal: JournalState {
            incarnation: "incarnation-1".into(),
            last_epoch,
            record_high_water: 0,
            oldest_record: 0,
            slots: inventory.robots.iter().map(slot).collect(),
            anchor: Some(AuditAnchor::default()),
        },
        inventory,
        commands: Vec::new(),
        orders: Vec::new(),
    }
}

pub async fn try_open(store: &dyn Store, hello: Hello) -> Result<SessionOpened, OpenError> {
    store.open_session(OpenSession { hello, now_ms: NOW }).await
}

pub async fn open(store: &dyn Store, hello: Hello) -> SessionOpened {
    try_open(store, hello).await.expect("the session opens")
}

/// Adds the farm and its agent and opens the first session.
pub async fn first_session(store: &dyn Store) -> SessionOpened {
    add_farm(store).await;
    open(store, hello(0)).await
}

pub async fn add_farm(store: &dyn Store) {
    let new = NewFarm {
        id: farm(),
        display_name: "Norte".into(),
        time_zone: "America/Santiago".into(),
        now_ms: NOW,
    };
    store.add_farm(new).await.expect("the farm is added");
    store.add_agent(agent(), NOW).await.expect("the agent is added");
}

pub fn request() -> RequestId {
    Uuid::new_v4().into()
}

pub fn command_name(request: RequestId) -> CommandName {
    CommandName::new(farm(), request)
}

pub fn new_command(feeder: u32, epoch: i64, action: Action) -> NewCommand {
    let request_hash = action.body_hash(&feeder_id(feeder));
    NewCommand {
        name: command_name(request()),
        feeder: feeder_id(feeder),
        robot: robot_of(feeder),
        agent: agent().agent,
        epoch,
        action,
        etag: None,
        request_hash,
        start_before: ("boot-1".into(), 12_345),
        author: "ana".into(),
        note: "before the storm".into(),
        now_ms: NOW,
    }
}

pub fn feed(feeder: u32, epoch: i64) -> NewCommand {
    new_command(feeder, epoch, Action::FeedNow { portion_mg: 1_500 })
}

pub fn hold(feeder: u32, epoch: i64) -> NewCommand {
    new_command(feeder, epoch, Action::Hold)
}

/// Sets the portion, based on the config in force.
pub async fn update(store: &dyn Store, feeder: u32, epoch: i64, portion_mg: i32) -> NewCommand {
    let stored = stored_feeder(store, feeder).await;
    let version = stored.version.expect("it was read");
    let action = Action::UpdateConfig {
        base: version.config.clone().into(),
        new: config(portion_mg),
        fields: FieldSet::from_iter([ConfigField::Portion]),
    };
    NewCommand { etag: Some(version.etag), ..new_command(feeder, epoch, action) }
}

pub async fn stored_feeder(store: &dyn Store, feeder: u32) -> StoredFeeder {
    let farm = store.farm(&farm()).await.unwrap().expect("the farm");
    farm.feeders.into_iter().find(|f| f.id == feeder_id(feeder)).expect("the feeder")
}

pub async fn accept(store: &dyn Store, new: NewCommand) -> StoredCommand {
    try_accept(store, new).await.expect("it is accepted")
}

pub async fn try_accept(store: &dyn Store, new: NewCommand) -> Result<StoredCommand, AcceptError> {
    let mut accepted = store.accept(vec![new], PATIENCE).await?;
    Ok(accepted.pop().expect("one command"))
}

pub async fn stored(store: &dyn Store, name: &CommandName) -> StoredCommand {
    store.command(name).await.unwrap().expect("the command")
}

/// What the agent says of a command.
pub fn report(command: &StoredCommand, state: CommandState) -> CommandReport {
    report_of(command.name.clone(), command.action.body_hash(&command.feeder), state)
}

pub fn report_of(command: CommandName, body_hash: BodyHash, state: CommandState) -> CommandReport {
    CommandReport {
        command,
        state,
        body_hash,
        reason: Reason::Unspecified,
        metadata: BTreeMap::new(),
        detail: String::new(),
        dispensed: None,
        config: None,
        memory_lost: false,
        journaled_epoch: 1,
    }
}

pub async fn try_ingest(
    store: &dyn Store,
    epoch: i64,
    item: Ingest,
) -> Result<Ingested, IngestError> {
    let mut done = store.ingest(&agent(), epoch, &[item], NOW + 1_000).await?;
    Ok(done.pop().expect("one answer"))
}

pub async fn ingest(store: &dyn Store, epoch: i64, item: Ingest) -> Ingested {
    try_ingest(store, epoch, item).await.expect("it is stored")
}

/// What the agent journaled of a command when it received it.
pub fn order(c: &StoredCommand) -> CommandOrder {
    CommandOrder {
        command: c.name.clone(),
        feeder: c.feeder.clone(),
        number: c.number,
        body_hash: c.action.body_hash(&c.feeder),
        boot_id: c.start_before.0.clone(),
        start_before_ms: c.start_before.1,
        author: c.author.clone(),
        note: pasamanos_proto::model::note(&c.note).expect("it was one"),
        action: c.action.clone(),
    }
}

/// Reports an outcome that must be taken.
pub async fn settle(
    store: &dyn Store,
    epoch: i64,
    report: CommandReport,
) -> (StoredCommand, StoredFeeder, bool) {
    match ingest(store, epoch, Ingest::Outcome(Box::new(report))).await {
        Ingested::Outcome { command, feeder, changed, .. } => (*command, *feeder, changed),
        other => panic!("an outcome answers with one: {other:?}"),
    }
}

pub fn dose(n: i64) -> pb::record::Content {
    let at = prost_types::Timestamp { seconds: NOW / 1_000 + n * 60, nanos: 0 };
    pb::record::Content::Dose(pb::Dose {
        feeder: feeder_id(1).to_string(),
        tank: "tank-1".into(),
        robot: robot_of(1).to_string(),
        cause: pb::DoseCause::Schedule.into(),
        outcome: pb::DoseOutcome::Given.into(),
        planned_mg: Some(1_000),
        dispensed_mg: Some(1_000 + n),
        basis: pb::AmountBasis::Counted.into(),
        start_time: Some(at),
        end_time: Some(at),
        local_date: "2026-11-24".into(),
        ..pb::Dose::default()
    })
}

pub fn batch(incarnation: &str, sequences: std::ops::RangeInclusive<i64>) -> RecordBatch {
    let records = sequences.map(|n| StoredRecord::new(n, dose(n))).collect();
    RecordBatch { incarnation: incarnation.into(), records }
}

pub fn page(size: u32, after: &str) -> PageRequest {
    PageRequest { size, after: after.into() }
}

/// Calls all at once and answers when the last has ended.
pub async fn together<T, F: Future<Output = T>>(calls: Vec<F>) -> Vec<T> {
    futures_util::future::join_all(calls).await
}
