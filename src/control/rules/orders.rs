//! Orders about rules: what they mean, and why some are refused.

use super::{Control, Origin, Route, Whom};
use crate::control::Peer;
use crate::control::candidate::is_usable;
use crate::control::carriers::Via;
use crate::control::report::rules::{LinkRequest, RouteRequest};
use crate::control::reporting::NO_MEMBER;
use crate::datapath::buf::OverlayIndex;
use crate::datapath::{Pattern, RULES_MAX};
use crate::seam::rule::{LINKS_MAX, LinkSettings, LinkTo, RouteSettings, Target, check_source};
use crate::wire::session::CandidateKind;

impl Control {
    /// Carries out an order about routes; gives the number of the new one, if there is one.
    pub(in crate::control) fn order_route(&mut self, order: &RouteRequest) -> Result<Option<u32>, String> {
        let added = match order {
            RouteRequest::Show => return Ok(None),
            RouteRequest::Add { overlay, src, dst, via, prio, src_if } => {
                check_source(src_if)?;
                let overlay = self.overlay_named(overlay.as_deref())?;
                let route = RouteSettings { src: src.parse()?, dst: dst.parse()?, via: via.parse()?, prio: *prio };
                self.check_route(overlay, &route)?;
                Some(self.rules.add_route(overlay, route, Origin::Order))
            }
            RouteRequest::Del { id } => {
                let place = self.rules.routes.iter().position(|route| route.id == *id);
                let place = place.ok_or_else(|| format!("there is no rule {id}; `longwire route show` lists them"))?;
                self.rules.routes.remove(place);
                None
            }
        };
        self.review_rules();
        Ok(added)
    }

    /// The overlay of this name, or the only one.
    pub(in crate::control) fn overlay_named(&self, name: Option<&str>) -> Result<OverlayIndex, String> {
        let names = || self.overlays.iter().map(|overlay| overlay.name.as_str()).collect::<Vec<_>>().join(", ");
        let place = match name {
            Some(name) => self.overlays.iter().position(|overlay| overlay.name == name),
            None => (self.overlays.len() == 1).then_some(0),
        };
        place.map(OverlayIndex).ok_or_else(|| match name {
            _ if self.overlays.is_empty() => NO_MEMBER.into(),
            Some(name) => format!("there is no overlay {name} here, but these: {}", names()),
            None => format!("say --overlay NAME, one of: {}", names()),
        })
    }

    fn check_route(&self, overlay: OverlayIndex, route: &RouteSettings) -> Result<(), String> {
        route.check()?;
        let own = self.me.identity.id().station();
        if [route.src, route.dst].into_iter().any(|side| Pattern::single(side).is_some_and(|mac| mac.0 == own)) {
            return Err("that is this daemon's own address: what it asks its segment is not for rules".into());
        }
        match &route.via {
            Target::Node(node) => drop(self.whom(overlay, node)?),
            Target::Path(by, to) => {
                self.whom(overlay, to)?;
                self.whom(overlay, by)?;
            }
            Target::Drop | Target::Direct | Target::Supernode => {}
        }
        let others = || self.rules.routes.iter().filter(|other| other.overlay == overlay);
        if others().count() >= RULES_MAX {
            return Err(format!("there are {RULES_MAX} rules already"));
        }
        let against = |other: &Route| Some((other.id, route.contradicts(&other.settings)?));
        match (others().find_map(against), &route.via) {
            (Some((id, why)), _) => Err(format!("it contradicts rule {id}: {why}")),
            (None, Target::Path(by, to)) => self.check_carrier(self.whom(overlay, by)?, self.whom(overlay, to)?),
            (None, _) => Ok(()),
        }
    }

    fn check_carrier(&self, by: Whom, to: Whom) -> Result<(), String> {
        match (by, to) {
            (Whom::Own, _) => Err("a path begins at another member; `via direct` is the way without one".into()),
            (Whom::Peer(..), Whom::Own) => Ok(()),
            (Whom::Peer(by, _), Whom::Peer(to, _)) => self.unwilling(by, to).map_or(Ok(()), Err),
        }
    }

    /// Carries out an order about links.
    pub(in crate::control) fn order_link(&mut self, order: &LinkRequest) -> Result<(), String> {
        match order {
            LinkRequest::Show => return Ok(()),
            LinkRequest::Add { overlay, to, pin } => {
                let overlay = self.overlay_named(overlay.as_deref())?;
                let link = LinkSettings { to: to.parse()?, pin: *pin };
                self.check_link(overlay, &link)?;
                // A pin of before goes with the link of before.
                let _there_was_none = self.del_link(overlay, &link.to);
                self.rules.add_link(overlay, link, Origin::Order);
            }
            LinkRequest::Del { overlay, to } => {
                let overlay = self.overlay_named(overlay.as_deref())?;
                self.del_link(overlay, &to.parse()?)?;
            }
        }
        self.review_rules();
        Ok(())
    }

    fn check_link(&self, overlay: OverlayIndex, link: &LinkSettings) -> Result<(), String> {
        link.check()?;
        if self.rules.links.iter().filter(|other| other.overlay == overlay).count() >= LINKS_MAX {
            return Err(format!("there are {LINKS_MAX} links already"));
        }
        match &link.to {
            LinkTo::Peer(name) => {
                let peer = self.peers.get(&self.other(overlay, name)?);
                let by_member = |peer: &Peer| peer.carriers.is_pinned && matches!(peer.carriers.via, Via::Member(_));
                if link.pin && peer.is_some_and(by_member) {
                    let why = "another member was ordered to relay";
                    return Err(format!("{why}; `longwire via {name} auto` takes that back"));
                }
                Ok(())
            }
            LinkTo::Address(addr) if !is_usable(*addr) => Err(format!("no other host can be at {addr}")),
            LinkTo::Address(addr) if self.inward.leads_to(addr.ip()) => {
                Err(format!("this host's route to {addr} leads into an overlay: sealed packets would run in circles"))
            }
            LinkTo::Address(addr) if self.host.1.contains(&addr.ip()) && self.host.0 == addr.port() => {
                Err(format!("{addr} is this node itself"))
            }
            LinkTo::Address(_) => Ok(()),
        }
    }

    /// What the link ordered is taken back; a direct path that is there stays as good as any.
    fn del_link(&mut self, overlay: OverlayIndex, to: &LinkTo) -> Result<(), String> {
        let is_it = |link: &super::Link| link.overlay == overlay && link.settings.to == *to;
        let place = self.rules.links.iter().position(is_it);
        let place = place.ok_or_else(|| format!("no link to {to} was added; `longwire link show` lists them"))?;
        let link = self.rules.links.remove(place);
        for port in link.told {
            match to {
                // Another link may name the same peer otherwise.
                LinkTo::Peer(_) if self.pinned_link(port).is_some() => {}
                LinkTo::Peer(_) => self.pin(port, Via::Auto),
                LinkTo::Address(addr) => self.with(port, |peer, _| {
                    peer.paths.candidates.withdraw(CandidateKind::Configured, *addr);
                }),
            }
        }
        Ok(())
    }
}
