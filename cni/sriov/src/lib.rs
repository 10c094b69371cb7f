//! Which functions has a card, and which representors?
