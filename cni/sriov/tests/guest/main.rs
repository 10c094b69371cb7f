//! Cards in front of a real kernel: Debian's in a QEMU machine, with QEMU's `igb` (SR-IOV, no switch) and the kernel's own
//! netdevsim (a switch with representors, no PCI). No emulated card is both; the two halves meet in the lab's card.
//!
//! `make setup` brings the kernel and builds netdevsim for it.

mod igb;
mod machine;
mod netdevsim;
