//! The commands with their flags.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use longwire::config::{OverlayName, SupernodeText};

use super::see::{AdviseArgs, MatrixArgs, TopArgs, TopoArgs, TraceArgs};
use super::up::{SupernodeArgs, UpArgs};

/// A bridge with long wires: the machines of many sites on one encrypted Ethernet.
#[derive(Debug, Parser)]
#[command(name = "longwire", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print a new overlay key.
    Keygen,
    /// Print an overlay's id, for a supernode's allow list.
    Id(IdArgs),
    /// Join overlays and stay in the foreground.
    Up(Box<UpArgs>),
    /// Introduce and relay for others; needs no privileges.
    Supernode(SupernodeArgs),
    /// Show the daemon at a glance.
    Status(AskArgs),
    /// Show the other members.
    Peers(AskArgs),
    /// Show where MAC addresses were heard.
    Fdb(AskArgs),
    /// Draw the overlay as this node knows it.
    Topo(TopoArgs),
    /// Show who talks to whom, how fast and by which way.
    Top(TopArgs),
    /// Show the way that frames of one machine take to another.
    Trace(TraceArgs),
    /// Show the traffic matrix, and what the application looks like by it.
    Matrix(MatrixArgs),
    /// Name the machine whose move to another host would relieve the worst bottleneck.
    Advise(AdviseArgs),
    /// Say how this host's network looks from outside and what can be reached directly; needs no daemon.
    Netcheck(NetcheckArgs),
    /// Say how frames shall travel to a peer, until the daemon ends.
    Via {
        /// Its name or id, or the start of that; OVERLAY/PEER where it is met in several overlays.
        peer: String,
        /// The member that shall relay while it can, or `supernode`; `direct`: no member; `auto`: as measured.
        #[arg(value_name = "MEMBER|supernode|direct|auto")]
        via: String,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Static rules for frames.
    #[command(subcommand)]
    Route(super::rules::RouteCommand),
    /// Direct paths that are kept.
    #[command(subcommand)]
    Link(super::rules::LinkCommand),
    /// Show or change what overlays and members are guaranteed and may use at most, until the daemon ends.
    Reserve(Box<super::reserve::ReserveArgs>),
    /// Orders about MAC addresses.
    #[command(subcommand)]
    Mac(MacCommand),
    /// Show every address tried for a peer, and why the present path was chosen.
    Explain {
        /// Its name or id, or the start of that; OVERLAY/PEER where it is met in several overlays.
        peer: String,
        #[command(flatten)]
        ask: AskArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MacCommand {
    /// Say that a machine is behind this host's TAP now, if it does not say so itself after a move.
    Claim {
        /// Its MAC address.
        mac: String,
        /// Its VLAN; 0 = untagged.
        #[arg(long, value_name = "ID", default_value_t = 0)]
        vlan: u16,
        /// Its IP address: then it is asked to speak, so that the bridges here learn where it is.
        #[arg(long, value_name = "ADDR")]
        ip: Option<IpAddr>,
        #[command(flatten)]
        which: OverlayArgs,
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// Where the overlay's key is.
#[derive(Debug, Default, Args)]
pub(crate) struct KeyArgs {
    /// File with the overlay's key; `-` is standard input. LONGWIRE_KEY may hold the key instead.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// File with a passphrase instead of a key.
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    /// The overlay's name.
    pub(crate) name: OverlayName,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NetcheckArgs {
    /// Supernode to ask; repeatable [default: those of the daemon that runs here].
    #[arg(long, value_name = "HOST[:PORT][/TCP][#FINGERPRINT]")]
    pub(crate) supernode: Vec<SupernodeText>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Whom to ask and how to show it.
#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    /// The daemon's socket [default: the only one there is].
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// As JSON, for scripts.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which overlay is meant.
#[derive(Debug, Args)]
pub(crate) struct OverlayArgs {
    /// The overlay, where there are several: by its name, at a supernode by its id or the start of that.
    #[arg(long, value_name = "NAME")]
    pub(crate) overlay: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
