//! What everybody says who keeps count must agree: the PLC's totaliser and its log of the motor, the
//! agent's journal, the server's history, and what callers were told; and a hold stands as it was last
//! set. Whether each command's end is true is the judge's ([`crate::check`]), for whom [`Asked`] is
//! put into his words by [`run`].

use std::collections::{BTreeMap, BTreeSet};

use pasamanos_proto::model::CommandState;

use crate::check::{self, Command, Dose, Feed, Refusal, Run, Said, token};

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A dose of so many mg.
    Dose(i64),
    /// A config, known by a value that no other config of the run has.
    Config(i64),
    /// A hold, or a resume.
    Hold(bool),
}

/// A command as its caller saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `farms/{farm}/commands/{request id}`.
    pub name: String,
    /// The feeder's id.
    pub feeder: String,
    /// What was asked.
    pub what: What,
    /// Its number within the feeder; 0 if it was never accepted.
    pub number: i64,
    /// All that was seen of it, in order.
    pub told: Vec<Said>,
    /// What it told last of how much fell, mg.
    pub mg: Option<i64>,
    /// The reason of the refusal, if it was never accepted.
    pub refused: Option<String>,
}

/// One physical dispensing, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The feeder's id.
    pub feeder: String,
    /// The command's token; `None` for what was not commanded.
    pub token: Option<u32>,
    /// What it was to be, mg.
    pub planned_mg: i64,
    /// What fell, mg.
    pub mg: i64,
}

/// One row of the server's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name: unique.
    pub name: String,
    /// The feeder's id.
    pub feeder: String,
    /// Its command's name; empty if none.
    pub command: String,
    /// What fell, mg.
    pub mg: i64,
}

/// What is so, by everybody who keeps count.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// The PLC's log of the motor.
    pub executions: Vec<Execution>,
    /// Every config value that the PLC ever ran; each command of a run sets one of its own.
    pub configs: BTreeSet<i64>,
    /// The PLC's hold bit at the end, by feeder.
    pub held: BTreeMap<String, bool>,
    /// The PLC's totaliser at the end, mg, by feeder.
    pub totals: BTreeMap<String, i64>,
    /// What the agent's journal holds as recorded, mg, by feeder.
    pub journal: BTreeMap<String, i64>,
    /// The server's history.
    pub rows: Vec<Row>,
}

impl Asked {
    /// What it was told last; `None` if it was never accepted.
    pub fn state(&self) -> Option<CommandState> {
        self.told.last().map(|s| s.state)
    }

    /// Whether it was told an end that no evidence can change.
    pub fn ended(&self) -> bool {
        self.state().is_some_and(|s| s.is_terminal() && s != CommandState::Uncertain)
    }
}

/// The run in the judge's words.
pub fn run(history: &[Asked], truth: &Truth) -> Run {
    let command = |asked: &Asked| Command {
        name: asked.name.clone(),
        what: match asked.what {
            What::Dose(mg) => check::What::Dose(mg),
            What::Config(value) => check::What::Config(value),
            What::Hold(_) => check::What::Other,
        },
        said: asked.told.clone(),
        answers: Vec::new(),
        excuse: None,
    };
    let dose = |e: &Execution| Some(Dose { token: e.token?, mg: e.planned_mg, started_ms: None });
    let fed =
        |feeder: &str| truth.rows.iter().filter(|r| r.feeder == feeder).map(|r| r.mg).sum::<i64>();
    Run {
        commands: history.iter().filter(|a| a.refused.is_none()).map(command).collect(),
        refusals: history
            .iter()
            .filter(|a| a.refused.is_some())
            .map(|a| Refusal { name: a.name.clone(), known: !a.told.is_empty() })
            .collect(),
        acceptances: Vec::new(),
        lives: Vec::new(),
        expiry_ms: 0,
        farm_values: Vec::new(),
        lost_values: Vec::new(),
        configs: Vec::new(),
        doses: truth.executions.iter().filter_map(dose).collect(),
        values: truth.configs.iter().copied().collect(),
        feeds: truth
            .totals
            .iter()
            .map(|(feeder, total)| Feed {
                feeder: feeder.clone(),
                plc_mg: *total,
                history_mg: fed(feeder),
                excuse: None,
            })
            .collect(),
        records: truth.rows.iter().map(|r| r.name.clone()).collect(),
    }
}

/// Every promise that the run broke, by the judge and by the books.
pub fn judge(history: &[Asked], truth: &Truth) -> Vec<String> {
    let mut broken = check::check(&run(history, truth));
    let nothing = |a: &&Asked| a.told.is_empty() && a.refused.is_none();
    for asked in history.iter().filter(nothing) {
        broken.push(format!("neither accepted nor refused: {asked:?}"));
    }
    doses(history, truth, &mut broken);
    holds(history, truth, &mut broken);
    broken.extend(totals(truth));
    broken
}

fn by_token(truth: &Truth) -> BTreeMap<u32, Vec<&Execution>> {
    let mut by_token: BTreeMap<u32, Vec<&Execution>> = BTreeMap::new();
    for e in &truth.executions {
        if let Some(token) = e.token {
            by_token.entry(token).or_default().push(e);
        }
    }
    by_token
}

/// The bit is what the last hold or resume that was applied said.
fn holds(history: &[Asked], truth: &Truth, broken: &mut Vec<String>) {
    let mut last: BTreeMap<&str, (i64, bool)> = BTreeMap::new();
    for asked in history {
        if let (What::Hold(on), Some(CommandState::Applied)) = (&asked.what, asked.state()) {
            let entry = last.entry(&asked.feeder).or_insert((asked.number, *on));
            if asked.number >= entry.0 {
                *entry = (asked.number, *on);
            }
        }
    }
    for (feeder, (number, on)) in last {
        if truth.held.get(feeder).is_some_and(|is| *is != on) {
            broken
                .push(format!("{feeder}: hold {on} was applied (number {number}), the bit is not"));
        }
    }
}

/// A dose has one row, and row, PLC and the caller's answer tell one amount.
fn doses(history: &[Asked], truth: &Truth, broken: &mut Vec<String>) {
    let by_token = by_token(truth);
    for asked in history {
        let ran = by_token.get(&token(&asked.name)).map_or(&[][..], Vec::as_slice);
        let rows: Vec<_> = truth.rows.iter().filter(|r| r.command == asked.name).collect();
        let fell: i64 = ran.iter().map(|e| e.mg).sum();
        let told: i64 = rows.iter().map(|r| r.mg).sum();
        if told != fell || rows.len() > 1 || (rows.is_empty() && fell > 0) {
            broken.push(format!("the PLC gave {fell} mg, the history has {rows:?}: {asked:?}"));
        }
        let given = matches!(asked.state(), Some(CommandState::Applied | CommandState::Partial));
        if matches!(asked.what, What::Dose(_)) && given && asked.mg != Some(fell) {
            broken.push(format!("the PLC gave {fell} mg: {asked:?}"));
        }
    }
}

/// Every milligram once: totaliser = the PLC's log = journal = history.
pub fn totals(truth: &Truth) -> Vec<String> {
    let mut broken = Vec::new();
    for (feeder, total) in &truth.totals {
        let of = |mine: &str| mine == feeder;
        let log: i64 = truth.executions.iter().filter(|e| of(&e.feeder)).map(|e| e.mg).sum();
        let rows: i64 = truth.rows.iter().filter(|r| of(&r.feeder)).map(|r| r.mg).sum();
        let journal = truth.journal.get(feeder).copied().unwrap_or(0);
        if [log, rows, journal] != [*total; 3] {
            broken.push(format!(
                "{feeder}: totaliser {total} mg, its log {log}, journal {journal}, history {rows}"
            ));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use pasamanos_proto::model::Reason;

    use super::*;

    const NAME: &str = "farms/norte/commands/one";

    fn asked(what: What, state: CommandState, mg: Option<i64>) -> Asked {
        Asked {
            name: NAME.into(),
            feeder: "f".into(),
            what,
            number: 1,
            told: vec![Said { state, reason: Reason::Unspecified, life: 0 }],
            mg,
            refused: None,
        }
    }

    /// A dose of 100 mg, ended with `mg`.
    fn ran(mg: i64) -> Truth {
        let token = Some(token(NAME));
        Truth {
            executions: vec![Execution { feeder: "f".into(), token, planned_mg: 100, mg }],
            configs: BTreeSet::from([7]),
            held: BTreeMap::from([("f".into(), true)]),
            totals: BTreeMap::from([("f".into(), mg)]),
            journal: BTreeMap::from([("f".into(), mg)]),
            rows: vec![Row { name: "r".into(), feeder: "f".into(), command: NAME.into(), mg }],
        }
    }

    fn broken(asked: Asked, truth: &Truth) -> Vec<String> {
        judge(&[asked], truth)
    }

    #[test]
    fn books_that_agree_pass() {
        let dose = |state, mg| asked(What::Dose(100), state, mg);
        assert_eq!(broken(dose(CommandState::Applied, Some(100)), &ran(100)), [""; 0]);
        assert_eq!(broken(dose(CommandState::Partial, Some(40)), &ran(40)), [""; 0]);
    }

    #[test]
    fn another_amount_and_another_hold_are_found() {
        let dose = |state, mg| asked(What::Dose(100), state, mg);
        assert!(!broken(dose(CommandState::Applied, Some(90)), &ran(100)).is_empty());
        assert!(!broken(dose(CommandState::Partial, Some(40)), &ran(50)).is_empty());
        let mut nothing = dose(CommandState::Applied, None);
        nothing.told.clear();
        assert!(!broken(nothing, &ran(100)).is_empty(), "no word of it");
        let truth = Truth { held: BTreeMap::from([("f".into(), true)]), ..Truth::default() };
        let resumed = asked(What::Hold(false), CommandState::Applied, None);
        assert!(!broken(resumed, &truth).is_empty());
    }

    #[test]
    fn every_milligram_counts_once() {
        type Change = fn(&mut Truth);
        let changes: [Change; 6] = [
            |t| t.rows.clear(),
            |t| t.rows.push(Row { name: "again".into(), ..t.rows[0].clone() }),
            |t| t.rows[0].mg = 99,
            |t| *t.totals.get_mut("f").expect("f") = 101,
            |t| *t.journal.get_mut("f").expect("f") = 99,
            |t| t.executions[0].token = Some(1),
        ];
        for (n, change) in changes.iter().enumerate() {
            let mut truth = ran(100);
            change(&mut truth);
            let dose = asked(What::Dose(100), CommandState::Applied, Some(100));
            assert!(!broken(dose, &truth).is_empty(), "change {n} was not seen");
        }
    }
}
