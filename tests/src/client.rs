//! A user's view of the server, over gRPC.

use std::time::Duration;

use anyhow::Context as _;
use pasamanos_proto::pb::feeder_service_client::FeederServiceClient;
use pasamanos_proto::pb::status_service_client::StatusServiceClient;
use pasamanos_proto::pb::{self, CommandState, PresenceState};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::wait_for;

/// The farm of every test.
pub const FARM: &str = "farms/norte";

/// Both services on one connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// Feeders and commands.
    pub feeders: FeederServiceClient<Channel>,
    /// Status.
    pub status: StatusServiceClient<Channel>,
}

/// A UUID for one intention.
pub fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The stable reason of a refusal; empty if it has none.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|i| i.reason).unwrap_or_default()
}

/// A metadatum of a refusal.
pub fn metadata(status: &Status, key: &str) -> Option<String> {
    status.get_details_error_info()?.metadata.remove(key)
}

/// The fields that a refusal names.
pub fn fields(status: &Status) -> Vec<String> {
    let bad = status.get_details_bad_request();
    bad.map(|b| b.field_violations.into_iter().map(|v| v.field).collect()).unwrap_or_default()
}

/// Checks code and reason of a refusal.
///
/// # Errors
/// If it was not refused, or otherwise.
pub fn expect<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    code: Code,
    expected: &str,
) -> anyhow::Result<Status> {
    match answer {
        Err(s) if s.code() == code && reason(&s) == expected => Ok(s),
        other => anyhow::bail!("expected {code:?} {expected}, got {other:?}"),
    }
}

impl Client {
    /// Connects when first used.
    ///
    /// # Errors
    /// If the address is none.
    pub fn new(addr: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{addr}"))?
            .connect_timeout(Duration::from_secs(2))
            .connect_lazy();
        Ok(Self {
            feeders: FeederServiceClient::new(channel.clone()),
            status: StatusServiceClient::new(channel),
        })
    }

    /// One feeder of the farm.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn feeder(&self, id: &str) -> Result<pb::Feeder, Status> {
        let name = format!("{FARM}/feeders/{id}");
        let answer = self.feeders.clone().get_feeder(pb::GetFeederRequest { name }).await?;
        answer.into_inner().feeder.ok_or_else(|| Status::internal("no feeder"))
    }

    /// The whole farm.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn farm(&self) -> Result<pb::FarmStatus, Status> {
        let name = FARM.to_owned();
        let answer = self.status.clone().get_farm_status(pb::GetFarmStatusRequest { name }).await?;
        answer.into_inner().status.ok_or_else(|| Status::internal("no farm"))
    }

    /// A request that sets a feeder's portion, based on its current config.
    ///
    /// # Errors
    /// If the feeder cannot be read.
    pub async fn portion_request(
        &self,
        id: &str,
        portion_mg: i32,
    ) -> Result<pb::UpdateFeederConfigRequest, Status> {
        let feeder = self.feeder(id).await?;
        Ok(pb::UpdateFeederConfigRequest {
            name: feeder.name,
            config: Some(pb::FeederConfig { portion_mg: Some(portion_mg), ..Default::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["portion_mg".into()] }),
            etag: feeder.etag,
            request_id: request_id(),
            ..Default::default()
        })
    }

    /// Sets a feeder's portion and waits for the outcome.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn set_portion(&self, id: &str, portion_mg: i32) -> Result<pb::Command, Status> {
        let request = self.portion_request(id, portion_mg).await?;
        let answer = self.feeders.clone().update_feeder_config(request).await?;
        answer.into_inner().command.ok_or_else(|| Status::internal("no command"))
    }

    /// Feeds now and waits for the outcome, or until the dose runs.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn feed_now(&self, id: &str, portion_mg: i32) -> Result<pb::Command, Status> {
        let request = pb::FeedNowRequest {
            name: format!("{FARM}/feeders/{id}"),
            portion_mg: Some(portion_mg),
            request_id: request_id(),
            ..Default::default()
        };
        let answer = self.feeders.clone().feed_now(request).await?;
        answer.into_inner().command.ok_or_else(|| Status::internal("no command"))
    }

    /// Holds a feeder.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn hold(&self, id: &str) -> Result<pb::Command, Status> {
        let name = format!("{FARM}/feeders/{id}");
        let request =
            pb::HoldFeederRequest { name, request_id: request_id(), ..Default::default() };
        let answer = self.feeders.clone().hold_feeder(request).await?;
        answer.into_inner().command.ok_or_else(|| Status::internal("no command"))
    }

    /// Resumes a feeder.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn resume(&self, id: &str) -> Result<pb::Command, Status> {
        let name = format!("{FARM}/feeders/{id}");
        let request =
            pb::ResumeFeederRequest { name, request_id: request_id(), ..Default::default() };
        let answer = self.feeders.clone().resume_feeder(request).await?;
        answer.into_inner().command.ok_or_else(|| Status::internal("no command"))
    }

    /// One command.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn command(&self, name: &str) -> Result<pb::Command, Status> {
        let request = pb::GetCommandRequest { name: name.to_owned() };
        let answer = self.feeders.clone().get_command(request).await?;
        answer.into_inner().command.ok_or_else(|| Status::internal("no command"))
    }

    /// The versions of a feeder's config, newest first.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn versions(&self, id: &str) -> Result<Vec<pb::ConfigVersion>, Status> {
        let parent = format!("{FARM}/feeders/{id}");
        let request = pb::ListConfigVersionsRequest { parent, ..Default::default() };
        Ok(self.feeders.clone().list_config_versions(request).await?.into_inner().versions)
    }

    /// Every dose of the history, newest first.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn doses(&self) -> Result<Vec<pb::Dose>, Status> {
        let request =
            pb::ListDosesRequest { parent: FARM.into(), page_size: 1_000, ..Default::default() };
        Ok(self.status.clone().list_doses(request).await?.into_inner().doses)
    }

    /// Every dose of the history, however many pages they are, newest first.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn all_doses(&self) -> Result<Vec<pb::Dose>, Status> {
        let mut request =
            pb::ListDosesRequest { parent: FARM.into(), page_size: 1_000, ..Default::default() };
        let mut doses = Vec::new();
        loop {
            let page = self.status.clone().list_doses(request.clone()).await?.into_inner();
            doses.extend(page.doses);
            if page.next_page_token.is_empty() {
                return Ok(doses);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Every command, newest first.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn commands(&self) -> Result<Vec<pb::Command>, Status> {
        let request =
            pb::ListCommandsRequest { parent: FARM.into(), page_size: 500, ..Default::default() };
        Ok(self.feeders.clone().list_commands(request).await?.into_inner().commands)
    }

    /// Waits until the farm's agent shows this presence.
    ///
    /// # Errors
    /// If it does not in time.
    pub async fn wait_presence(
        &self,
        presence: PresenceState,
        within: Duration,
    ) -> anyhow::Result<pb::FarmStatus> {
        wait_for(&format!("presence {presence:?}"), within, || async {
            let farm = self.farm().await?;
            match farm.agents.first().map(pb::Agent::presence) {
                Some(is) if is == presence => Ok(farm),
                other => Err(Status::unavailable(format!("{other:?}"))),
            }
        })
        .await
    }

    /// Waits until a feeder is as the test wants it.
    ///
    /// # Errors
    /// If it is not in time.
    pub async fn wait_feeder(
        &self,
        id: &str,
        what: &str,
        within: Duration,
        is: impl Fn(&pb::Feeder) -> bool,
    ) -> anyhow::Result<pb::Feeder> {
        wait_for(&format!("{id}: {what}"), within, || async {
            let feeder = self.feeder(id).await?;
            if is(&feeder) { Ok(feeder) } else { Err(Status::unavailable(format!("{feeder:?}"))) }
        })
        .await
    }

    /// Waits until a command has an end.
    ///
    /// # Errors
    /// If it has none in time.
    pub async fn wait_settled(&self, name: &str, within: Duration) -> anyhow::Result<pb::Command> {
        wait_for(&format!("{name} settled"), within, || async {
            let command = self.command(name).await?;
            let open = [CommandState::Accepted, CommandState::Sent, CommandState::Executing];
            if open.contains(&command.state()) {
                return Err(Status::unavailable(format!("{:?}", command.state())));
            }
            Ok(command)
        })
        .await
    }
}

/// The farm's first feeder by name.
///
/// # Errors
/// If there is none.
pub fn first_feeder(farm: &pb::FarmStatus) -> anyhow::Result<String> {
    let name = farm.feeders.first().context("no feeders")?.name.clone();
    Ok(name.rsplit('/').next().unwrap_or_default().to_owned())
}
