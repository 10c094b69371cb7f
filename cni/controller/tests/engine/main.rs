//! The engine against a real northbound database.

#![allow(clippy::unwrap_used, reason = "a test")]

mod allocation;
mod disaster;
mod fencing;
mod hosts;
mod machines;
mod migrations;
mod planning;
mod server;
mod world;
