//! The program, over its socket, against a card's service that can be made to answer late, otherwise, or not at all. What a real card does
//! is tested with opi-bridge.

#![expect(clippy::unwrap_used, reason = "tests end by it")]

mod card;
mod card_nvme;
mod crash;
mod lifecycle;
mod network;
mod order;
mod world;
