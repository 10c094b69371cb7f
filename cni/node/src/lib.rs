//! The per-node daemon: plugs pods into OVS.
