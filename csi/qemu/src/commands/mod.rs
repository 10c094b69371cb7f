//! The commands that Outboard uses, as QEMU's QAPI schema has them (QEMU 10.0). Field names are the schema's with `_`
//! for `-`; a field that is `None` is not sent, and QEMU's default holds.

mod bitmap;
mod export;
mod inventory;
mod job;
mod machine;
mod monitor;
mod node;
mod object;
mod snapshot;

pub use bitmap::*;
pub use export::*;
pub use inventory::*;
pub use job::*;
pub use machine::*;
pub use monitor::*;
pub use node::*;
pub use object::*;
pub use snapshot::*;

/// The answer of commands that answer nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub struct Done {}

/// One struct per command: its documentation, its name here, its name in QMP, its answer, its arguments.
macro_rules! command {
    ($(
        $(#[$about:meta])*
        $name:ident = $wire:literal -> $reply:ty {
            $( $(#[$field_about:meta])* $field:ident: $kind:ty ),* $(,)?
        }
    )*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub struct $name {
            $( $(#[$field_about])* pub $field: $kind, )*
        }

        impl crate::Command for $name {
            const NAME: &'static str = $wire;
            type Reply = $reply;
        }
    )*};
}
pub(crate) use command;

/// Leaves out what is not given.
pub(crate) fn none<T>(value: &Option<T>) -> bool {
    value.is_none()
}
