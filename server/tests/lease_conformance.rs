//! What every lease store must do: one suite, run in process and on a Redis of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on says so by ending; it measures real time"
)]

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use pasamanos_proto::model::AgentName;
use pasamanos_server::domain::ports::{Holder, Leases, Renewal};
use pasamanos_server::lease::{MemoryLeases, RedisLeases};
use tokio::process::{Child, Command};
use tokio::time::sleep;

const TTL: Duration = Duration::from_secs(25);
const SHORT: Duration = Duration::from_millis(300);

fn agent(n: u32) -> AgentName {
    format!("farms/norte/agents/agent-{n}").parse().unwrap()
}

fn holder(epoch: i64, session: &str) -> Holder {
    Holder { epoch, session: session.into(), replica: "replica-1".into(), counter: 1 }
}

// The suite.

async fn acquired_read_and_renewed(leases: &dyn Leases) {
    let mut own = holder(3, "s3");
    assert_eq!(leases.read(&agent(1)).await.unwrap(), None);
    assert_eq!(leases.renew(&agent(1), &own, TTL).await.unwrap(), Renewal::Lost);
    assert_eq!(leases.acquire(&agent(1), &own, TTL).await.unwrap(), Renewal::Held);
    assert_eq!(leases.read(&agent(1)).await.unwrap(), Some(own.clone()));
    own.counter = 2;
    assert_eq!(leases.renew(&agent(1), &own, TTL).await.unwrap(), Renewal::Held);
    assert_eq!(leases.read(&agent(1)).await.unwrap(), Some(own.clone()), "the counter moves");
    assert_eq!(leases.acquire(&agent(1), &own, TTL).await.unwrap(), Renewal::Held, "its own again");
    assert_eq!(leases.read(&agent(2)).await.unwrap(), None, "another agent's is another");
}

async fn a_higher_epoch_takes_over(leases: &dyn Leases) {
    let (old, new) = (holder(9, "old"), holder(10, "new"));
    leases.acquire(&agent(1), &old, TTL).await.unwrap();
    assert_eq!(leases.renew(&agent(1), &new, TTL).await.unwrap(), Renewal::Lost);
    assert_eq!(leases.acquire(&agent(1), &new, TTL).await.unwrap(), Renewal::Held);
    assert_eq!(leases.renew(&agent(1), &old, TTL).await.unwrap(), Renewal::Fenced);
    assert_eq!(leases.acquire(&agent(1), &old, TTL).await.unwrap(), Renewal::Fenced);
    leases.release(&agent(1), &old).await.unwrap();
    assert_eq!(leases.read(&agent(1)).await.unwrap(), Some(new), "a stale release deletes nothing");
}

async fn one_epoch_has_one_session(leases: &dyn Leases) {
    leases.acquire(&agent(1), &holder(4, "a"), TTL).await.unwrap();
    let other = holder(4, "ab");
    assert_eq!(leases.acquire(&agent(1), &other, TTL).await.unwrap(), Renewal::Fenced);
    assert_eq!(leases.renew(&agent(1), &other, TTL).await.unwrap(), Renewal::Fenced);
    leases.release(&agent(1), &other).await.unwrap();
    assert_eq!(leases.read(&agent(1)).await.unwrap(), Some(holder(4, "a")));
}

async fn a_release_ends_it_at_once_and_silently(leases: &dyn Leases) {
    let own = holder(1, "s1");
    leases.acquire(&agent(1), &own, SHORT).await.unwrap();
    leases.release(&agent(1), &own).await.unwrap();
    assert_eq!(leases.read(&agent(1)).await.unwrap(), None);
    assert_eq!(leases.renew(&agent(1), &own, TTL).await.unwrap(), Renewal::Lost);
    sleep(2 * SHORT).await;
    assert_eq!(leases.sweep().await.unwrap(), [], "whoever released it knows");
    // It may be taken again, by the same session too: a frame may cross with the goodbye.
    assert_eq!(leases.acquire(&agent(1), &own, TTL).await.unwrap(), Renewal::Held);
}

async fn silence_ends_it_and_the_sweep_tells_once(leases: &dyn Leases) {
    let own = holder(1, "s1");
    leases.acquire(&agent(1), &own, SHORT).await.unwrap();
    leases.acquire(&agent(2), &own, TTL).await.unwrap();
    assert_eq!(leases.sweep().await.unwrap(), []);
    sleep(SHORT + Duration::from_millis(50)).await;
    assert_eq!(leases.read(&agent(1)).await.unwrap(), None);
    assert_eq!(
        leases.renew(&agent(1), &own, TTL).await.unwrap(),
        Renewal::Lost,
        "no way back by renewal"
    );
    assert_eq!(leases.sweep().await.unwrap(), [agent(1)]);
    assert_eq!(leases.sweep().await.unwrap(), [], "once");
    assert_eq!(
        leases.acquire(&agent(1), &own, TTL).await.unwrap(),
        Renewal::Held,
        "lost, taken again"
    );
}

async fn a_renewed_lease_is_never_swept(leases: &dyn Leases) {
    let own = holder(1, "s1");
    leases.acquire(&agent(1), &own, SHORT).await.unwrap();
    for _ in 0..8 {
        sleep(SHORT / 3).await;
        assert_eq!(leases.renew(&agent(1), &own, SHORT).await.unwrap(), Renewal::Held);
        assert_eq!(leases.sweep().await.unwrap(), []);
    }
    // One that ended and was taken again before anybody looked is alive.
    sleep(2 * SHORT).await;
    leases.acquire(&agent(1), &own, TTL).await.unwrap();
    assert_eq!(leases.sweep().await.unwrap(), []);
}

async fn of_many_the_highest_epoch_wins(leases: &dyn Leases) {
    let (agent, sessions) = (agent(1), (1..=50).map(|e| holder(e, &format!("s{e}"))));
    let sessions: Vec<_> = sessions.collect();
    let calls = sessions.iter().map(|h| leases.acquire(&agent, h, TTL));
    let answers = futures_util::future::join_all(calls).await;
    assert!(matches!(answers.last(), Some(Ok(Renewal::Held))));
    assert_eq!(leases.read(&agent).await.unwrap(), sessions.last().cloned());
    let calls = sessions.iter().map(|h| leases.renew(&agent, h, TTL));
    let held = futures_util::future::join_all(calls)
        .await
        .into_iter()
        .filter(|r| matches!(r, Ok(Renewal::Held)));
    assert_eq!(held.count(), 1, "one holds it");
}

async fn many_end_together(leases: &dyn Leases) {
    for n in 1..=300 {
        leases.acquire(&agent(n), &holder(1, "s1"), SHORT).await.unwrap();
    }
    sleep(3 * SHORT).await;
    let mut ended = leases.sweep().await.unwrap();
    ended.extend(leases.sweep().await.unwrap());
    ended.sort_unstable();
    ended.dedup();
    assert_eq!(ended.len(), 300);
}

macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod in_process {
            $(
                #[tokio::test(start_paused = true)]
                async fn $test() {
                    super::$test(&super::MemoryLeases::default()).await;
                }
            )+
        }
        mod on_redis {
            $(
                #[tokio::test]
                async fn $test() {
                    let redis = super::Redis::start().await;
                    super::$test(&redis.leases().await).await;
                }
            )+
        }
    };
}

on_both!(
    acquired_read_and_renewed,
    a_higher_epoch_takes_over,
    one_epoch_has_one_session,
    a_release_ends_it_at_once_and_silently,
    silence_ends_it_and_the_sweep_tells_once,
    a_renewed_lease_is_never_swept,
    of_many_the_highest_epoch_wins,
    many_end_together,
);

// What only an outside store can do: fail.

/// A Redis of this test's own; it dies with it.
struct Redis {
    port: u16,
    child: Child,
}

impl Redis {
    async fn start() -> Self {
        // Freed and taken again at once; each test asks the kernel for its own.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let redis = Self { port, child: Self::spawn(port) };
        redis.answers().await;
        redis
    }

    fn spawn(port: u16) -> Child {
        const BINARY: &str = "/usr/bin/redis-server";
        assert!(Path::new(BINARY).exists(), "{BINARY} is missing: run make deps");
        Command::new(BINARY)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "no", "--daemonize", "no"])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis starts")
    }

    async fn answers(&self) {
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return;
            }
            sleep(Duration::from_millis(25)).await;
        }
        panic!("redis does not answer on port {}", self.port);
    }

    async fn leases(&self) -> RedisLeases {
        let url = format!("redis://127.0.0.1:{}/", self.port);
        RedisLeases::connect(&url).await.expect("a url")
    }

    async fn run(&self, args: &[&str]) -> redis::Value {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).unwrap();
        let mut conn = client.get_multiplexed_async_connection().await.unwrap();
        let mut cmd = redis::cmd(args[0]);
        for arg in &args[1..] {
            cmd.arg(*arg);
        }
        cmd.query_async(&mut conn).await.unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let status = std::process::Command::new("kill").args([name, &pid]).status();
        assert!(status.is_ok_and(|s| s.success()));
    }
}

/// Tries until it holds: how long that took.
async fn held_again(leases: &dyn Leases, own: &Holder) -> Duration {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        if matches!(leases.acquire(&agent(1), own, TTL).await, Ok(Renewal::Held)) {
            return start.elapsed();
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("not held again within 5 s");
}

async fn every_call_fails_in_time(leases: &dyn Leases, own: &Holder) {
    let start = Instant::now();
    assert!(leases.acquire(&agent(1), own, TTL).await.is_err());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let (a, start) = (agent(1), Instant::now());
    let (renewed, released, read, swept) = tokio::join!(
        leases.renew(&a, own, TTL),
        leases.release(&a, own),
        leases.read(&a),
        leases.sweep(),
    );
    assert!(renewed.is_err() && released.is_err() && read.is_err() && swept.is_err());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_flushed_redis_loses_leases_and_nothing_else() {
    let redis = Redis::start().await;
    let leases = redis.leases().await;
    let own = holder(5, "s5");
    leases.acquire(&agent(1), &own, TTL).await.unwrap();
    redis.run(&["FLUSHALL"]).await;
    // The scripts are gone too with this one.
    redis.run(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(leases.read(&agent(1)).await.unwrap(), None);
    assert_eq!(leases.renew(&agent(1), &own, TTL).await.unwrap(), Renewal::Lost);
    assert_eq!(leases.acquire(&agent(1), &own, TTL).await.unwrap(), Renewal::Held);
    assert_eq!(leases.sweep().await.unwrap(), []);
}

#[tokio::test]
async fn a_killed_redis_is_told_in_time_and_comes_back_empty() {
    let mut redis = Redis::start().await;
    let leases = redis.leases().await;
    let own = holder(5, "s5");
    leases.acquire(&agent(1), &own, TTL).await.unwrap();
    redis.child.kill().await.unwrap();
    every_call_fails_in_time(&leases, &own).await;
    redis.child = Redis::spawn(redis.port);
    redis.answers().await;
    let took = held_again(&leases, &own).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(leases.renew(&agent(1), &own, TTL).await.unwrap(), Renewal::Held);
}

#[tokio::test]
async fn a_frozen_redis_is_told_in_time() {
    let redis = Redis::start().await;
    let leases = redis.leases().await;
    let own = holder(5, "s5");
    leases.acquire(&agent(1), &own, TTL).await.unwrap();
    redis.signal("-STOP");
    every_call_fails_in_time(&leases, &own).await;
    redis.signal("-CONT");
    let took = held_again(&leases, &own).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_redis_that_is_not_there_yet_is_asked_again() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = Instant::now();
    let leases = RedisLeases::connect(&format!("redis://127.0.0.1:{port}/")).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let own = holder(1, "s1");
    assert!(leases.acquire(&agent(1), &own, TTL).await.is_err());
    let redis = Redis { port, child: Redis::spawn(port) };
    redis.answers().await;
    held_again(&leases, &own).await;
}

#[tokio::test]
async fn a_full_redis_refuses_and_keeps_what_is_there() {
    let redis = Redis::start().await;
    let leases = redis.leases().await;
    let own = holder(1, "s1");
    leases.acquire(&agent(1), &own, TTL).await.unwrap();
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert!(leases.acquire(&agent(2), &own, TTL).await.is_err());
    assert_eq!(leases.read(&agent(1)).await.unwrap(), Some(own.clone()));
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(leases.acquire(&agent(2), &own, TTL).await.unwrap(), Renewal::Held);
}

#[tokio::test]
async fn the_key_is_the_promised_one() {
    let redis = Redis::start().await;
    let leases = redis.leases().await;
    leases.acquire(&agent(1), &holder(12, "s12"), TTL).await.unwrap();
    let key = "pasamanos:lease:norte/agent-1";
    let value = redis.run(&["GET", key]).await;
    assert_eq!(value, redis::Value::BulkString(b"12/s12/replica-1/1".to_vec()));
    let redis::Value::Int(left) = redis.run(&["PTTL", key]).await else { panic!("a number") };
    assert!((24_000..=25_000).contains(&left), "{left}");
    // Deleted by hand, it is offline to everybody: the sweep tells at the deadline it had.
    redis.run(&["DEL", key]).await;
    assert_eq!(leases.read(&agent(1)).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_not_a_url_is_refused_at_once() {
    assert!(RedisLeases::connect("http://example.org").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn in_process_a_lease_lives_to_the_millisecond() {
    let (leases, own) = (MemoryLeases::default(), holder(1, "s1"));
    leases.acquire(&agent(1), &own, TTL).await.unwrap();
    tokio::time::advance(Duration::from_millis(24_999)).await;
    assert!(leases.read(&agent(1)).await.unwrap().is_some());
    assert_eq!(leases.sweep().await.unwrap(), []);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(leases.read(&agent(1)).await.unwrap().is_none());
    assert_eq!(leases.sweep().await.unwrap(), [agent(1)]);
}
