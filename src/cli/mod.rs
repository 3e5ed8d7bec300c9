//! The command line: each command with its flags, and what it does.

mod args;
mod ask;
mod netcheck;
mod reserve;
mod rules;
mod see;
mod table;
mod up;

pub(crate) use args::Cli;

use std::io::{self, Write};

use longwire::config::{Config, KeySource, LogLevel, Settings};
use longwire::control::report::Request;
use longwire::io::{daemon, state};
use longwire::keys::{OverlayKey, OverlaySecrets};
use tracing_subscriber::EnvFilter;

use args::{Command, IdArgs, MacCommand};

/// Where a key may stand instead of a file.
const KEY_VARIABLE: &str = "LONGWIRE_KEY";

/// Why a command failed.
pub(crate) enum Failure {
    /// The question was wrong: flags, config, keys.
    Asked(anyhow::Error),
    /// The question was right, and it did not work.
    Ran(anyhow::Error),
}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Keygen => keygen(),
        Command::Id(args) => id(args),
        Command::Up(args) => daemon_with(args.config()),
        Command::Supernode(args) => daemon_with(args.config()),
        Command::Status(args) => ask::status(&args),
        Command::Peers(args) => ask::peers(&args),
        Command::Fdb(args) => ask::fdb(&args),
        Command::Topo(args) => see::topo(&args),
        Command::Top(args) => see::top(&args),
        Command::Trace(args) => see::trace(args),
        Command::Matrix(args) => see::matrix(&args),
        Command::Advise(args) => see::advise(&args),
        Command::Netcheck(args) => netcheck::run(args),
        Command::Via { peer, via, ask } => ask::via(peer, via, &ask),
        Command::Route(command) => rules::route(command),
        Command::Reserve(args) => reserve::run(*args),
        Command::Link(command) => rules::link(command),
        Command::Mac(MacCommand::Claim { mac, vlan, ip, which, ask }) => {
            ask::claim(&Request::ClaimMac { mac, vlan, ip, overlay: which.overlay }, &ask)
        }
        Command::Explain { peer, ask } => ask::explain(peer, &ask),
    }
}

fn keygen() -> Result<(), Failure> {
    let random = state::random().map_err(|error| Failure::Ran(error.into()))?;
    print(&format!("{}\n", OverlayKey::from_bytes(random).to_text()))
}

fn id(args: IdArgs) -> Result<(), Failure> {
    let source = match (args.key.key_file, args.key.passphrase_file, env_key()) {
        (Some(path), _, _) => KeySource::KeyFile(path),
        (None, Some(path), _) => KeySource::PassphraseFile(path),
        (None, None, Some(text)) => KeySource::Text(text),
        (None, None, None) => {
            let error = longwire::config::ConfigError::NoKey(args.name.0);
            return Err(Failure::Asked(error.into()));
        }
    };
    let key = source.read(&args.name.0).map_err(|error| Failure::Asked(error.into()))?;
    print(&format!("{}\n", OverlaySecrets::derive(&args.name.0, &key).id()))
}

fn daemon_with(config: Result<Config, longwire::config::ConfigError>) -> Result<(), Failure> {
    let settings =
        config.and_then(|config| config.check(env_key().as_deref())).map_err(|error| Failure::Asked(error.into()))?;
    log_to_stderr(&settings);
    daemon::run(settings).map_err(|error| Failure::Ran(error.into()))
}

fn env_key() -> Option<String> {
    std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty())
}

/// One line per event on stderr. Of the libraries underneath only warnings.
fn log_to_stderr(settings: &Settings) {
    let level = match settings.log {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let others = if settings.log == LogLevel::Error { "error" } else { "warn" };
    let filter = EnvFilter::new(format!("{others},longwire={level}"));
    // Nobody may read the log any more: that is no reason to end, as a complaint about it would be.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    let log = log.log_internal_errors(false);
    if settings.log_json {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init();
    }
}

/// Writes to stdout; a reader that has left is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Ran(error.into())),
        Ok(()) | Err(_) => Ok(()),
    }
}
