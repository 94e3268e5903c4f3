//! PLCs over OPC UA. The client library is behind our own supervisor: it hangs, and it forgets.

mod block;
mod codes;
mod dose_group;
mod driver;
mod live;
mod nodes;
mod probe;
mod probes;
mod read;
mod scalar;
mod subscription;
mod supervisor;
mod value;
mod words;

pub use driver::OpcUaDriver;
pub use probe::{Probed, Proof, probe};
