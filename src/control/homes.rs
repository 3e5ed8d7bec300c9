//! Which supernodes a node registers at, out of all that it knows.
//!
//! Known are those of the settings, in the user's order, and behind them those that supernodes told of.
//! The first [`ACTIVE_MAX`] that answer are registered at; the ones in front of them that do not answer are
//! dialled on, the ones behind are spared. So all members with the same list meet at the same supernodes.

use super::registration::Home;
use super::standing::Registration;
use super::timers::Timer;
use super::{Control, now_soon};
use crate::keys::Fingerprint;
use crate::seam::{Event, Memory, SupernodeSettings};
use crate::wire::message::{Message, OtherSupernode};

/// Supernodes registered at: one carries, one stands by, one may be rebooting.
const ACTIVE_MAX: usize = 3;
/// Supernodes remembered that others told of. Whoever tells lies costs this many dials.
const LEARNED_MAX: usize = 8;

/// All supernodes known at the start, none dialled yet.
pub(super) fn known(settings: &[SupernodeSettings], memory: &Memory) -> Vec<Home> {
    let mut homes = Vec::new();
    for (place, supernode) in settings.iter().enumerate() {
        let mut home = Home::new(place, supernode);
        let remembered = memory.supernodes.get(&home.address);
        home.pin = home.pin.or_else(|| remembered.and_then(|text| text.parse().ok()));
        homes.push(home);
    }
    for text in memory.learned.iter().take(LEARNED_MAX) {
        let Some((address, key)) = text.split_once('#') else { continue };
        let Ok(fingerprint) = key.parse::<Fingerprint>() else { continue };
        if !is_known(&homes, address, fingerprint) {
            homes.push(learned(homes.len(), address, fingerprint));
        }
    }
    for home in &mut homes {
        home.reached = memory.reached.get(&home.address).copied();
    }
    homes
}

fn learned(place: usize, address: &str, fingerprint: Fingerprint) -> Home {
    let settings = SupernodeSettings { address: address.to_owned(), pin: Some(fingerprint) };
    let mut home = Home::new(place, &settings);
    home.is_learned = true;
    home
}

fn is_known(homes: &[Home], address: &str, fingerprint: Fingerprint) -> bool {
    homes.iter().any(|home| home.address == address || home.pin == Some(fingerprint))
}

/// What should survive of `homes`.
pub(super) fn remember(homes: &[Home], memory: &mut Memory) {
    for home in homes {
        let Some(pin) = home.pin else { continue };
        if home.is_learned {
            memory.learned.push(format!("{}#{pin}", home.address));
        } else {
            memory.supernodes.insert(home.address.clone(), pin.to_string());
        }
        memory.reached.extend(home.reached.map(|reached| (home.address.clone(), reached)));
    }
}

impl Control {
    /// Dials what is needed, spares what is not. To be called whenever one came or went.
    pub(super) fn review_homes(&mut self) {
        let mut room = ACTIVE_MAX;
        for place in 0..self.homes.len() {
            if room == 0 {
                self.release_home(place);
            } else {
                self.homes[place].engage(&mut self.fx);
                room -= usize::from(self.homes[place].is_promising());
            }
        }
    }

    fn release_home(&mut self, place: usize) {
        for (overlay, _) in self.homes[place].legs() {
            let overlay = self.overlays[overlay.0].id();
            self.fx.tell(crate::seam::LinkId::Dialled(place), &Message::Leave { overlay });
        }
        let registrations = self.homes[place].release(&mut self.fx);
        for (_, Registration { standing, .. }) in registrations {
            self.close_leg(standing.leg());
        }
    }

    /// A path has fallen silent: if it was our own way out that changed, supernodes do not hear us either.
    pub(super) fn calm_down(&mut self) {
        if std::mem::take(&mut self.fx.is_uneasy) {
            for home in &mut self.homes {
                home.hurry(&mut self.fx);
            }
        }
    }

    /// [`Timer::Link`] of the supernode at `place`.
    pub(super) fn on_link_timer(&mut self, place: usize) {
        self.homes[place].on_link_timer(&mut self.fx);
        self.review_homes();
    }

    /// A supernode told of others.
    pub(super) fn on_supernodes(&mut self, place: usize, list: &[OtherSupernode]) {
        let own = self.me.identity.fingerprint();
        for OtherSupernode { address, fingerprint } in list {
            if *fingerprint == own || is_known(&self.homes, address, *fingerprint) {
                continue;
            }
            let Some(free) = self.place_for_learned() else { continue };
            let home = learned(free, address, *fingerprint);
            if free == self.homes.len() {
                self.homes.push(home);
            } else {
                self.release_home(free);
                self.homes[free] = home;
            }
            let from = self.homes[place].address.clone();
            self.fx.events.push_back(Event::SupernodeLearned { supernode: address.clone(), from });
            self.fx.timers.set_earlier(Timer::Remember, now_soon(self.fx.now));
        }
        self.review_homes();
    }

    /// A new place, or that of one that was learned and does not answer.
    fn place_for_learned(&self) -> Option<usize> {
        if self.homes.iter().filter(|home| home.is_learned).count() < LEARNED_MAX {
            return Some(self.homes.len());
        }
        self.homes.iter().position(|home| home.is_learned && !home.is_promising())
    }
}
