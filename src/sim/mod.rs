//! A made-up world for the unchanged [`Node`](crate::node::Node): virtual time, one seed, no surprise twice.
//!
//! - [`world`]: start here. Hosts on an underlay, one event after the other; `drive` feeds a node by its contract,
//!   `wiring` carries control links, `vms` the frames of machines, `faults` what goes
//!   wrong, `view` what can be seen.
//! - [`heap`], [`chance`]: one history per seed.
//! - [`pipe`], [`nat`], [`underlay`], [`oracle`]: links, translators, routers, and who can reach whom.
//! - [`host`], [`traffic`]: what is in the world.
//! - [`laws`], [`rest`]: what must hold after every event, and at rest. [`tally`]: what it costs.
//! - [`scenario`]: whole histories decoded from bytes.

pub mod world;

mod doors;
mod drive;
mod faults;
mod groups;
mod links;
mod view;
mod vms;
mod wiring;

pub mod chance;
pub mod heap;

pub mod nat;
pub mod oracle;
pub mod pipe;
pub mod underlay;

pub mod host;
pub mod kernel;
pub mod traffic;

pub mod laws;
pub mod rest;
pub mod tally;

pub mod scenario;

pub use chance::MILLION;
pub use host::HostSpec;
pub use nat::{Behaviour, Depends};
pub use oracle::Way;
pub use pipe::Conditions;
pub use traffic::{FrameId, OverlayNo, VmId};
pub use underlay::{HostId, SiteId, SiteSpec};
pub use world::World;
