//! `StatusService`: what the farm does, now and before.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use pasamanos_proto::model::page_token;
use pasamanos_proto::pb;
use pasamanos_proto::pb::status_service_server::StatusService;
use tonic::{Request, Response, Status};

use super::feeder_service::{farm_name, filter, page, parent};
use super::status::status;
use crate::control::Control;

/// The service over the use cases.
#[derive(Clone)]
pub struct Statuses(pub Arc<Control>);

#[tonic::async_trait]
impl StatusService for Statuses {
    type WatchFarmStream =
        Pin<Box<dyn Stream<Item = Result<pb::WatchFarmResponse, Status>> + Send>>;

    async fn get_farm_status(
        &self,
        request: Request<pb::GetFarmStatusRequest>,
    ) -> Result<Response<pb::GetFarmStatusResponse>, Status> {
        let farm = farm_name(&request.get_ref().name)?;
        let farm = self.0.farm_status(&farm).await.map_err(status)?;
        Ok(Response::new(pb::GetFarmStatusResponse { status: Some(farm) }))
    }

    async fn watch_farm(
        &self,
        request: Request<pb::WatchFarmRequest>,
    ) -> Result<Response<Self::WatchFarmStream>, Status> {
        let farm = farm_name(&request.get_ref().name)?;
        let watch = self.0.watch_farm(&farm).await.map_err(status)?;
        Ok(Response::new(Box::pin(watch.map(|m| m.map_err(status)))))
    }

    async fn list_doses(
        &self,
        request: Request<pb::ListDosesRequest>,
    ) -> Result<Response<pb::ListDosesResponse>, Status> {
        let m = request.into_inner();
        let (farm, page) = (parent(&m.parent)?, page(m.page_size, &m.page_token, 100, 1_000)?);
        let feeder = filter(&farm, &m.feeder)?;
        let page = self.0.doses(&farm, feeder.as_ref(), &page).await.map_err(status)?;
        Ok(Response::new(pb::ListDosesResponse {
            doses: page.items,
            next_page_token: page.next.map(|n| page_token(&n)).unwrap_or_default(),
        }))
    }
}
