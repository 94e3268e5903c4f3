//! Faults on demand: one JSON object a line over a loopback connection, answered by one. Only there
//! if `control` is set in `agent.toml`; the bound address is in `sim/control.addr`.
//!
//! `{"op":"edit_config","feeder":"feeder-a1","config":{"portion_mg":2000}}` gives `{"ok":…}` or
//! `{"error":"…"}`.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::SyncSender;

use pasamanos_proto::model::{FeederId, RobotId};
use pasamanos_proto::pb::ReadingKind;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::machine::{Effect, Machine};
use super::memory::Program;
use super::shell::{Ask, Revert, Shell};
use crate::driver::SlotState;
use crate::driver::slot_reason;

/// No request is longer.
const MAX_LINE: u64 = 64 << 10;

/// What a test can cause.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Op {
    /// Someone at the farm changes some of a config; anything goes. Raises the revision.
    EditConfig { feeder: String, config: serde_json::Map<String, Value> },
    /// Someone at the farm sets or lifts the hold.
    Hold { feeder: String, on: bool },
    /// A fault appears.
    Fault { robot: String, code: u32 },
    /// It is gone.
    Clear { robot: String },
    /// Someone turns the key to local, or back.
    Local { robot: String, on: bool },
    /// The retained memory is lost: new epoch, factory config.
    LoseMemory { robot: String },
    /// The hopper holds this much.
    Hopper { robot: String, mg: i64 },
    /// As `hopper` with 0.
    EmptyHopper { robot: String },
    /// A probe shows this value until it is told otherwise; without a value, the truth.
    Reading {
        feeder: String,
        kind: String,
        value: Option<i64>,
        #[serde(default = "yes")]
        good: bool,
    },
    /// The connection to the PLC.
    Link { up: bool },
    /// The `alive` tag stands still, or moves again.
    Freeze { on: bool },
    /// The next config written to the feeder is accepted, and back to the old after so many reads.
    Revert {
        feeder: String,
        #[serde(default = "one")]
        reads: u32,
    },
    /// What becomes of the next writes.
    Replies(Replies),
    /// A meal of the schedule is due now.
    MealNow { feeder: String },
    /// What each feeder runs and has dispensed.
    Status,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

/// The fate of the next writes.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Replies {
    fate: FateName,
    #[serde(default = "one")]
    count: u32,
    #[serde(default)]
    ms: u32,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FateName {
    Applied,
    Dropped,
    Late,
    Refused,
}

/// What becomes of one write.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// It is done; the reply is lost.
    Applied,
    /// It never arrives, and nobody knows.
    Dropped,
    /// It is done later; the reply is lost.
    Late { ms: u32 },
    /// The PLC refuses it.
    Refused,
}

impl Replies {
    /// The fate of the next write, while some are left.
    pub fn next(&mut self) -> Option<Fate> {
        self.count = self.count.checked_sub(1)?;
        Some(match self.fate {
            FateName::Applied => Fate::Applied,
            FateName::Dropped => Fate::Dropped,
            FateName::Late => Fate::Late { ms: self.ms },
            FateName::Refused => Fate::Refused,
        })
    }
}

impl Shell {
    /// Does what a test asks.
    pub(super) fn control(&mut self, op: Op) -> io::Result<Result<Value, String>> {
        match self.place(op) {
            Ok((i, effects)) => {
                self.perform(i, &effects)?;
                let now = self.now();
                let effects = self.machines.get_mut(i).map(|m| m.tick(now)).unwrap_or_default();
                self.perform(i, &effects)?;
                Ok(Ok(self.status()))
            }
            Err(e) => Ok(Err(e)),
        }
    }

    /// Applies the change and returns whose files must follow.
    fn place(&mut self, op: Op) -> Result<(usize, Vec<Effect>), String> {
        let robot = |shell: &Self, id: &str| {
            let id: RobotId = id.parse().map_err(|_| format!("no robot {id}"))?;
            shell.robot(&id).map(|(i, _)| i).map_err(|e| e.to_string())
        };
        let feeder = |shell: &Self, id: &str| {
            let id: FeederId = id.parse().map_err(|_| format!("no feeder {id}"))?;
            shell.outlet(&id).map_err(|e| e.to_string())
        };
        let now = self.now();
        let keep = vec![Effect::Keep];
        Ok(match op {
            Op::EditConfig { feeder: f, config } => {
                let (i, o) = feeder(self, &f)?;
                let memory = self.machines[i].memory.outlets.get(o).ok_or("no outlet")?;
                let mut whole = serde_json::to_value(&memory.config).map_err(|e| e.to_string())?;
                whole.as_object_mut().ok_or("no config")?.extend(config);
                let program: Program = serde_json::from_value(whole).map_err(|e| e.to_string())?;
                (i, self.machines[i].edit(o, program))
            }
            Op::Hold { feeder: f, on } => {
                let (i, o) = feeder(self, &f)?;
                (i, self.machines[i].set_hold(o, on))
            }
            Op::Fault { robot: r, code } => {
                let i = robot(self, &r)?;
                self.machines[i].memory.fault = code;
                (i, keep)
            }
            Op::Clear { robot: r } => {
                let i = robot(self, &r)?;
                self.machines[i].memory.fault = 0;
                (i, keep)
            }
            Op::Local { robot: r, on } => {
                let i = robot(self, &r)?;
                self.machines[i].memory.local = on;
                (i, keep)
            }
            Op::LoseMemory { robot: r } => {
                let i = robot(self, &r)?;
                let machine = &mut self.machines[i];
                let (measured, mut effects) = (machine.dispensed(now), Vec::new());
                machine.finish(
                    measured,
                    SlotState::Aborted,
                    slot_reason::POWER_LOST,
                    now,
                    &mut effects,
                );
                let (doses, hopper) = (machine.memory.doses, machine.memory.hopper_mg);
                machine.memory = Machine::factory(&machine.setup, fastrand::u32(1..), now);
                (machine.memory.doses, machine.memory.hopper_mg) = (doses, hopper);
                machine.pending = None;
                effects.push(Effect::Keep);
                (i, effects)
            }
            Op::Hopper { robot: r, mg } => {
                let i = robot(self, &r)?;
                self.machines[i].memory.hopper_mg = mg;
                (i, keep)
            }
            Op::EmptyHopper { robot: r } => return self.place(Op::Hopper { robot: r, mg: 0 }),
            Op::Reading { feeder: f, kind, value, good } => {
                let (i, o) = feeder(self, &f)?;
                let full = format!("READING_KIND_{}", kind.to_uppercase());
                let kind = ReadingKind::from_str_name(&full).ok_or(format!("no reading {kind}"))?;
                let outlet = self.machines[i].outlets.get_mut(o).ok_or("no outlet")?;
                outlet.water.show(kind, value.map(|value| (value, good)));
                (i, Vec::new())
            }
            Op::Link { up } => {
                self.link_up = up;
                (0, Vec::new())
            }
            Op::Freeze { on } => {
                self.alive_frozen = on.then(|| u64::try_from(now.plc_ms / 100).unwrap_or(0));
                (0, Vec::new())
            }
            Op::Revert { feeder: f, reads } => {
                let at = feeder(self, &f)?;
                self.reverts.retain(|r| r.at != at);
                self.reverts.push(Revert { at, reads, back_to: None });
                (at.0, Vec::new())
            }
            Op::Replies(replies) => {
                self.replies = Some(replies);
                (0, Vec::new())
            }
            Op::MealNow { feeder: f } => {
                let (i, o) = feeder(self, &f)?;
                let memory = self.machines[i].memory.outlets.get_mut(o).ok_or("no outlet")?;
                memory.last_meal_ms = now.plc_ms - memory.config.interval_s * 1_000;
                (i, keep)
            }
            Op::Status => (0, Vec::new()),
        })
    }

    fn status(&self) -> Value {
        let feeder = |(m, o): (&Machine, usize)| {
            let (outlet, memory) = (m.outlets.get(o)?, m.memory.outlets.get(o)?);
            Some(json!({
                "feeder": outlet.setup.id.to_string(),
                "robot": m.setup.id.to_string(),
                "epoch": m.memory.epoch,
                "last_sequence": m.memory.last_sequence,
                "revision": memory.revision,
                "config": memory.config,
                "held": memory.held,
                "total_mg": memory.total_mg,
                "today_mg": memory.today_mg,
                "hopper_mg": m.memory.hopper_mg,
                "dosing": m.memory.running.is_some(),
            }))
        };
        let all = self.machines.iter().flat_map(|m| (0..m.outlets.len()).map(move |o| (m, o)));
        json!({ "feeders": all.filter_map(feeder).collect::<Vec<_>>() })
    }
}

/// Listens for tests; writes where to `control.addr`.
pub(super) async fn listen(
    address: SocketAddr,
    dir: &Path,
    asks: SyncSender<Ask>,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?.to_string();
    let (fresh, file) = (dir.join("control.addr.new"), dir.join("control.addr"));
    tokio::fs::create_dir_all(dir).await?;
    tokio::fs::write(&fresh, bound).await?;
    tokio::fs::rename(&fresh, &file).await?;
    let inner = tasks.clone();
    tasks.spawn(async move {
        loop {
            let peer = tokio::select! {
                () = stop.cancelled() => return,
                peer = listener.accept() => peer,
            };
            let Ok((peer, _)) = peer else { continue };
            let (asks, stop) = (asks.clone(), stop.clone());
            inner.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    served = serve(peer, &asks) => {
                        if let Err(e) = served {
                            tracing::debug!(error = %e, "sim.control connection ended");
                        }
                    }
                }
            });
        }
    });
    Ok(())
}

async fn serve(mut peer: TcpStream, asks: &SyncSender<Ask>) -> io::Result<()> {
    let (read, mut write) = peer.split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = String::new();
        if (&mut read).take(MAX_LINE).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_str(&line) {
            Ok(op) => ask(asks, op).await,
            Err(e) => Err(e.to_string()),
        };
        let answer = match answer {
            Ok(value) => json!({ "ok": value }),
            Err(e) => json!({ "error": e }),
        };
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
}

async fn ask(asks: &SyncSender<Ask>, op: Op) -> Result<Value, String> {
    let (reply, answer) = oneshot::channel();
    asks.try_send(Ask::Control(op, reply)).map_err(|_| "the simulated PLC is busy or gone")?;
    answer.await.map_err(|_| "the simulated PLC stopped")?
}
