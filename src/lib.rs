//! longwire: a bridge with long wires. Every module in the order a frame meets them:
//!
//! - [`node`]: the daemon as one value. Start reading here.
//! - [`datapath`]: the corridor; one frame from the TAP to the underlay and back.
//! - [`control`]: the control room; peers, handshakes, candidates, paths, supernodes, timers.
//! - [`wire`]: every byte on the underlay (`wire/protocol.md`).
//! - [`sim`]: the same node in a made-up world.
//! - [`config`]: what a user writes, and what it means.
//! - [`io`]: kernel, clock, tokio; feeds the node.
//! - [`keys`] and [`time`]: what everything else is made of.

pub mod node;

pub mod sim;

pub mod datapath;

pub mod control;

pub mod wire;

pub mod keys;

pub mod time;

pub mod config;

pub mod io;
