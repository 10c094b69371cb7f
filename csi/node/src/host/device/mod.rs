//! Disks: found by identity in sysfs and by nothing else, opened once, checked again through the open file.

mod find;
mod health;
mod open;
mod sysfs;
mod taken;
mod wait;

pub(crate) use find::{Found, disks_of, uuid_of};
pub(crate) use health::{Health, claimed, health};
pub(crate) use open::{Device, head};
pub(crate) use sysfs::{Numbers, Sysfs};
pub(crate) use taken::{LOOKS, MOMENT, patiently};
pub(crate) use wait::{grown, published};
