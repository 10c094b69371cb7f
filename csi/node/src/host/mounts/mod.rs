//! Mounts: what there is, by the kernel's own table and never by memory; and the few calls that change it.

mod call;
mod elsewhere;
mod flags;
mod place;
mod table;

pub(crate) use call::{
    Mounting, bind, bind_guarded, bind_read_only, detach, detach_opened, filesystem, unmount,
};
pub(crate) use elsewhere::elsewhere;
pub(crate) use flags::Flags;
pub(crate) use place::Place;
pub(crate) use table::{Mount, Table};
