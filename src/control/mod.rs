//! The control room: who the peers are, how they are reached, when to do what.

pub mod report;
