//! What `outboard` (the exec'd CNI plugin) and cni-node agree on.
//!
//! [`wire`] is the one message each way on the unix socket; [`cni`] is the CNI specification's own vocabulary
//! (configuration, result, versions, error codes) as both sides use it. The crate that defines most of those types,
//! `rscni-types`, is named here and nowhere else, so that replacing it is one crate's work.
//!
//! The program itself is in `main.rs` and its modules: nobody links it.

pub mod args;
pub mod cni;
pub mod code;
pub mod conf;
pub mod wire;
