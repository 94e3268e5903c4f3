//! One open connection to an OPC UA server. Every await has an end; nothing here reconnects. When it
//! is lost it is closed, thrown away, and a new one is made from nothing: the client library's own
//! reconnect hangs, forgets subscriptions and keeps a stale namespace table.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use opcua::client::{
    ClientBuilder, IdentityToken, Session, SessionPollResult, SubscriptionActivity,
};
use opcua::crypto::SecurityPolicy;
use opcua::types::{
    AttributeId, DataValue, MessageSecurityMode, NodeId, ReadValueId, StatusCode,
    TimestampsToReturn, VariableId, Variant, WriteValue,
};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::codes;
use crate::config::tags::Address;
use crate::config::{OpcUa, Security};
use crate::driver::DriverError;

/// How long any step of connecting may take; the library bounds neither TCP nor the first exchange.
pub(super) const STEP: Duration = Duration::from_secs(3);
/// Beyond its own time-out a request is given up for good.
const GRACE: Duration = Duration::from_millis(300);
/// More nodes are never asked for at once, whatever the server allows.
pub(super) const MAX_NODES: usize = 200;

/// An open connection.
pub(super) struct Live {
    pub(super) session: Arc<Session>,
    pub(super) nodes: HashMap<Address, NodeId>,
    limit: Duration,
    pub(super) nodes_at_once: usize,
    lost: watch::Receiver<Option<StatusCode>>,
    /// Changes with everything that the server publishes.
    pub(super) published: watch::Receiver<()>,
    pump: AbortOnDropHandle<()>,
}

/// Why no connection could be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenError {
    /// For an installer.
    pub detail: String,
    /// It will not heal by itself.
    pub configuration: bool,
}

impl OpenError {
    pub(super) fn status(code: StatusCode, what: &str) -> Self {
        let configuration = codes::is_configuration(code);
        let advice =
            if configuration { format!("; {}", codes::advice(code)) } else { String::new() };
        Self { detail: format!("{what}: {code}{advice}"), configuration }
    }

    pub(super) fn silent(what: &str) -> Self {
        Self { detail: format!("{what}: no answer"), configuration: false }
    }

    pub(super) fn config(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), configuration: true }
    }
}

impl Live {
    /// Connects, logs on and finds every node by its namespace's URI.
    pub async fn open(
        of: &OpcUa,
        pki: &Path,
        addresses: &[Address],
        tasks: &TaskTracker,
    ) -> Result<Self, OpenError> {
        let identity = identity(of).await?;
        let (policy, mode) = match of.security {
            Security::None => (SecurityPolicy::None, MessageSecurityMode::None),
            Security::Basic256Sha256 => {
                (SecurityPolicy::Basic256Sha256, MessageSecurityMode::SignAndEncrypt)
            }
        };
        let (builder, secured) = (builder(of, pki), of.security != Security::None);
        // A first start makes a key, which takes a while.
        let dir = pki.to_owned();
        let made = tasks.spawn_blocking(move || {
            private_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            builder.create_sample_keypair(secured).client().map_err(|e| e.join("; "))
        });
        let mut client = made
            .await
            .map_err(|_| OpenError::silent("making the client"))?
            .map_err(OpenError::config)?;
        let endpoint = (of.url.as_str(), policy.to_str(), mode);
        let matched = timeout(STEP, client.connect_to_matching_endpoint(endpoint, identity)).await;
        let (session, events) = match matched {
            Err(_) => return Err(OpenError::silent("asking for its endpoints")),
            Ok(Err(e)) if e.status() == StatusCode::BadNotFound => {
                return Err(OpenError::config(format!("{e}; check url and security")));
            }
            Ok(Err(e)) => return Err(OpenError::status(e.status(), "asking for its endpoints")),
            Ok(Ok(matched)) => matched,
        };
        let (loss, mut lost) = watch::channel(None);
        let (publish, published) = watch::channel(());
        let mut events = events.enter().boxed();
        let pump = AbortOnDropHandle::new(tasks.spawn(async move {
            let code = loop {
                match events.next().await {
                    None => break StatusCode::BadConnectionClosed,
                    Some(
                        Err(code)
                        | Ok(
                            SessionPollResult::ConnectionLost(code)
                            | SessionPollResult::ReconnectFailed(code),
                        ),
                    ) => break code,
                    Some(Ok(SessionPollResult::Subscription(SubscriptionActivity::Publish))) => {
                        publish.send_replace(());
                    }
                    Some(Ok(_)) => {}
                }
            };
            loss.send_replace(Some(code));
        }));
        let connected = tokio::select! {
            connected = timeout(STEP, session.wait_for_connection()) => connected.is_ok_and(|up| up),
            _ = lost.changed() => false,
        };
        if !connected {
            return Err(match *lost.borrow() {
                Some(code) => OpenError::status(code, "logging on"),
                None => OpenError::silent("logging on"),
            });
        }
        let (nodes, nodes_at_once) = (HashMap::new(), MAX_NODES);
        let limit = of.timeout;
        let mut live = Self { session, nodes, limit, nodes_at_once, lost, published, pump };
        match live.resolve(addresses).await {
            Ok(()) => Ok(live),
            Err(e) => {
                live.close().await;
                Err(e)
            }
        }
    }

    /// Reads these tags from the device, not from the server's cache.
    pub async fn read(&self, addresses: &[&Address]) -> Result<Vec<DataValue>, DriverError> {
        self.read_attribute(addresses, AttributeId::Value).await
    }

    /// Reads an attribute of these tags.
    pub async fn read_attribute(
        &self,
        addresses: &[&Address],
        attribute: AttributeId,
    ) -> Result<Vec<DataValue>, DriverError> {
        let mut out = Vec::with_capacity(addresses.len());
        for some in addresses.chunks(self.nodes_at_once) {
            let nodes: Vec<_> =
                some.iter().map(|a| ReadValueId::new(self.node(a), attribute)).collect();
            let request = self.session.read(&nodes, TimestampsToReturn::Source, 0.0);
            let values = timeout(self.limit + GRACE, request)
                .await
                .map_err(|_| DriverError::NotConnected)?
                .map_err(|e| codes::of_read(e.status()))?;
            if values.len() != some.len() {
                return Err(DriverError::BadData("fewer values than asked for".into()));
            }
            out.extend(values);
        }
        Ok(out)
    }

    /// Writes these tags in one call. Their order within it is undefined and some may be refused:
    /// only a single one is refused for certain.
    pub async fn write(&self, values: Vec<(&Address, Variant)>) -> Result<(), DriverError> {
        if self.lost.borrow().is_some() {
            return Err(DriverError::NotConnected);
        }
        // Value only: a timestamp makes some servers refuse.
        let nodes: Vec<_> =
            values.into_iter().map(|(a, v)| WriteValue::value_attr(self.node(a), v)).collect();
        let results = timeout(self.limit + GRACE, self.session.write(&nodes))
            .await
            .map_err(|_| DriverError::Ambiguous("no reply to a write".into()))?
            .map_err(|e| codes::of_write(e.status(), "to a write"))?;
        let bad: Vec<_> = results.iter().filter(|code| !code.is_good()).collect();
        match (bad.first(), bad.len() == nodes.len() && results.len() == nodes.len()) {
            (None, _) if results.len() == nodes.len() => Ok(()),
            (Some(code), true) => Err(codes::of_write(**code, "to a write")),
            _ => Err(DriverError::Ambiguous("some of several writes were refused".into())),
        }
    }

    /// Asks whether anybody is there.
    pub async fn ping(&self) -> Result<(), DriverError> {
        let node: NodeId = VariableId::Server_ServerStatus_State.into();
        let asked = [ReadValueId::new_value(node)];
        let request = self.session.read(&asked, TimestampsToReturn::Neither, 0.0);
        match timeout(self.limit + GRACE, request).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(DriverError::NotConnected),
        }
    }

    pub(super) fn node(&self, address: &Address) -> NodeId {
        self.nodes.get(address).cloned().unwrap_or_else(NodeId::null)
    }

    /// Returns when the connection is lost, with why.
    pub async fn lost(&self) -> StatusCode {
        let mut lost = self.lost.clone();
        let code = lost.wait_for(Option::is_some).await.map(|code| *code);
        code.ok().flatten().unwrap_or(StatusCode::BadConnectionClosed)
    }

    /// Says goodbye, so that the server frees the session, and ends the pump.
    pub async fn close(&self) {
        if self.lost.borrow().is_none() {
            // It may well be dead: then nobody hears the goodbye.
            let _ = timeout(Duration::from_secs(1), self.session.disconnect()).await;
        }
        self.pump.abort();
    }
}

fn builder(of: &OpcUa, pki: &Path) -> ClientBuilder {
    ClientBuilder::new()
        .application_name("pasamanos-agent")
        .application_uri("urn:pasamanos:agent")
        .product_uri("urn:pasamanos:agent")
        .session_name("pasamanos-agent")
        .pki_dir(pki)
        .trust_server_certs(false)
        .verify_server_certs(true)
        .session_retry_limit(0)
        .request_timeout(of.timeout)
        // The server holds a publish request until it has something to say.
        .publish_timeout(Duration::from_secs(30))
        .keep_alive_interval(Duration::from_secs(5))
        .max_failed_keep_alive_count(2)
        .session_timeout(30_000)
}

/// Makes a directory that only we may read: the private key will be in it.
fn private_dir(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

async fn identity(of: &OpcUa) -> Result<IdentityToken, OpenError> {
    let (Some(user), Some(file)) = (&of.user, &of.password_file) else {
        return Ok(IdentityToken::Anonymous);
    };
    let password = tokio::fs::read_to_string(file).await.map_err(|e| {
        OpenError::config(format!("password_file {} cannot be read: {e}", file.display()))
    })?;
    Ok(IdentityToken::new_user_name(user, password.trim_end_matches(['\r', '\n'])))
}
