//! The public edge of Pasamanos: browsers speak grpc-web to it, it speaks gRPC to the server.
//!
//! It knows no message and no business type; it knows the names of the services that a browser may
//! reach, and nothing else is forwarded. It also serves the built client, so that the page and its
//! calls have one origin and need no CORS.
//!
//! | module | says |
//! |---|---|
//! | [`config`] | what can be set, by flag and environment |
//! | [`telemetry`] | where the log goes, and in which form |
//! | [`proxy`] | the composition root: bind, run, drain |
//! | [`serve`] | the accept loop and the limits of one connection |
//! | [`io`] | cuts a peer that is silent at first or stops reading |
//! | [`app`] | which request goes where |
//! | [`policy`] | who may call what: services, content types, origin |
//! | [`forward`] | one call: deadline, upstream, what a failure becomes |
//! | [`question`] | the request's body: what ends it |
//! | [`answer`] | the answer's body: what ends it, and with which status |
//! | [`frames`] | where messages begin and end in an answer's bytes |
//! | [`timeout`] | the `grpc-timeout` header |
//! | [`upstream`] | connections to the server, and which of them carries a call |
//! | [`assets`] | the embedded client: encodings, caching, deep links |
//! | [`headers`] | what is stripped from a call, what every answer bears |
//! | [`stop`] | the stages of a shutdown, and the tasks it waits for |

pub mod answer;
pub mod app;
pub mod assets;
pub mod config;
pub mod forward;
pub mod frames;
pub mod headers;
pub mod io;
pub mod policy;
pub mod proxy;
pub mod question;
#[cfg(test)]
mod script;
pub mod serve;
pub mod stop;
pub mod telemetry;
pub mod timeout;
pub mod upstream;
