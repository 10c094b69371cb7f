//! Mode `host`: the pods are here, their ports are on this host's DPU. No Open vSwitch, no database, no Kubernetes.
//!
//! A pod's interface is a function of the card ([`function`], [`card`]); what it is to look like, and its port, are the DPU's (crate
//! `channel`). An attachment: [`attach`], [`detach`], [`check`], [`gc`], [`status`] over [`node`], which is performed as on a plain
//! node (`server`); [`journey`] is the function's way into the pod and back, [`record`] what the journal keeps, [`attached`] what
//! the DPU is told whenever it is told everything; [`reconcile`] puts right what a kill left or what the card lost, [`gateway`] keeps
//! the host's own interface.

mod args;
mod attach;
mod attached;
mod card;
mod check;
mod detach;
mod function;
mod gateway;
mod gc;
mod journey;
mod metrics;
mod node;
mod reconcile;
mod record;
mod start;
mod status;
#[cfg(test)]
mod tests;
mod told;

pub(crate) use args::Args;
pub(crate) use start::run;
