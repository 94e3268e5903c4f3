//! The files of a simulated PLC: its retained memory, how far the running dose is, and the execution
//! log that tests take for the truth.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::machine::Line;
use super::memory::Memory;

/// The memory's file is written anew when it has grown to this.
const COMPACT_AT: u64 = 4 << 20;
/// Bytes of one robot in the progress file: dose number and mg.
const RECORD: usize = 16;

/// The files, open.
pub(super) struct Store {
    memory_path: PathBuf,
    memory: File,
    length: u64,
    ledger: File,
    progress: File,
}

/// What was found at power-up.
#[derive(Default)]
pub(super) struct Found {
    pub memories: BTreeMap<String, Memory>,
    /// The PLC's clock of the last start of the machine that we ran in, with that start's id.
    pub clock: Option<Clock>,
    /// Ends of doses in the log, by robot and number.
    pub ended: BTreeMap<(String, u64), Line>,
}

/// How the PLC's clock follows from ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Clock {
    pub boot_id: String,
    /// PLC time = monotonic time + this, ms.
    pub offset_ms: i64,
    /// The latest PLC time known.
    pub latest_ms: i64,
}

/// A line of the memory's file; of each key the last whole line counts.
#[derive(Serialize, Deserialize)]
enum Entry<'a> {
    Robot { id: std::borrow::Cow<'a, str>, memory: std::borrow::Cow<'a, Memory> },
    Clock(Clock),
}

impl Store {
    /// Opens or makes the files of this PLC.
    pub fn open(dir: &Path, plc: &str) -> io::Result<(Self, Found)> {
        fs::create_dir_all(dir)?;
        let memory_path = dir.join(format!("{plc}.memory.jsonl"));
        let ledger_path = dir.join("ledger.jsonl");
        let mut found = Found::default();
        for line in lines(&memory_path)? {
            // A torn last line was never acknowledged.
            match serde_json::from_str(&line) {
                Ok(Entry::Robot { id, memory }) => {
                    found.memories.insert(id.into_owned(), memory.into_owned());
                }
                Ok(Entry::Clock(clock)) => found.clock = Some(clock),
                Err(_) => {}
            }
        }
        for line in lines(&ledger_path)? {
            if let Ok(line) = serde_json::from_str::<Line>(&line)
                && line.event == "end"
            {
                found.ended.insert((line.robot.clone(), line.number), line);
            }
        }
        let append = |path: &Path| {
            let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
            end_line(&mut file)?;
            Ok::<_, io::Error>(file)
        };
        let (memory, ledger) = (append(&memory_path)?, append(&ledger_path)?);
        let progress = dir.join(format!("{plc}.progress"));
        let progress = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(progress)?;
        sync_dir(dir)?;
        let length = memory.metadata()?.len();
        Ok((Self { memory_path, memory, length, ledger, progress }, found))
    }

    /// Makes these robots' memories durable: one write, one fsync.
    pub fn keep<'a>(
        &mut self,
        robots: impl Iterator<Item = (&'a str, &'a Memory)>,
        clock: &Clock,
    ) -> io::Result<()> {
        let mut text = Vec::new();
        for (id, memory) in robots {
            entry(
                &mut text,
                &Entry::Robot { id: id.into(), memory: std::borrow::Cow::Borrowed(memory) },
            )?;
        }
        entry(&mut text, &Entry::Clock(clock.clone()))?;
        self.memory.write_all(&text)?;
        self.memory.sync_data()?;
        self.length += text.len() as u64;
        Ok(())
    }

    /// Whether the memory's file should be written anew.
    pub fn is_long(&self) -> bool {
        self.length > COMPACT_AT
    }

    /// Writes the memory's file anew with only what counts.
    pub fn compact<'a>(
        &mut self,
        robots: impl Iterator<Item = (&'a str, &'a Memory)>,
        clock: &Clock,
    ) -> io::Result<()> {
        let fresh = self.memory_path.with_extension("new");
        self.memory = OpenOptions::new().create(true).truncate(true).write(true).open(&fresh)?;
        self.length = 0;
        self.keep(robots, clock)?;
        fs::rename(&fresh, &self.memory_path)?;
        self.memory = OpenOptions::new().append(true).open(&self.memory_path)?;
        self.memory_path.parent().map_or(Ok(()), sync_dir)
    }

    /// Makes a line of the execution log durable.
    pub fn log(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.ledger.write_all(&text)?;
        self.ledger.sync_data()
    }

    /// Notes how far the robot's running dose is. Without fsync: a kill of the process leaves it.
    pub fn progress(&mut self, robot: usize, number: u64, mg: u32) -> io::Result<()> {
        let mut record = [0; RECORD];
        record[..8].copy_from_slice(&number.to_le_bytes());
        record[8..].copy_from_slice(&u64::from(mg).to_le_bytes());
        self.progress.seek(SeekFrom::Start((robot * RECORD) as u64))?;
        self.progress.write_all(&record)
    }

    /// How far this dose of the robot was when it was last noted.
    pub fn measured(&mut self, robot: usize, number: u64) -> u32 {
        let mut record = [0; RECORD];
        let read = self
            .progress
            .seek(SeekFrom::Start((robot * RECORD) as u64))
            .and_then(|_| self.progress.read_exact(&mut record));
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        match read {
            Ok(()) if word(&record[..8]) == number => {
                u32::try_from(word(&record[8..])).unwrap_or(0)
            }
            _ => 0,
        }
    }
}

fn entry(text: &mut Vec<u8>, entry: &Entry<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *text, entry)?;
    text.push(b'\n');
    Ok(())
}

fn lines(path: &Path) -> io::Result<Vec<String>> {
    match File::open(path) {
        Ok(file) => BufReader::new(file)
            .split(b'\n')
            .map(|l| Ok(String::from_utf8_lossy(&l?).into()))
            .collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Ends a line that a power cut tore, so that the next one stands alone.
fn end_line(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "as on unix")]
fn sync_dir(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn clock() -> Clock {
        Clock { boot_id: "b".into(), offset_ms: 1, latest_ms: 2 }
    }

    #[test]
    fn the_last_whole_line_counts_and_a_torn_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, found) = Store::open(dir.path(), "sim-1").unwrap();
        assert!(found.memories.is_empty() && found.clock.is_none());
        let mut memory = Memory::new(7, 100, Vec::new());
        store.keep([("robot-1", &memory)].into_iter(), &clock()).unwrap();
        memory.hopper_mg = 50;
        store.keep([("robot-1", &memory)].into_iter(), &clock()).unwrap();
        let path = dir.path().join("sim-1.memory.jsonl");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], b"{\"Robot\":{\"id\":\"robot-1\",\"mem"].concat()).unwrap();
        let (mut store, found) = Store::open(dir.path(), "sim-1").unwrap();
        assert_eq!(found.memories["robot-1"].hopper_mg, 50);
        // What is kept after a torn line is whole again, and so it is after a compaction.
        memory.hopper_mg = 25;
        store.keep([("robot-1", &memory)].into_iter(), &clock()).unwrap();
        let (mut store, found) = Store::open(dir.path(), "sim-1").unwrap();
        assert_eq!(found.memories["robot-1"].hopper_mg, 25);
        store.compact([("robot-1", &memory)].into_iter(), &clock()).unwrap();
        store.keep([("robot-1", &memory)].into_iter(), &clock()).unwrap();
        let (_, found) = Store::open(dir.path(), "sim-1").unwrap();
        assert_eq!((found.memories.len(), found.memories["robot-1"].epoch), (1, 7));
    }

    #[test]
    fn progress_is_of_one_dose_only() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(dir.path(), "sim-1").unwrap();
        store.progress(3, 41, 700).unwrap();
        let (mut store, _) = Store::open(dir.path(), "sim-1").unwrap();
        assert_eq!(
            (store.measured(3, 41), store.measured(3, 42), store.measured(9, 41)),
            (700, 0, 0)
        );
    }
}
