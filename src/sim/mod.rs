//! A made-up world for the unchanged [`Node`](crate::node::Node): virtual time, one seed, no surprise twice.
//!
//! - [`heap`], [`chance`]: one history per seed.
//! - [`pipe`], [`nat`], [`underlay`]: links, translators, routers.

pub mod chance;
pub mod heap;

pub mod pipe;

pub mod nat;

pub mod underlay;
