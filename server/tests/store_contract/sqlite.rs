//! `SQLite`'s own: the writer's groups, its way out for callers, the file, and the audit chain in it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pasamanos_proto::model::{Action, CommandState, FieldSet};
use pasamanos_server::domain::ports::{AcceptError, NewCommand, Store, StoreError};
use pasamanos_server::store::{Chain, Options, SqliteStore};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::kit::*;

/// A store in a directory of its own.
pub struct Fixture {
    pub store: SqliteStore,
    dir: TempDir,
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let dir = TempDir::new().expect("a directory");
        let store = SqliteStore::open_with(&file(&dir), options).await.expect("the store opens");
        Self { store, dir }
    }

    /// A second connection, as another process would have.
    async fn outside(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(file(&self.dir));
        options.connect().await.expect("a connection")
    }
}

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("pasamanos.db")
}

/// Every test leaves a chain that holds and a file that is whole.
pub async fn finish(fixture: Fixture) {
    for farm in fixture.store.farms().await.unwrap() {
        let report = fixture.store.verify_audit(&Chain::Farm(farm.id), None).await.unwrap();
        assert!(report.intact(), "{report}");
    }
    fixture.store.close().await;
    let mut conn = fixture.outside().await;
    let whole: String =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut conn).await.unwrap();
    assert_eq!(whole, "ok");
    let dangling = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut conn).await.unwrap();
    assert!(dangling.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_queues_up_while_a_commit_syncs_is_committed_together() {
    let slow = Options { commit_delay: Duration::from_millis(50), ..Options::default() };
    let fixture = Fixture::with(slow).await;
    let store = &fixture.store;
    let epoch = first_session(store).await.epoch;
    let before = store.commits();
    let answers = together((0..100).map(|_| try_accept(store, hold(1, epoch))).collect()).await;
    assert!(answers.iter().all(Result::is_ok));
    let commits = store.commits() - before;
    assert!(commits <= 3, "100 acceptances took {commits} commits");
    finish(fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_after_it_wrote_undoes_only_its_own() {
    let slow = Options { commit_delay: Duration::from_millis(50), ..Options::default() };
    let fixture = Fixture::with(slow).await;
    let store = Arc::new(fixture.store);
    let epoch = first_session(&*store).await.epoch;
    let mut set = JoinSet::new();
    let mut good = Vec::new();
    for i in 0..20 {
        let first = hold(1, epoch);
        let commands = if i % 5 == 0 {
            vec![first, hold(3, epoch + 1)]
        } else {
            good.push(first.name.clone());
            vec![first]
        };
        let store = Arc::clone(&store);
        set.spawn(async move { (i, store.accept(commands, PATIENCE).await) });
    }
    while let Some(done) = set.join_next().await {
        let (i, answer) = done.unwrap();
        assert_eq!(answer.is_ok(), i % 5 != 0, "{i}: {answer:?}");
    }
    let all = store.commands(&farm(), None, &page(100, "")).await.unwrap().items;
    assert_eq!(all.len(), good.len());
    let mut numbers: Vec<_> = all.iter().map(|c| c.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=16).collect::<Vec<_>>(), "no number is skipped or given twice");
    let store = Arc::into_inner(store).expect("the last");
    finish(Fixture { store, dir: fixture.dir }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_not_taken_leaves_nothing() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let epoch = first_session(store).await.epoch;
    // Another process has the write lock: the writer cannot begin.
    let mut outside = fixture.outside().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut outside).await.unwrap();
    let new = hold(1, epoch);
    let start = Instant::now();
    let answer = store.accept(vec![new.clone()], Duration::from_millis(300)).await;
    assert!(matches!(answer, Err(AcceptError::NotTaken)), "{answer:?}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(store.command(&new.name).await.unwrap(), None, "reads go on, and know");
    sqlx::query("ROLLBACK").execute(&mut outside).await.unwrap();
    accept(store, hold(1, epoch)).await;
    assert_eq!(store.command(&new.name).await.unwrap(), None, "it never comes back");
    finish(fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_taken_and_not_answered_is_unknown_and_its_name_tells() {
    let mut fixture = Fixture::new().await;
    let epoch = first_session(&fixture.store).await.epoch;
    fixture.store.close().await;
    let slow = Options { commit_delay: Duration::from_millis(2_500), ..Options::default() };
    fixture.store = SqliteStore::open_with(&file(&fixture.dir), slow).await.unwrap();
    let store = &fixture.store;
    let new = hold(1, epoch);
    let start = Instant::now();
    let answer = store.accept(vec![new.clone()], Duration::from_millis(200)).await;
    assert!(matches!(answer, Err(AcceptError::Unknown)), "{answer:?}");
    assert!(start.elapsed() < Duration::from_millis(2_300), "{:?}", start.elapsed());
    // It has not ended: not "there is none" but wait, then the truth.
    assert_eq!(stored(store, &new.name).await.state, CommandState::Accepted);
    finish(fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_not_waited_for() {
    let narrow = Options { queue: 2, ..Options::default() };
    let fixture = Fixture::with(narrow).await;
    let store = &fixture.store;
    let epoch = first_session(store).await.epoch;
    let mut outside = fixture.outside().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut outside).await.unwrap();
    let patience = Duration::from_millis(300);
    let calls = (0..10).map(|_| store.accept(vec![hold(1, epoch)], patience)).collect();
    let start = Instant::now();
    for answer in together(calls).await {
        assert!(matches!(answer, Err(AcceptError::NotTaken)), "{answer:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    sqlx::query("ROLLBACK").execute(&mut outside).await.unwrap();
    accept(store, hold(1, epoch)).await;
    assert_eq!(store.commands(&farm(), None, &page(10, "")).await.unwrap().items.len(), 1);
    finish(fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_breaks_nothing() {
    let fixture = Fixture::new().await;
    let store = Arc::new(fixture.store);
    let epoch = first_session(&*store).await.epoch;
    let mut names = Vec::new();
    for i in 0..200_u64 {
        let new = hold(1 + u32::try_from(i % 3).unwrap(), epoch);
        names.push(new.name.clone());
        let call = store.accept(vec![new], PATIENCE);
        // Dropped after 0 to 1 ms: before, in the middle of, and after its commit.
        let _ = tokio::time::timeout(Duration::from_micros(i * 5), call).await;
    }
    let mut there = 0;
    for name in &names {
        there += i64::from(store.command(name).await.unwrap().is_some());
    }
    // What was said to be absent stays absent.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let all = store.commands(&farm(), None, &page(1_000, "")).await.unwrap().items;
    assert_eq!(i64::try_from(all.len()).unwrap(), there);
    let store = Arc::into_inner(store).expect("the last");
    finish(Fixture { store, dir: fixture.dir }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_there_after_a_reopen() {
    let fixture = Fixture::new().await;
    let epoch = first_session(&fixture.store).await.epoch;
    let new = accept(&fixture.store, feed(1, epoch)).await;
    fixture.store.close().await;
    assert!(matches!(
        fixture.store.accept(vec![hold(1, epoch)], PATIENCE).await,
        Err(AcceptError::NotTaken)
    ));
    let store = SqliteStore::open(&file(&fixture.dir)).await.unwrap();
    assert_eq!(stored(&store, &new.name).await, new);
    store.close().await;
}

#[tokio::test]
async fn a_second_server_is_refused_and_a_tool_is_not() {
    let dir = TempDir::new().unwrap();
    let server = || Options { exclusive: true, ..Options::default() };
    let first = SqliteStore::open_with(&file(&dir), server()).await.unwrap();
    assert!(matches!(
        SqliteStore::open_with(&file(&dir), server()).await,
        Err(StoreError::Unavailable(_))
    ));
    let tool = SqliteStore::open(&file(&dir)).await.unwrap();
    add_farm(&tool).await;
    assert_eq!(first.farms().await.unwrap().len(), 1);
    tool.close().await;
    // Both write to one chain.
    let epoch = open(&first, hello(0)).await.epoch;
    accept(&first, hold(1, epoch)).await;
    let tool = SqliteStore::open(&file(&dir)).await.unwrap();
    accept(&tool, hold(2, epoch)).await;
    tool.close().await;
    // The head that it knows is not the head any more.
    accept(&first, hold(3, epoch)).await;
    assert!(first.verify_audit(&Chain::Farm(farm()), None).await.unwrap().intact());
    first.close().await;
    drop(first);
    SqliteStore::open_with(&file(&dir), server()).await.unwrap().close().await;
}

#[tokio::test]
async fn the_audit_chain_tells_of_every_acceptance_and_end_and_shows_an_edit() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let epoch = first_session(store).await.epoch;
    let dose = accept(store, feed(1, epoch)).await;
    settle(store, epoch, report(&dose, CommandState::Uncertain)).await;
    settle(store, epoch, report(&dose, CommandState::Applied)).await;
    settle(store, epoch, report(&dose, CommandState::Applied)).await;
    let mut outside = fixture.outside().await;
    let kinds: Vec<String> =
        sqlx::query_scalar("SELECT kind FROM audit WHERE subject = $1 ORDER BY seq")
            .bind(dose.name.to_string())
            .fetch_all(&mut outside)
            .await
            .unwrap();
    assert_eq!(kinds, ["accepted", "settled", "settled"]);
    let report = store.verify_audit(&Chain::Farm(farm()), None).await.unwrap();
    assert_eq!((report.records, report.head_seq, report.intact()), (5, 5, true));

    for (edit, undo, seq) in [
        (
            "UPDATE audit SET actor = 'eva' WHERE seq = 3",
            "UPDATE audit SET actor = 'ana' WHERE seq = 3",
            3,
        ),
        ("UPDATE audit SET seq = 99 WHERE seq = 5", "UPDATE audit SET seq = 5 WHERE seq = 99", 5),
        ("UPDATE audit SET seq = 99 WHERE seq = 2", "UPDATE audit SET seq = 2 WHERE seq = 99", 2),
    ] {
        sqlx::query(edit).execute(&mut outside).await.unwrap();
        let report = store.verify_audit(&Chain::Farm(farm()), None).await.unwrap();
        assert_eq!(report.fault.map(|f| f.seq), Some(seq), "{edit}");
        sqlx::query(undo).execute(&mut outside).await.unwrap();
        assert!(store.verify_audit(&Chain::Farm(farm()), None).await.unwrap().intact(), "{undo}");
    }
    sqlx::query("DELETE FROM audit WHERE seq = 5").execute(&mut outside).await.unwrap();
    let report = store.verify_audit(&Chain::Farm(farm()), None).await.unwrap();
    assert_eq!(report.fault.map(|f| f.seq), Some(5), "the head knows how long the chain is");
}

/// The plans that the hot statements must have: an index each, no scan.
#[tokio::test]
async fn the_locks_and_the_outbox_are_found_by_index() {
    let fixture = Fixture::new().await;
    let mut conn = fixture.outside().await;
    for (index, sql) in [
        (
            "commands_open_dose",
            "SELECT request_id FROM commands c WHERE c.farm = 'f' AND c.kind = 'feed_now' AND c.robot = 'r' AND c.state IN ('ACCEPTED', 'UNCERTAIN') AND c.resolved_ms IS NULL",
        ),
        (
            "commands_open_config",
            "SELECT request_id FROM commands c WHERE c.farm = 'f' AND c.kind = 'update_config' AND c.feeder = 'r' AND c.state IN ('ACCEPTED', 'UNCERTAIN') AND c.resolved_ms IS NULL",
        ),
        (
            "commands_open",
            "SELECT request_id FROM commands WHERE farm = 'f' AND agent = 'a' AND epoch = 1 AND ord > 0 AND state IN ('ACCEPTED', 'UNCERTAIN') AND state = 'ACCEPTED' ORDER BY ord",
        ),
        (
            "commands_number",
            "SELECT MAX(number) FROM commands c WHERE c.farm = 'f' AND c.feeder = 'a'",
        ),
        (
            "commands_order",
            "SELECT request_id FROM commands WHERE farm = 'f' AND ord < 9 ORDER BY ord DESC LIMIT 5",
        ),
        (
            "doses_newest",
            "SELECT body FROM doses WHERE farm = 'f' AND (at_ms, dose) < (5, 'x') ORDER BY at_ms DESC, dose DESC LIMIT 3",
        ),
    ] {
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
                .fetch_all(&mut conn)
                .await
                .unwrap();
        let text: String = plan.into_iter().map(|(.., detail)| detail + "\n").collect();
        assert!(text.contains(index) && !text.contains("TEMP B-TREE"), "{sql}\n{text}");
    }
}

/// How fast it goes: `cargo test --release -p pasamanos-server --test store_contract -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn state_changes_per_second() {
    for callers in [1_u32, 8, 64] {
        let fixture = Fixture::new().await;
        let store = Arc::new(fixture.store);
        add_farm(&*store).await;
        let mut first = hello(0);
        first.inventory = inventory(200);
        let epoch = open(&*store, first).await.epoch;
        let (start, seconds, before, cpu) = (Instant::now(), 4, store.commits(), cpu_us());
        let mut set = JoinSet::new();
        for caller in 0..callers {
            let store = Arc::clone(&store);
            set.spawn(async move {
                let feeder = caller + 3;
                let (mut latencies, mut portion) = (Vec::new(), 1_000);
                let mut version = stored_feeder(&*store, feeder).await.version.expect("a version");
                while start.elapsed() < Duration::from_secs(seconds) {
                    portion += 10;
                    let action = Action::UpdateConfig {
                        base: version.config.clone().into(),
                        new: config(portion),
                        fields: FieldSet::all(),
                    };
                    let etag = Some(version.etag.clone());
                    let new = NewCommand { etag, ..new_command(feeder, epoch, action) };
                    let at = Instant::now();
                    let c = accept(&*store, new).await;
                    let mut applied = report(&c, CommandState::Applied);
                    applied.config = Some(observed(portion));
                    let (_, f, _) = settle(&*store, epoch, applied).await;
                    latencies.push(at.elapsed());
                    version = f.version.expect("a version");
                }
                latencies
            });
        }
        let mut latencies: Vec<_> = set.join_all().await.into_iter().flatten().collect();
        let elapsed = start.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let (n, commits) = (latencies.len(), store.commits() - before);
        println!(
            "{callers:3} callers: {:6.0} changes/s (two durable writes each), {:.0} us of CPU each, p50 {:?}, p99 {:?}, {:.1} writes a commit",
            n as f64 / elapsed,
            (cpu_us() - cpu) as f64 / n as f64,
            latencies[n / 2],
            latencies[n * 99 / 100],
            (2 * n) as f64 / commits as f64,
        );
        store.close().await;
    }
}

/// User and system time of this process, us; a tick is 10 ms.
fn cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10_000
}

/// A disk of its own, so small that it fills up.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = TempDir::new().unwrap();
        let mut mount = std::process::Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(dir.path()).status();
        assert!(status.is_ok_and(|s| s.success()), "cannot mount a tmpfs: not root");
        Self(dir)
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts a disk: needs root"]
async fn a_full_disk_refuses_and_heals_without_a_restart() {
    let disk = SmallDisk::mount();
    let store = SqliteStore::open(&file(&disk.0)).await.unwrap();
    let epoch = first_session(&store).await.epoch;
    for round in 0..3 {
        let _ = std::fs::write(disk.filler(), vec![7_u8; 2 << 20]);
        let mut refused = Vec::new();
        for _ in 0..400 {
            let new = hold(1, epoch);
            let start = Instant::now();
            match store.accept(vec![new.clone()], PATIENCE).await {
                Ok(_) => continue,
                Err(AcceptError::Store(StoreError::Unavailable(_)) | AcceptError::NotTaken) => {}
                Err(e) => panic!("{e:?}"),
            }
            assert!(start.elapsed() < Duration::from_millis(2_200), "{:?}", start.elapsed());
            refused.push(new.name);
            if refused.len() == 3 {
                break;
            }
        }
        assert_eq!(refused.len(), 3, "round {round}: the disk did not fill up");
        for name in &refused {
            assert_eq!(store.command(name).await.unwrap(), None, "nothing is left behind");
        }
        std::fs::remove_file(disk.filler()).unwrap();
        let start = Instant::now();
        while store.accept(vec![hold(1, epoch)], PATIENCE).await.is_err() {
            assert!(start.elapsed() < Duration::from_secs(3), "it does not heal");
        }
        for name in &refused {
            assert_eq!(store.command(name).await.unwrap(), None, "nothing comes back");
        }
    }
    assert!(store.verify_audit(&Chain::Farm(farm()), None).await.unwrap().intact());
    let all = store.commands(&farm(), None, &page(5_000, "")).await.unwrap().items;
    let mut numbers: Vec<_> = all.iter().map(|c| c.number).rev().collect();
    numbers.dedup();
    assert_eq!(numbers, (1..=i64::try_from(all.len()).unwrap()).collect::<Vec<_>>());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_chain_tells_of_a_persons_settlement() {
    use pasamanos_proto::model::{Reason, Resolve, Verdict};
    use pasamanos_server::domain::ports::NewResolution;
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let epoch = first_session(store).await.epoch;
    let dose = accept(store, feed(1, epoch)).await;
    store.doubt(std::slice::from_ref(&dose.name), Reason::AgentLost, NOW).await.unwrap();
    let said = NewResolution {
        command: dose.name.clone(),
        request: request(),
        what: Resolve { verdict: Verdict::Fed, fed_mg: Some(900) },
        who: "ana".into(),
        note: "it lies in the tank".into(),
        now_ms: NOW,
    };
    // Said twice, recorded once.
    for _ in 0..2 {
        store.resolve(said.clone()).await.unwrap();
    }
    let mut outside = fixture.outside().await;
    let told: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT subject, actor, body FROM audit WHERE kind = 'resolved' ORDER BY seq",
    )
    .fetch_all(&mut outside)
    .await
    .unwrap();
    assert_eq!(told.len(), 1);
    let (subject, actor, body) = &told[0];
    assert_eq!((subject, actor.as_str()), (&dose.name.to_string(), "ana"));
    for word in ["FED", "900", "it lies in the tank", &said.request.to_string()] {
        assert!(body.contains(word), "{body}");
    }
    finish(fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_farm_undid_is_an_alarm_of_the_farm() {
    use pasamanos_proto::pb;
    use pasamanos_server::domain::ports::Ingest;
    use prost::Message as _;
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let epoch = first_session(store).await.epoch;
    let new = accept(store, update(store, 1, epoch, 2_000).await).await;
    let mut applied = report(&new, CommandState::Applied);
    applied.config = Some(observed(2_000));
    settle(store, epoch, applied).await;
    // Twice the same undoing, each told once.
    for portion_mg in [1_000, 1_000, 2_000, 1_000] {
        ingest(store, epoch, Ingest::Config(feeder_id(1), observed(portion_mg))).await;
    }
    let mut outside = fixture.outside().await;
    let alarms: Vec<(String, i64, Vec<u8>)> =
        sqlx::query_as("SELECT reason, at_ms, body FROM alarms ORDER BY alarm")
            .fetch_all(&mut outside)
            .await
            .unwrap();
    assert_eq!(alarms.len(), 2, "{alarms:?}");
    for (reason, at_ms, body) in alarms {
        assert_eq!((reason.as_str(), at_ms), ("REVERTED_AT_FARM", NOW + 1_000));
        let alarm = pb::AlarmRecord::decode(body.as_slice()).unwrap();
        assert_eq!((alarm.feeder.as_str(), alarm.robot.as_str()), ("feeder-1", "robot-1"));
        let said: Vec<_> = alarm.reason_metadata.iter().map(|(k, v)| (&**k, &**v)).collect();
        let command = new.name.to_string();
        let both = [("displaced", "2"), ("feeder", "feeder-1"), ("version", "1")];
        assert_eq!(said, [[("command", &*command)].as_slice(), &both].concat());
    }
    finish(fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exported_chain_is_checked_without_its_database_and_anchors_it() {
    use pasamanos_server::store::{parse_head, verify_export};
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let epoch = first_session(store).await.epoch;
    let dose = accept(store, feed(1, epoch)).await;
    let chain = Chain::Farm(farm());
    let mut written = Vec::new();
    let report = store.export_audit(&chain, &mut written).await.unwrap();
    assert!(report.intact(), "{report}");
    let mut again = Vec::new();
    store.export_audit(&chain, &mut again).await.unwrap();
    assert_eq!(written, again, "the same chain gives the same bytes");
    assert_eq!(verify_export(&written[..], None).unwrap(), report);
    let text = String::from_utf8(written).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "farm, agent, dose, head: {text}");
    assert!(lines[2].contains(&dose.name.to_string()) && lines[2].contains("\"accepted\""));
    assert!(lines[3].contains("farms/norte") && lines[3].contains(&report.head_hash), "{text}");

    // Whoever edits, removes, adds or cuts is found out.
    for (edited, seq) in [
        (text.replacen("\"ana\"", "\"eva\"", 1), Some(3)),
        ([lines[0], lines[2], lines[3]].join("\n"), Some(2)),
        ([lines[0], lines[1], lines[1], lines[2], lines[3]].join("\n"), Some(3)),
        ([lines[0], lines[1], lines[3]].join("\n"), Some(3)),
        (lines[..3].join("\n"), None),
        (format!("{text}{}\n", lines[0]), None),
        (text.replacen("\"hash\"", "\"hush\"", 1), None),
    ] {
        let found = verify_export(edited.as_bytes(), None);
        assert_eq!(found.ok().map(|r| r.fault.unwrap().seq), seq, "{edited}");
    }

    // A head that was kept: the chain goes on from it, and one that was rewritten does not hold it.
    let kept = parse_head(&format!("{}:{}", report.head_seq, report.head_hash)).unwrap();
    settle(store, epoch, crate::kit::report(&dose, CommandState::Applied)).await;
    let later = store.verify_audit(&chain, Some(kept)).await.unwrap();
    assert!(later.intact() && later.head_seq == 4, "{later}");
    let forged = parse_head(&format!("2:{}", report.head_hash)).unwrap();
    let found = store.verify_audit(&chain, Some(forged)).await.unwrap();
    assert_eq!(found.fault.map(|f| f.seq), Some(2));
    let ahead = parse_head(&format!("9:{}", report.head_hash)).unwrap();
    let found = store.verify_audit(&chain, Some(ahead)).await.unwrap();
    assert_eq!(found.fault.map(|f| (f.seq, f.what)), Some((5, "it is missing")));
    for wrong in ["", "3", "3:ab", "x:00", &format!("3:{}é", &report.head_hash[2..])] {
        assert!(parse_head(wrong).is_err(), "{wrong}");
    }
    finish(fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_platforms_chain_tells_of_every_farm_that_was_added() {
    use pasamanos_server::domain::ports::NewFarm;
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let empty = store.verify_audit(&Chain::Platform, None).await.unwrap();
    assert_eq!((empty.records, empty.head_seq, empty.intact()), (0, 0, true));
    add_farm(store).await;
    // At one time, and one of them again.
    let new = |n: u32| NewFarm {
        id: format!("farm-{n}").parse().unwrap(),
        display_name: "Sur".into(),
        time_zone: "America/Santiago".into(),
        now_ms: NOW,
    };
    together((0..10).map(|n| store.add_farm(new(n % 9))).collect()).await;
    let report = store.verify_audit(&Chain::Platform, None).await.unwrap();
    assert_eq!((report.records, report.head_seq, report.intact()), (10, 10, true), "{report}");
    let mut written = Vec::new();
    store.export_audit(&Chain::Platform, &mut written).await.unwrap();
    let text = String::from_utf8(written).unwrap();
    assert!(text.lines().next().unwrap().contains("farms/norte"), "{text}");
    for n in 0..9 {
        assert_eq!(text.matches(&format!("\"farms/farm-{n}\"")).count(), 1, "{text}");
    }
    // A farm that somebody takes out of the database is missed.
    let mut outside = fixture.outside().await;
    sqlx::query("DELETE FROM platform_audit WHERE seq = 1").execute(&mut outside).await.unwrap();
    let report = store.verify_audit(&Chain::Platform, None).await.unwrap();
    assert_eq!(report.fault.map(|f| f.seq), Some(1));
    finish(fixture).await;
}
