//! The corridor: one frame, in order of travel.

pub mod buf;

pub mod frame;

pub mod fdb;

pub mod limit;

pub mod fragment;

pub mod replay;

pub mod stats;

/// To the corridor.
pub enum Command {}
/// From the corridor.
pub enum Notice {}
