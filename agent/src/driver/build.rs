//! From the configuration to running drivers.

use std::io;
use std::sync::Arc;

use super::Driver;
use super::opcua::OpcUaDriver;
use super::sim::SimDriver;
use crate::config::{Config, PlcDriver};

/// Why a driver could not be made.
#[derive(Debug, thiserror::Error)]
#[error("PLC {plc}: {source}")]
pub struct BuildError {
    plc: String,
    source: io::Error,
}

/// Makes a driver for each PLC. A simulated one is running when this returns; a real one begins to
/// connect, and its link says how that goes.
///
/// # Errors
/// If the files of a simulated PLC cannot be opened, or a driver's own files cannot be made.
pub async fn build(config: &Config) -> Result<Vec<Arc<dyn Driver>>, BuildError> {
    let mut drivers: Vec<Arc<dyn Driver>> = Vec::new();
    for plc in &config.plcs {
        let failed = |source| BuildError { plc: plc.name.clone(), source };
        let driver: Arc<dyn Driver> = match &plc.driver {
            PlcDriver::Sim(sim) => {
                Arc::new(SimDriver::start(&config.data_dir, plc, sim).await.map_err(failed)?)
            }
            PlcDriver::OpcUa(of) => Arc::new(OpcUaDriver::start(&config.data_dir, plc, of)),
        };
        drivers.push(driver);
    }
    Ok(drivers)
}
