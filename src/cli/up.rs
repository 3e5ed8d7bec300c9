//! Flags of `up` and `supernode`, and the config they amount to.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use longwire::config::{
    AllowedOverlay, Cidr, Config, ConfigError, DEFAULT_PORT, InterfaceName, LogLevel, OverlayConfig, OverlayName,
    ProxySettings, RelayText, SupernodeText,
};

use super::args::KeyArgs;

/// How to run, for `up` and `supernode`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Read everything from this file; flags that are given win.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for the node's key and what it remembers [default: /var/lib/longwire].
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Status socket [default: /run/longwire/NAME.sock].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// What is logged [default: info].
    #[arg(long, value_name = "LEVEL")]
    log: Option<LogLevel>,
    /// Log lines as JSON.
    #[arg(long)]
    log_json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The overlay's name.
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    overlay: Option<OverlayName>,
    #[command(flatten)]
    key: KeyArgs,
    /// Supernode to register at, by UDP; by TLS on the port TCP (443) where no UDP gets out; repeatable.
    #[arg(long, value_name = "HOST[:PORT][/TCP][#FINGERPRINT]")]
    supernode: Vec<SupernodeText>,
    /// Bridge to put the TAP on; made if missing.
    #[arg(long, value_name = "BR", conflicts_with = "config")]
    bridge: Option<InterfaceName>,
    /// Address for the TAP, where this host itself is the member.
    #[arg(long, value_name = "CIDR", conflicts_with_all = ["bridge", "config"])]
    address: Option<Cidr>,
    /// Name of the TAP [default: lw-NAME].
    #[arg(long, value_name = "IF", conflicts_with = "config")]
    tap: Option<InterfaceName>,
    /// Frames cross the TAP one by one, with finished checksums.
    #[arg(long, conflicts_with = "config")]
    no_tap_offload: bool,
    /// Nothing is counted or told for plans, and none is obeyed: frames go directly wherever they can.
    #[arg(long, conflicts_with = "config")]
    no_adapt: bool,
    /// HTTP proxy for TCP, or none [default: https_proxy and no_proxy of the environment].
    #[arg(long, value_name = "URL")]
    proxy: Option<ProxySettings>,
    /// Where to listen [default: UDP 7777, or any free port].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Listen here and be a supernode for others too.
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "listen")]
    serve: Option<SocketAddr>,
    /// For whom this node relays where others cannot reach each other [default: site].
    #[arg(long, value_name = "WHOM")]
    relay: Option<RelayText>,
    /// What people call this node [default: the host's name].
    #[arg(long, value_name = "NODE")]
    name: Option<String>,
    /// Threads that carry frames [default: one up to 3 cores, else half of them, at most 4].
    #[arg(long, value_name = "N")]
    lanes: Option<u8>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SupernodeArgs {
    /// Where to listen [default: [::]:7777].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// TCP port for nodes whose network lets no UDP out; 0 for none [default: 443, if it is to be had].
    #[arg(long, value_name = "PORT")]
    tcp_port: Option<u16>,
    /// Serve this overlay only; repeatable.
    #[arg(long, value_name = "OVERLAY_ID")]
    allow: Vec<AllowedOverlay>,
    /// Another supernode that members are told of; repeatable.
    #[arg(long, value_name = "HOST[:PORT]#FINGERPRINT")]
    peer: Vec<SupernodeText>,
    /// What people call this node [default: the host's name].
    #[arg(long, value_name = "NODE")]
    name: Option<String>,
    #[command(flatten)]
    run: RunArgs,
}

impl RunArgs {
    /// The file's config, or an empty one, with these flags over it.
    fn config(self) -> Result<Config, ConfigError> {
        let Self { config, state, socket, log, log_json } = self;
        let base = config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
        Ok(Config {
            state: state.or(base.state),
            socket: socket.or(base.socket),
            log: log.or(base.log),
            log_json: log_json.then_some(true).or(base.log_json),
            ..base
        })
    }
}

impl UpArgs {
    /// The same as a file would say.
    pub(crate) fn config(self) -> Result<Config, ConfigError> {
        let Self {
            overlay,
            key,
            supernode,
            bridge,
            address,
            tap,
            no_tap_offload,
            no_adapt,
            proxy,
            listen,
            serve,
            relay,
            name,
            lanes,
            run,
        } = self;
        let KeyArgs { key_file, passphrase_file } = key;
        let base = run.config()?;
        let overlay = match overlay {
            Some(name) => {
                let (tap_offload, adapt) = (no_tap_offload.then_some(false), no_adapt.then_some(false));
                let named = OverlayConfig::named(name);
                vec![OverlayConfig { key_file, passphrase_file, bridge, address, tap, tap_offload, adapt, ..named }]
            }
            None => base.overlay,
        };
        // One of the two on the command line replaces either in the file.
        let (listen, serve) = if listen.or(serve).is_some() { (listen, serve) } else { (base.listen, base.serve) };
        Ok(Config {
            overlay,
            supernode: if supernode.is_empty() { base.supernode } else { supernode },
            listen,
            serve,
            proxy: proxy.or(base.proxy),
            relay: relay.or(base.relay),
            name: name.or(base.name),
            lanes: lanes.or(base.lanes),
            ..base
        })
    }
}

impl SupernodeArgs {
    /// The same as a file would say: `--listen` is `serve`.
    pub(crate) fn config(self) -> Result<Config, ConfigError> {
        let Self { listen, tcp_port, allow, peer, name, run } = self;
        let base = run.config()?;
        let everywhere = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, DEFAULT_PORT));
        Ok(Config {
            serve: listen.or(base.serve).or(base.listen).or(Some(everywhere)),
            listen: None,
            tcp_port: tcp_port.or(base.tcp_port),
            allow: if allow.is_empty() { base.allow } else { Some(allow) },
            peers: if peer.is_empty() { base.peers } else { Some(peer) },
            name: name.or(base.name),
            ..base
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    #[test]
    fn flags_and_file_make_the_same_config() {
        let flags = up(&[
            "lab",
            "--key-file",
            "k",
            "--supernode",
            "sn",
            "--supernode",
            "[::1]:9",
            "--bridge",
            "br0",
            "--tap",
            "t0",
            "--no-tap-offload",
            "--listen",
            "[::]:1",
            "--relay",
            "on",
            "--name",
            "attic",
            "--lanes",
            "2",
            "--state",
            "/s",
            "--socket",
            "/k",
            "--log",
            "debug",
            "--log-json",
        ]);
        let file = Config::parse(
            r#"
            name = "attic"
            lanes = 2
            listen = "[::]:1"
            relay = "on"
            state = "/s"
            socket = "/k"
            log = "debug"
            log-json = true
            supernode = ["sn", "[::1]:9"]
            [[overlay]]
            name = "lab"
            key-file = "k"
            bridge = "br0"
            tap = "t0"
            tap-offload = false
            "#,
        );
        assert_eq!(flags.expect("flags"), file.expect("file"));
    }

    #[test]
    fn a_supernode_listens_everywhere_unless_told() {
        let Ok(Cli { command: Command::Supernode(args) }) = Cli::try_parse_from(["longwire", "supernode"]) else {
            panic!("not a supernode");
        };
        let config = args.config().expect("config");
        assert_eq!(config.serve.map(|at| at.to_string()).as_deref(), Some("[::]:7777"));
        assert_eq!((config.listen, config.allow), (None, None));
    }

    fn up(args: &[&str]) -> Result<Config, ConfigError> {
        let cli = Cli::try_parse_from(["longwire", "up"].iter().chain(args)).expect("flags");
        let Command::Up(args) = cli.command else { panic!("not up") };
        args.config()
    }
}
