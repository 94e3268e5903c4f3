//! Leases in Redis, for many replicas. Every change is one script that compares epoch and session.
//!
//! Redis counts expiry by its wall clock and may lose keys, so a key is necessary and never
//! sufficient: the holder also judges by its own monotonic clock, and epochs come from the
//! database. A sorted set of deadlines tells which leases ended; keyspace events come seconds late.
//! The scripts touch a lease and the set at once: one Redis, or one with a replica, no cluster.

use std::time::Duration;

use async_trait::async_trait;
use pasamanos_proto::model::AgentName;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{Client, FromRedisValue, IntoConnectionInfo as _, Script, ScriptInvocation};
use tokio::time::timeout;

use crate::domain::ports::{Holder, LeaseError, Leases, Renewal};

/// `pasamanos:lease:{farm}/{agent}` with the names filled in.
const PREFIX: &str = "pasamanos:lease:";
/// Members `{farm}/{agent}`, scores the end of the lease by Redis's clock, ms.
const DEADLINES: &str = "pasamanos:lease-deadlines";
/// The longest that any call takes.
const BOUND: Duration = Duration::from_millis(1_500);

/// KEYS lease, deadlines; ARGV epoch, session, ttl ms, value, member, and 1 if only its own may be
/// extended. Answers 1 held, 2 fenced, 0 lost.
const HOLD: &str = r"
local there = redis.call('GET', KEYS[1])
if there then
  local epoch, session = string.match(there, '^(%d+)/([^/]*)/')
  epoch = tonumber(epoch or 0)
  local mine = tonumber(ARGV[1])
  if epoch > mine or (epoch == mine and session ~= ARGV[2]) then return 2 end
  if epoch < mine and ARGV[6] == '1' then return 0 end
elseif ARGV[6] == '1' then
  return 0
end
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[3])
local now = redis.call('TIME')
redis.call('ZADD', KEYS[2], now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[3], ARGV[5])
return 1";

/// KEYS lease, deadlines; ARGV epoch, session, member.
const RELEASE: &str = r"
local there = redis.call('GET', KEYS[1])
if there and string.sub(there, 1, #ARGV[1] + #ARGV[2] + 2) == ARGV[1] .. '/' .. ARGV[2] .. '/' then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[3])
end
return 1";

/// KEYS deadlines; ARGV prefix, most. Answers the members whose lease is gone; one whose lease
/// lives gets the deadline that it has.
const DUE: &str = r"
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local gone = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  local left = redis.call('PTTL', ARGV[1] .. member)
  if left >= 0 then
    redis.call('ZADD', KEYS[1], now + left + 1, member)
  else
    gone[#gone + 1] = member
  end
end
return gone";

/// KEYS deadlines; ARGV prefix, members. Removes those whose lease is still gone and answers them.
const REMOVE: &str = r"
local removed = {}
for i = 2, #ARGV do
  if redis.call('EXISTS', ARGV[1] .. ARGV[i]) == 0 and redis.call('ZREM', KEYS[1], ARGV[i]) == 1 then
    removed[#removed + 1] = ARGV[i]
  end
end
return removed";

/// Leases in one Redis.
pub struct RedisLeases {
    redis: ConnectionManager,
    hold: Script,
    release: Script,
    due: Script,
    remove: Script,
}

impl RedisLeases {
    /// Leases in the Redis of this URL. Succeeds although Redis does not answer now: it is asked
    /// again with every call.
    ///
    /// # Errors
    /// If the URL is not one of Redis.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let tcp = TcpSettings::default().set_nodelay(true);
        // A black hole must not keep a replica deaf for the kernel's quarter of an hour.
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(Duration::from_secs(20));
        let info = url.into_connection_info()?.set_tcp_settings(tcp);
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(Duration::from_millis(1_200)))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(200))
            .set_pipeline_buffer_size(1_024);
        let redis = ConnectionManager::new_lazy_with_config(Client::open(info)?, config)?;
        let leases = Self {
            redis,
            hold: Script::new(HOLD),
            release: Script::new(RELEASE),
            due: Script::new(DUE),
            remove: Script::new(REMOVE),
        };
        leases.check_policy().await;
        Ok(leases)
    }

    /// Leases are the keys that any other eviction policy throws out first.
    async fn check_policy(&self) {
        let mut redis = self.redis.clone();
        let mut info = redis::cmd("INFO");
        info.arg("memory");
        let info = timeout(BOUND, info.query_async::<String>(&mut redis)).await;
        let Ok(Ok(info)) = info else {
            tracing::warn!("the lease store does not answer yet");
            return;
        };
        let policy = info.lines().find_map(|l| l.strip_prefix("maxmemory_policy:"));
        if policy.is_some_and(|p| p.trim() != "noeviction") {
            tracing::warn!(
                policy,
                "redis may evict leases, and then live farms show as offline: set maxmemory-policy noeviction"
            );
        }
    }

    /// Runs a script; loads it first if this Redis does not have it.
    async fn run<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T, LeaseError> {
        let mut redis = self.redis.clone();
        let answer = timeout(BOUND, call.invoke_async(&mut redis)).await;
        answer.map_err(|e| LeaseError(e.into()))?.map_err(|e| LeaseError(e.into()))
    }

    async fn hold(
        &self,
        agent: &AgentName,
        holder: &Holder,
        ttl: Duration,
        only_own: bool,
    ) -> Result<Renewal, LeaseError> {
        let mut call = self.hold.key(key(agent));
        call.key(DEADLINES)
            .arg(holder.epoch)
            .arg(&holder.session)
            .arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1))
            .arg(value(holder))
            .arg(member(agent))
            .arg(i32::from(only_own));
        match self.run::<i64>(&call).await? {
            1 => Ok(Renewal::Held),
            2 => Ok(Renewal::Fenced),
            _ => Ok(Renewal::Lost),
        }
    }
}

fn member(agent: &AgentName) -> String {
    format!("{}/{}", agent.farm, agent.agent)
}

fn key(agent: &AgentName) -> String {
    format!("{PREFIX}{}", member(agent))
}

fn value(h: &Holder) -> String {
    format!("{}/{}/{}/{}", h.epoch, h.session, h.replica, h.counter)
}

fn parse_value(value: &str) -> Option<Holder> {
    let mut parts = value.split('/');
    let mut next = || parts.next();
    let (epoch, session, replica, counter) = (next()?, next()?, next()?, next()?);
    Some(Holder {
        epoch: epoch.parse().ok()?,
        session: session.into(),
        replica: replica.into(),
        counter: counter.parse().ok()?,
    })
}

fn parse_member(member: &str) -> Option<AgentName> {
    let (farm, agent) = member.split_once('/')?;
    Some(AgentName::new(farm.parse().ok()?, agent.parse().ok()?))
}

#[async_trait]
impl Leases for RedisLeases {
    async fn acquire(
        &self,
        agent: &AgentName,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<Renewal, LeaseError> {
        self.hold(agent, holder, ttl, false).await
    }

    async fn renew(
        &self,
        agent: &AgentName,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<Renewal, LeaseError> {
        self.hold(agent, holder, ttl, true).await
    }

    async fn release(&self, agent: &AgentName, holder: &Holder) -> Result<(), LeaseError> {
        let mut call = self.release.key(key(agent));
        call.key(DEADLINES).arg(holder.epoch).arg(&holder.session).arg(member(agent));
        self.run::<i64>(&call).await.map(drop)
    }

    async fn read(&self, agent: &AgentName) -> Result<Option<Holder>, LeaseError> {
        let mut redis = self.redis.clone();
        let mut get = redis::cmd("GET");
        get.arg(key(agent));
        let answer = timeout(BOUND, get.query_async::<Option<String>>(&mut redis)).await;
        let value = answer.map_err(|e| LeaseError(e.into()))?.map_err(|e| LeaseError(e.into()))?;
        // What we did not write is no lease of ours.
        Ok(value.as_deref().and_then(parse_value))
    }

    /// In two steps, so that an answer that gets lost loses no lease's end: asked again, it is told
    /// again.
    async fn sweep(&self) -> Result<Vec<AgentName>, LeaseError> {
        const MOST: i64 = 1_000;
        let mut due = self.due.key(DEADLINES);
        due.arg(PREFIX).arg(MOST);
        let gone: Vec<String> = self.run(&due).await?;
        if gone.is_empty() {
            return Ok(Vec::new());
        }
        let mut remove = self.remove.key(DEADLINES);
        remove.arg(PREFIX);
        for member in &gone {
            remove.arg(member);
        }
        let removed: Vec<String> = self.run(&remove).await.unwrap_or(gone);
        Ok(removed.iter().filter_map(|m| parse_member(m)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_has_the_names_filled_in_and_no_braces() {
        let agent = parse_member("norte/agent-1");
        assert_eq!(agent.as_ref().map(key).as_deref(), Some("pasamanos:lease:norte/agent-1"));
        assert_eq!(agent.as_ref().map(member).as_deref(), Some("norte/agent-1"));
    }

    #[test]
    fn a_value_reads_back() {
        let holder = Holder { epoch: 12, session: "s1".into(), replica: "r1".into(), counter: 345 };
        assert_eq!(value(&holder), "12/s1/r1/345");
        assert_eq!(parse_value("12/s1/r1/345"), Some(holder));
        assert_eq!(parse_value("online"), None);
    }
}
