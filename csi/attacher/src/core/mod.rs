//! The pure half: what is wanted of the card for a record ([`wanted`]), what the card says ([`seen`]), the steps between the two
//! ([`plan`]), what a caller is told ([`assess`]), and which function is taken ([`function`]). Nothing here waits or fails.

pub(crate) mod assess;
pub(crate) mod function;
pub(crate) mod plan;
pub(crate) mod seen;
#[cfg(test)]
mod tests;
pub(crate) mod wanted;
