//! Static rules in the config: `[[overlay.route]]` and `[[overlay.link]]`.

use serde::Deserialize;

use super::{ConfigError, text};
use crate::datapath::{Pattern, RULES_MAX};
use crate::node::{LINKS_MAX, LinkSettings, LinkTo, RouteSettings, Target, check_source};

/// One `[[overlay.route]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RouteConfig {
    /// Whose frames; any if missing.
    #[serde(default, deserialize_with = "text::read")]
    pub src: Pattern,
    /// To whom; any if missing.
    #[serde(default, deserialize_with = "text::read")]
    pub dst: Pattern,
    /// What becomes of them.
    #[serde(deserialize_with = "text::read")]
    pub via: Target,
    /// The greater goes first; 0 if missing.
    #[serde(default)]
    pub prio: u32,
    /// What they came in by; the TAP if missing.
    pub src_if: Option<String>,
}

/// One `[[overlay.link]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LinkConfig {
    /// A member or an address.
    #[serde(deserialize_with = "text::read")]
    pub to: LinkTo,
    /// Whether no plan and no relay takes its place; no if missing.
    #[serde(default)]
    pub pin: bool,
}

/// The routes of one overlay, none of which contradicts another.
pub(super) fn routes(configs: Vec<RouteConfig>) -> Result<Vec<RouteSettings>, ConfigError> {
    super::limit("route", configs.len(), RULES_MAX)?;
    let mut routes: Vec<RouteSettings> = Vec::new();
    for (place, RouteConfig { src, dst, via, prio, src_if }) in configs.into_iter().enumerate() {
        let refused = |why: String| ConfigError::Entry("route", place + 1, why);
        src_if.as_deref().map_or(Ok(()), check_source).map_err(refused)?;
        let route = RouteSettings { src, dst, via, prio };
        route.check().map_err(refused)?;
        let against = routes.iter().zip(1..).find_map(|(other, number)| Some((number, route.contradicts(other)?)));
        if let Some((number, why)) = against {
            return Err(refused(format!("with route {number}: {why}")));
        }
        routes.push(route);
    }
    Ok(routes)
}

/// The links of one overlay, no two of which lead to the same.
pub(super) fn links(configs: Vec<LinkConfig>) -> Result<Vec<LinkSettings>, ConfigError> {
    super::limit("link", configs.len(), LINKS_MAX)?;
    let mut links: Vec<LinkSettings> = Vec::new();
    for (place, LinkConfig { to, pin }) in configs.into_iter().enumerate() {
        let refused = |why: String| ConfigError::Entry("link", place + 1, why);
        let link = LinkSettings { to, pin };
        link.check().map_err(refused)?;
        if let Some(before) = links.iter().position(|other| other.to == link.to) {
            return Err(refused(format!("link {} leads to {} already", before + 1, link.to)));
        }
        links.push(link);
    }
    Ok(links)
}
