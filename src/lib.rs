//! longwire: a bridge with long wires. Every module, from the outside in:
//!
//! - [`config`]: what a user writes, and what it means.
//! - [`io`]: kernel, clock, tokio; feeds the node.
//! - [`node`]: the daemon as one value. Start reading here.
//! - [`datapath`]: the corridor; one frame from the TAP to the underlay and back.
//! - [`control`]: the control room; peers, handshakes, candidates, paths, supernodes, timers.
//! - [`seam`]: the plain values that go into the node and come out.
//! - [`wire`]: every byte on the underlay (`wire/protocol.md`).
//! - [`keys`] and [`time`]: what everything else is made of.
//! - [`sim`]: the same node in a made-up world.

pub mod config;

pub mod io;

pub mod node;

pub mod datapath;

pub mod control;

pub mod seam;

pub mod wire;

pub mod keys;

pub mod time;

pub mod sim;
