//! `FeederService`: read the request, ask the use case, answer.

use std::sync::Arc;

use pasamanos_proto::model::{
    CommandName, FarmId, FeederId, FeederName, Invalid, Mutation, PageRequest, page_token,
};
use pasamanos_proto::pb;
use pasamanos_proto::pb::feeder_service_server::FeederService;
use tonic::{Request, Response, Status};

use super::caller::caller;
use super::status::status;
use crate::control::{Answer, Control};
use crate::domain::Error;

/// The service over the use cases.
#[derive(Clone)]
pub struct Feeders(pub Arc<Control>);

/// The body of a request for its hash: without what may differ between two tries.
macro_rules! body {
    ($message:expr) => {{
        let mut body = $message.clone();
        body.request_id.clear();
        body.validate_only = false;
        body
    }};
}

/// A mutating rpc of one feeder: parse, ask, answer.
macro_rules! mutation {
    ($self:ident, $request:ident, $rpc:literal, $ask:ident, $response:ident) => {{
        let caller = caller($request.metadata(), $rpc, &body!($request.get_ref()));
        let asked = Mutation::try_from($request.into_inner()).map_err(invalid)?;
        let Answer { command, feeder, preview } =
            $self.0.$ask(asked, caller).await.map_err(status)?;
        Ok(Response::new(pb::$response { command, feeder, preview: Some(preview) }))
    }};
}

fn invalid(e: Invalid) -> Status {
    status(e.into())
}

fn parse_name<T: std::str::FromStr<Err = Invalid>>(text: &str, field: &str) -> Result<T, Status> {
    text.parse().map_err(|e: Invalid| invalid(e.under(field)))
}

/// Reads `farms/{farm}` of a list.
pub(super) fn parent(text: &str) -> Result<FarmId, Status> {
    FarmId::from_name(text).map_err(|e| invalid(e.under("parent")))
}

/// Reads a list's optional feeder filter, of the same farm.
pub(super) fn filter(farm: &FarmId, text: &str) -> Result<Option<FeederId>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let name: FeederName = parse_name(text, "feeder")?;
    if name.farm != *farm {
        return Err(invalid(Invalid::field("feeder", "must be of the parent farm")));
    }
    Ok(Some(name.feeder))
}

/// Reads page size and token.
pub(super) fn page(size: i32, token: &str, default: u32, most: u32) -> Result<PageRequest, Status> {
    PageRequest::parse(size, token, default, most).map_err(invalid)
}

#[tonic::async_trait]
impl FeederService for Feeders {
    async fn list_feeders(
        &self,
        request: Request<pb::ListFeedersRequest>,
    ) -> Result<Response<pb::ListFeedersResponse>, Status> {
        let m = request.into_inner();
        let (farm, page) = (parent(&m.parent)?, page(m.page_size, &m.page_token, 100, 1_000)?);
        let (feeders, next) = self.0.feeders(&farm, &page).await.map_err(status)?;
        let next_page_token = next.map(|n| page_token(&n)).unwrap_or_default();
        Ok(Response::new(pb::ListFeedersResponse { feeders, next_page_token }))
    }

    async fn get_feeder(
        &self,
        request: Request<pb::GetFeederRequest>,
    ) -> Result<Response<pb::GetFeederResponse>, Status> {
        let name: FeederName = parse_name(&request.get_ref().name, "name")?;
        let feeder = self.0.feeder(&name).await.map_err(status)?;
        Ok(Response::new(pb::GetFeederResponse { feeder: Some(feeder) }))
    }

    async fn update_feeder_config(
        &self,
        request: Request<pb::UpdateFeederConfigRequest>,
    ) -> Result<Response<pb::UpdateFeederConfigResponse>, Status> {
        mutation!(self, request, "UpdateFeederConfig", update_config, UpdateFeederConfigResponse)
    }

    async fn feed_now(
        &self,
        request: Request<pb::FeedNowRequest>,
    ) -> Result<Response<pb::FeedNowResponse>, Status> {
        mutation!(self, request, "FeedNow", act, FeedNowResponse)
    }

    async fn hold_feeder(
        &self,
        request: Request<pb::HoldFeederRequest>,
    ) -> Result<Response<pb::HoldFeederResponse>, Status> {
        mutation!(self, request, "HoldFeeder", act, HoldFeederResponse)
    }

    async fn resume_feeder(
        &self,
        request: Request<pb::ResumeFeederRequest>,
    ) -> Result<Response<pb::ResumeFeederResponse>, Status> {
        mutation!(self, request, "ResumeFeeder", act, ResumeFeederResponse)
    }

    async fn reset_fault(
        &self,
        request: Request<pb::ResetFaultRequest>,
    ) -> Result<Response<pb::ResetFaultResponse>, Status> {
        mutation!(self, request, "ResetFault", act, ResetFaultResponse)
    }

    async fn resolve_command(
        &self,
        request: Request<pb::ResolveCommandRequest>,
    ) -> Result<Response<pb::ResolveCommandResponse>, Status> {
        mutation!(self, request, "ResolveCommand", resolve, ResolveCommandResponse)
    }

    async fn hold_farm(
        &self,
        request: Request<pb::HoldFarmRequest>,
    ) -> Result<Response<pb::HoldFarmResponse>, Status> {
        let caller = caller(request.metadata(), "HoldFarm", &body!(request.get_ref()));
        let asked = Mutation::try_from(request.into_inner()).map_err(invalid)?;
        self.0.hold_farm(asked, caller).await.map(Response::new).map_err(status)
    }

    async fn get_command(
        &self,
        request: Request<pb::GetCommandRequest>,
    ) -> Result<Response<pb::GetCommandResponse>, Status> {
        let name: CommandName = parse_name(&request.get_ref().name, "name")?;
        let command = self.0.command(&name).await.map_err(status)?;
        Ok(Response::new(pb::GetCommandResponse { command: Some(command) }))
    }

    async fn list_commands(
        &self,
        request: Request<pb::ListCommandsRequest>,
    ) -> Result<Response<pb::ListCommandsResponse>, Status> {
        let m = request.into_inner();
        let (farm, page) = (parent(&m.parent)?, page(m.page_size, &m.page_token, 50, 500)?);
        let feeder = filter(&farm, &m.feeder)?;
        let page = self.0.commands(&farm, feeder.as_ref(), &page).await.map_err(status)?;
        Ok(Response::new(pb::ListCommandsResponse {
            commands: page.items,
            next_page_token: page.next.map(|n| page_token(&n)).unwrap_or_default(),
        }))
    }

    async fn list_config_versions(
        &self,
        request: Request<pb::ListConfigVersionsRequest>,
    ) -> Result<Response<pb::ListConfigVersionsResponse>, Status> {
        let m = request.into_inner();
        let feeder: FeederName = parse_name(&m.parent, "parent")?;
        let page = page(m.page_size, &m.page_token, 50, 500)?;
        let page = self.0.versions(&feeder, &page).await.map_err(status)?;
        Ok(Response::new(pb::ListConfigVersionsResponse {
            versions: page.items,
            next_page_token: page.next.map(|n| page_token(&n)).unwrap_or_default(),
        }))
    }
}

/// Name of a farm that a status rpc asks for.
pub(super) fn farm_name(text: &str) -> Result<FarmId, Status> {
    FarmId::from_name(text).map_err(|e| status(Error::from(e.under("name"))))
}
