//! An internet with NATs on one machine, for the end-to-end tests and the examples.
//!
//! ```text
//!   supernode hosts                        sites a, b, ...
//!   203.0.113.x                            hosts a1, a2 ... (10.N.0.11 ...), each with a bridge br0
//!        |                                      |                   and guests ("VMs") on it
//!        |                                 router of the site: NAT or firewall of a kind
//!        |                                      |  198.18.N.2
//!        '------------- inet (routes only) -----'     (a link of a site may pass the emulator)
//! ```
//!
//! Every box is a network namespace with a prefix of its own, so that several labs stand
//! beside each other. No address, link or rule is made outside of them. What the lab
//! started and made is removed when the [`Lab`] is dropped, also by a panic; if the test
//! program itself is killed, its keeper (see `process`) removes it.
//!
//! The lab panics with one sentence when something does not work: it serves tests.

mod privilege;

mod space;

mod process;

mod nat;

mod topology;

mod straight;

mod six;

mod tag;

mod emulator;

mod packet;

mod ears;

mod kernel;

pub mod frame;

mod daemon;

mod status;

mod measure;

mod rates;

mod offer;

mod stream;

mod talk;

mod world;

mod vm;

pub mod relocation;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub use daemon::{Daemon, Join, Supernode, longwire, new_key, program};
pub use ears::heard;
pub use emulator::Impairment;
pub use frame::Mac;
pub use kernel::{cut_datagrams, refuse_ioctl};
pub use measure::{Capture, Iperf, Ping, PingReport, Reply};
pub use nat::{Meeting, Nat, can_punch, meeting};
pub use offer::{GuestPair, Offer};
pub use packet::{PacketSocket, send_segmented};
pub use privilege::find as find_tool;
pub use process::{Process, poll_for, wait_for};
pub use rates::{By, Rates};
pub use space::Space;
pub use stream::{Stream, StreamReport, Transfer};
pub use talk::{Talk, at_once};

pub use six::Six;
pub use status::{FdbEntry, Overlay, PathState, Peer, Status};
pub use straight::{End, set_features};
pub use tag::Tagging;
pub use topology::{Guest, Host, Site, join_bridges};

pub use vm::{Migration, Vm};

pub use world::{Node, OVERLAY, World, inner_address};

use process::Shared;

/// Labs of this process so far: the second half of a lab's prefix.
static LABS: AtomicU32 = AtomicU32::new(0);

/// A small internet; dropped, it is gone.
pub struct Lab {
    shared: Arc<Shared>,
    inet: Space,
    supernodes: u8,
    sites: u8,
    guests: u16,
}

impl Lab {
    /// An internet of nothing but the router in its middle.
    ///
    /// Becomes root in a user namespace of its own if it is not root, and fails with the
    /// sentence what to do if that or a tool is missing.
    #[expect(clippy::new_without_default, reason = "it changes the machine")]
    pub fn new() -> Lab {
        privilege::ensure();
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let shared = Shared::new(format!("lw-{}-{number}", std::process::id()));
        let inet = Space::new(&shared, "inet");
        inet.sysctl("ipv4/ip_forward", "1");
        Lab { shared, inet, supernodes: 0, sites: 0, guests: 0 }
    }

    /// The router in the middle: every packet between sites passes it.
    pub fn inet(&self) -> &Space {
        &self.inet
    }

    /// What the names of this lab's namespaces begin with.
    pub fn prefix(&self) -> &str {
        self.shared.prefix()
    }

    /// Shows the last lines of every log, for a test that failed without dropping the lab.
    pub fn show_logs(&self) {
        self.shared.show_logs();
    }

    /// The scratch directory: logs, keys, state of the daemons.
    pub fn dir(&self) -> &std::path::Path {
        self.shared.dir()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.shared.tear_down(std::thread::panicking());
    }
}

/// Ends the test with one sentence.
#[track_caller]
pub fn fail(sentence: impl std::fmt::Display) -> ! {
    panic!("{sentence}")
}

/// Runs an example; if it fails, its last word is the sentence that says why.
pub fn example(name: &'static str, show: fn()) -> ExitCode {
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let sentence = match payload.downcast_ref::<String>() {
            Some(sentence) => sentence,
            None => payload.downcast_ref::<&str>().copied().unwrap_or("a bug in the example"),
        };
        eprintln!("\n{name}: {sentence}");
    }));
    match std::panic::catch_unwind(show) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
