//! Hosts and DPUs over real TLS on loopback. The DPU's ports are a table in memory; all between is as in the programs.

mod bytes;
mod calls;
mod card;
mod hello;
mod proxy;
mod raw;
mod sessions;
mod sets;
mod silence;
mod trust;
mod world;
