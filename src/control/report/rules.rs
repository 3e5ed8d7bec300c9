//! Questions and orders about static rules, and their answers: `longwire route` and `longwire link`.

use serde::{Deserialize, Serialize};

/// About routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum RouteRequest {
    /// One more, for this daemon's life. Answered with it.
    Add {
        /// The overlay's name; the only one if there is one.
        overlay: Option<String>,
        /// `any`, `none`, a MAC address, `not-` and one, or one and `/` and the length of a prefix.
        src: String,
        /// The same.
        dst: String,
        /// `drop`, `direct`, `supernode`, a member, or `path` and two members with a comma between.
        via: String,
        /// The greater goes first.
        prio: u32,
        /// `any` or `tap`.
        src_if: String,
    },
    /// One less.
    Del {
        /// Its number.
        id: u32,
    },
    /// All of them.
    Show,
}

/// About links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum LinkRequest {
    /// One more, for this daemon's life.
    Add {
        /// The overlay's name; the only one if there is one.
        overlay: Option<String>,
        /// A member, or an address.
        to: String,
        /// No plan and no relay takes its place.
        pin: bool,
    },
    /// One less.
    Del {
        /// The overlay's name; the only one if there is one.
        overlay: Option<String>,
        /// As it was added.
        to: String,
    },
    /// All of them.
    Show,
}

/// Who gave a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The config: it is there again after a restart.
    Config,
    /// An order: it ends with the daemon.
    Order,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    /// Its number.
    pub id: u32,
    /// The overlay's name.
    pub overlay: String,
    /// The greater goes first.
    pub prio: u32,
    /// Whose frames.
    pub src: String,
    /// To whom.
    pub dst: String,
    /// What becomes of them.
    pub via: String,
    /// Who gave it.
    pub origin: Origin,
    /// In words: `in force`, or what it waits for.
    pub state: String,
    /// Frames that it decided on; a superframe is one.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// The overlay's name.
    pub overlay: String,
    /// A member or an address.
    pub to: String,
    /// Whether no plan and no relay takes its place.
    pub pin: bool,
    /// Who gave it.
    pub origin: Origin,
    /// What became of it, in words.
    pub state: String,
}
