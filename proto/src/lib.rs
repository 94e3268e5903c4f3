//! The contract of Pasamanos, shared by server, agent and tests. Keep it slim: no I/O, no clock.
//!
//! [`pb`] is generated from `proto/pasamanos/v1`; [`model`] holds the domain types, which are
//! validated once, on receipt, by `TryFrom<pb::X>`.

#![allow(rustdoc::broken_intra_doc_links, reason = "comments of the contract are not rustdoc")]

/// The generated messages, clients and servers of `pasamanos.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub mod pb {
    tonic::include_proto!("pasamanos.v1");
}

pub mod model;

/// The encoded `FileDescriptorSet` of the contract with its imports, for reflection and for the
/// access policy declared on each rpc.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// The domain of every `google.rpc.ErrorInfo` of this product.
pub const ERROR_DOMAIN: &str = "pasamanos.dev";

/// The protocol version that this build speaks on `AgentLinkService.Connect`.
pub const PROTOCOL_VERSION: i32 = 1;
