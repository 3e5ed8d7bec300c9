//! `longwire route` and `longwire link`: static rules in the words of VNET.

use anyhow::anyhow;
use clap::Subcommand;
use longwire::control::report::rules::{LinkRequest, LinkRow, Origin, RouteRequest, RouteRow};
use longwire::control::report::{Request, Response};

use super::args::{AskArgs, OverlayArgs};
use super::ask::{ask, print_json, strange};
use super::table::{Table, bytes};
use super::{Failure, print};

/// How a route is spelled.
const ROUTE: &str = "the form is SRC DST via NODE|path A,B|supernode|direct|drop [prio N] [src-if any|tap]";
/// How a link is spelled.
const LINK: &str = "the form is PEER|ADDRESS[:PORT] [udp] [pin]";

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Say where frames go, until the daemon ends; the config's rules come back with it.
    ///
    /// SRC and DST are any, none, a MAC address, not-MAC, or MAC/BITS. The rule with the greatest prio decides, then
    /// the longest destination, the longest source, not-, any; several that are equally good each get the frame.
    Add {
        /// SRC DST via NODE|path A,B|supernode|direct|drop [prio N] [src-if any|tap]
        #[arg(required = true, value_name = "WORDS")]
        words: Vec<String>,
        #[command(flatten)]
        which: OverlayArgs,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Take a rule back.
    Del {
        /// Its number, from `route show`.
        id: u32,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show the rules and how many frames they decided on.
    Show(AskArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum LinkCommand {
    /// Keep a direct path to a member, or try an address for all of them, until the daemon ends.
    Add {
        /// PEER|ADDRESS[:PORT] [udp] [pin]; with pin no plan and no relaying member takes its place.
        #[arg(required = true, value_name = "WORDS")]
        words: Vec<String>,
        #[command(flatten)]
        which: OverlayArgs,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Take back what `link add` ordered; the path itself may stay.
    Del {
        /// As it was added.
        to: String,
        #[command(flatten)]
        which: OverlayArgs,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show the links and what became of them.
    Show(AskArgs),
}

pub(super) fn route(command: RouteCommand) -> Result<(), Failure> {
    let (order, args) = match command {
        RouteCommand::Add { words, which, ask } => (route_of(&words, which.overlay)?, ask),
        RouteCommand::Del { id, ask } => (RouteRequest::Del { id }, ask),
        RouteCommand::Show(ask) => (RouteRequest::Show, ask),
    };
    let is_quiet = matches!(order, RouteRequest::Del { .. });
    let Response::Routes(rows) = ask(&args, &Request::Route(order))? else { return Err(strange()) };
    match (is_quiet, args.json) {
        (true, _) => Ok(()),
        (false, true) => print_json(&rows),
        (false, false) => print(&routes_text(rows)),
    }
}

pub(super) fn link(command: LinkCommand) -> Result<(), Failure> {
    let (order, args) = match command {
        LinkCommand::Add { words, which, ask } => (link_of(&words, which.overlay)?, ask),
        LinkCommand::Del { to, which, ask } => (LinkRequest::Del { overlay: which.overlay, to }, ask),
        LinkCommand::Show(ask) => (LinkRequest::Show, ask),
    };
    let is_quiet = order != LinkRequest::Show;
    let Response::Links(rows) = ask(&args, &Request::Link(order))? else { return Err(strange()) };
    match (is_quiet, args.json) {
        (true, _) => Ok(()),
        (false, true) => print_json(&rows),
        (false, false) => print(&links_text(rows)),
    }
}

fn route_of(words: &[String], overlay: Option<String>) -> Result<RouteRequest, Failure> {
    let refuse = || Failure::Asked(anyhow!(ROUTE));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [src, dst, "via", ref rest @ ..] = words[..] else { return Err(refuse()) };
    let (via, mut rest) = match rest {
        ["path", pair, rest @ ..] => (format!("path {pair}"), rest),
        [target, rest @ ..] => ((*target).to_owned(), rest),
        [] => return Err(refuse()),
    };
    let (mut prio, mut src_if) = (0, "any".to_owned());
    while let [word, value, more @ ..] = rest {
        match *word {
            "prio" => prio = value.parse().map_err(|_| refuse())?,
            // The peer is named too, so that the daemon can say why not.
            "src-if" if *value == "link" => return Err(Failure::Asked(anyhow!("{}", no_link()))),
            "src-if" => src_if = (*value).to_owned(),
            _ => return Err(refuse()),
        }
        rest = more;
    }
    if !rest.is_empty() {
        return Err(refuse());
    }
    Ok(RouteRequest::Add { overlay, src: src.to_owned(), dst: dst.to_owned(), via, prio, src_if })
}

fn no_link() -> String {
    longwire::node::check_source("link").err().unwrap_or_default()
}

fn link_of(words: &[String], overlay: Option<String>) -> Result<LinkRequest, Failure> {
    let (to, rest) = words.split_first().ok_or_else(|| Failure::Asked(anyhow!(LINK)))?;
    let mut pin = false;
    for word in rest {
        match word.as_str() {
            "pin" => pin = true,
            "udp" => {}
            "tcp" | "quic" => {
                return Err(Failure::Asked(anyhow!("{word}: between members there is UDP; TCP leads to supernodes")));
            }
            _ => return Err(Failure::Asked(anyhow!(LINK))),
        }
    }
    Ok(LinkRequest::Add { overlay, to: to.clone(), pin })
}

const fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Config => "config",
        Origin::Order => "order",
    }
}

fn routes_text(rows: Vec<RouteRow>) -> String {
    if rows.is_empty() {
        return "no rule: what is learned and planned decides\n".into();
    }
    let mut table = Table::new(&["RULE", "OVERLAY", "PRIO", "SRC", "DST", "VIA", "BY", "FRAMES", "BYTES", "STATE"]);
    for row in rows {
        table.row([
            row.id.to_string(),
            row.overlay,
            row.prio.to_string(),
            row.src,
            row.dst,
            row.via,
            origin(row.origin).into(),
            row.frames.to_string(),
            bytes(row.bytes),
            row.state,
        ]);
    }
    table.text()
}

fn links_text(rows: Vec<LinkRow>) -> String {
    if rows.is_empty() {
        return "no link is ordered: those that are needed are made by themselves\n".into();
    }
    let mut table = Table::new(&["OVERLAY", "LINK", "PIN", "BY", "STATE"]);
    for row in rows {
        let pin = if row.pin { "pin" } else { "-" };
        table.row([row.overlay, row.to, pin.into(), origin(row.origin).into(), row.state]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_route_is_read_as_vnet_spells_it() {
        let read = |text| route_of(&words(text), None).ok();
        let expected = |via: &str, prio, src_if: &str| {
            let (src, dst) = ("any".to_owned(), "02:00:00:00:00:01".to_owned());
            Some(RouteRequest::Add { overlay: None, src, dst, via: via.into(), prio, src_if: src_if.into() })
        };
        assert_eq!(read("any 02:00:00:00:00:01 via mill"), expected("mill", 0, "any"));
        assert_eq!(read("any 02:00:00:00:00:01 via path a,b prio 7 src-if tap"), expected("path a,b", 7, "tap"));
        for wrong in [
            "any any",
            "any any to x",
            "any any via",
            "any any via x prio",
            "any any via x prio y",
            "any any via x why not",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(read("any any via drop src-if link mill"), None);
    }

    #[test]
    fn a_link_has_a_transport_and_a_pin() {
        let read = |text| link_of(&words(text), None).ok();
        let expected = |pin| Some(LinkRequest::Add { overlay: None, to: "mill".into(), pin });
        assert_eq!((read("mill"), read("mill udp pin")), (expected(false), expected(true)));
        assert_eq!((read("mill tcp"), read("mill why")), (None, None));
    }
}
