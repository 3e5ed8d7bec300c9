//! The corridor: one frame, in order of travel.

pub mod buf;

pub mod frame;

pub mod fdb;

/// To the corridor.
pub enum Command {}
/// From the corridor.
pub enum Notice {}
