//! The parts that speak with Kubernetes, at a real kube-apiserver that all tests here share.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../../../../lib/api/tests/admission/apiserver.rs"]
mod apiserver;
mod changeover;
mod controller;
mod elections;
mod notices;
mod pairs;
mod proxy;
mod rights;
#[path = "../engine/server.rs"]
#[allow(dead_code, reason = "the engine's tests use all of it")]
mod server;
mod signer;
mod site;
mod states;
mod watches;
#[path = "../engine/world.rs"]
#[allow(dead_code, reason = "the engine's tests use all of it")]
mod world;
