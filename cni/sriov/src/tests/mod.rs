//! Cards that are directories: what the kernel shows of cards that no test machine has.

mod driver;
mod functions;
mod ports;
mod tree;
mod yusur;
