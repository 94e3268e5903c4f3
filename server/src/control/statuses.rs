//! Reading what a farm is and does.

use futures_util::Stream;
use pasamanos_proto::model::{FarmId, FeederName, PageRequest};
use pasamanos_proto::pb;

use super::{Control, watch};
use crate::domain::Error;

impl Control {
    /// A whole farm.
    pub async fn farm_status(&self, farm: &FarmId) -> Result<pb::FarmStatus, Error> {
        Ok(self.farms.get(farm).await?.read(super::farms::State::farm))
    }

    /// The messages of one watch.
    pub async fn watch_farm(
        &self,
        farm: &FarmId,
    ) -> Result<impl Stream<Item = Result<pb::WatchFarmResponse, Error>> + Send + use<>, Error>
    {
        let farm = self.farms.get(farm).await?;
        Ok(watch::watch(farm, self.stopping.clone()))
    }

    /// One feeder.
    pub async fn feeder(&self, name: &FeederName) -> Result<pb::Feeder, Error> {
        let farm = self.farms.get(&name.farm).await?;
        let view = farm.feeder(&name.feeder).ok_or_else(|| Error::not_found(name))?;
        Ok(farm.read(|s, now| s.feeder(&view, now)))
    }

    /// A page of a farm's feeders by id, and the key of the next.
    pub async fn feeders(
        &self,
        farm: &FarmId,
        page: &PageRequest,
    ) -> Result<(Vec<pb::Feeder>, Option<String>), Error> {
        let farm = self.farms.get(farm).await?;
        let size = usize::try_from(page.size).unwrap_or(usize::MAX);
        Ok(farm.read(|s, now| {
            let mut rest = s.feeders.iter().filter(|(id, _)| id.as_str() > page.after.as_str());
            let items: Vec<_> = rest.by_ref().take(size).map(|(id, f)| (id, &f.value)).collect();
            let last = items.last().map(|(id, _)| id.to_string());
            let next = rest.next().and(last);
            (items.into_iter().map(|(_, f)| s.feeder(f, now)).collect(), next)
        }))
    }
}
