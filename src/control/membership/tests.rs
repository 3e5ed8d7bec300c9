use super::*;
use crate::keys::{Identity, OverlayKey, OverlaySecrets};
use crate::seam::{HandshakeKind, LinkEvent, LinkId, Memory, OverlaySettings, Settings, SupernodeSettings};
use crate::time::{Time, WallTime};
use crate::wire::certificate::Certificate;
use crate::wire::relay::LegKey;

fn secrets() -> OverlaySecrets {
    OverlaySecrets::derive("lab", &OverlayKey::from_bytes([1; 32]))
}

/// A node that is registered at two supernodes.
fn registered() -> Control {
    let supernode = |n: u8| SupernodeSettings { address: format!("192.0.2.{n}:7777"), pin: None };
    let switch = crate::datapath::SwitchSettings::default();
    let settings = Settings {
        identity: Identity::from_secret(&[1; 32]),
        name: "attic".into(),
        overlays: vec![OverlaySettings::new("lab", secrets(), switch)],
        supernodes: vec![supernode(1), supernode(2)],
        serve: None,
        relaying: crate::seam::RelaySettings::default(),
        uplink: None,
        links: crate::seam::budget::LinkBudget::default(),
        memory: Memory::default(),
        birthday: true,
        discovery: false,
        handshake: HandshakeKind::StandIn,
        has_aes: false,
    };
    let mut control = Control::new(settings, [3; 32], Time::START, WallTime::default());
    for place in 0..2 {
        let remote = control.homes[place].address.parse().expect("address");
        let link = LinkId::Dialled(place);
        let up = LinkEvent::Up { link, remote, origin: remote, exporter: [9; 32], fingerprint: None };
        control.handle_link(Time::START, up);
        let (overlay, relay, key) = (secrets().id(), RelayId(1), LegKey([2; 16]));
        say(&mut control, place, &Message::Welcome { overlay, relay, key, seen: at(7, 7777), version: Version::OURS });
    }
    control
}

fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, host], port))
}

fn say(control: &mut Control, place: usize, message: &Message) {
    let remote = control.homes[place].remote.expect("it stands");
    let event = LinkEvent::Message { link: LinkId::Dialled(place), remote, message: message.bytes() };
    control.handle_link(Time::START, event);
}

/// Supernode `place` says that it sees the other member there.
fn tell(control: &mut Control, place: usize, seen: SocketAddr) {
    let other = Identity::from_secret(&[2; 32]);
    let certificate = Certificate::issue(&secrets(), &other).bytes().to_vec();
    let member = Member { relay: RelayId(5), seen, certificate, directory: Vec::new(), version: Version::OURS };
    say(control, place, &Message::Roster { overlay: secrets().id(), reset: false, members: vec![member] });
}

fn known(control: &Control) -> Vec<SocketAddr> {
    control.peers.values().flat_map(|peer| peer.paths.candidates.iter().map(|(addr, _)| addr)).collect()
}

#[test]
fn a_lying_supernode_has_one_address_of_each_peer_and_no_more() {
    let mut control = registered();
    for port in 1..500 {
        tell(&mut control, 0, at(66, port));
        tell(&mut control, 0, at(67, port));
    }
    assert_eq!(known(&control), [at(67, 499)]);
    tell(&mut control, 1, at(8, 7777));
    assert_eq!(known(&control), [at(8, 7777), at(67, 499)]);
    tell(&mut control, 0, at(8, 7777));
    tell(&mut control, 0, at(9, 7777));
    assert_eq!(known(&control), [at(8, 7777), at(9, 7777)], "what the other supernode says stays");
}

#[test]
fn an_address_that_answered_stays_whatever_a_supernode_says_later() {
    let mut control = registered();
    tell(&mut control, 0, at(8, 7777));
    for peer in control.peers.values_mut() {
        peer.paths.prove(Time::START, Path::Direct(at(8, 7777)), std::time::Duration::ZERO);
    }
    tell(&mut control, 0, at(66, 1));
    assert_eq!(known(&control), [at(8, 7777), at(66, 1)]);
}

/// The link to supernode 0 stands again, on a stream, and the supernode gives this leg.
fn move_to_stream(control: &mut Control, key: LegKey) -> (Option<Message>, Vec<crate::datapath::Command>) {
    let remote = crate::seam::stream::address(4);
    let link = LinkId::Dialled(0);
    control.fx.links.clear();
    control.fx.commands.clear();
    let up = LinkEvent::Up { link, remote, origin: at(1, 443), exporter: [8; 32], fingerprint: None };
    control.handle_link(Time::START, up);
    let asked = control.fx.links.iter().find_map(|command| {
        let crate::seam::LinkCommand::Send { message, .. } = command else { return None };
        Message::parse(message).expect("ours")
    });
    let seen = "[::]:0".parse().expect("nowhere");
    let (overlay, relay) = (secrets().id(), RelayId(1));
    say(control, 0, &Message::Welcome { overlay, relay, key, seen, version: Version::OURS });
    (asked, control.fx.commands.drain(..).collect())
}

#[test]
fn a_link_that_moves_goes_on_with_its_leg_and_its_members() {
    let mut control = registered();
    tell(&mut control, 0, at(8, 7777));
    let (leg, members) = (control.homes[0].leg(OverlayIndex(0)), control.homes[0].registrations.len());
    let (asked, commands) = move_to_stream(&mut control, LegKey([2; 16]));
    assert!(matches!(asked, Some(Message::Register { continues: Some(RelayId(1)), .. })), "{asked:?}");
    let moved = commands.iter().find_map(|command| {
        let crate::datapath::Command::MoveLeg { leg, relay } = command else { return None };
        Some((*leg, *relay))
    });
    assert_eq!(moved, leg.map(|leg| (leg, crate::seam::stream::address(4))));
    assert_eq!((control.homes[0].leg(OverlayIndex(0)), control.homes[0].registrations.len()), (leg, members));
    assert!(control.peers.values().any(|peer| peer.paths.relays().any(|path| path == relayed(leg, RelayId(5)))));
    assert!(control.homes[0].is_on_stream());
    assert!(!control.me.candidates.iter().any(|own| crate::seam::stream::is_stream(own.addr)));
}

#[test]
fn a_supernode_that_does_not_go_on_gives_a_new_leg() {
    let mut control = registered();
    tell(&mut control, 0, at(8, 7777));
    let before = control.homes[0].leg(OverlayIndex(0));
    let (_, commands) = move_to_stream(&mut control, LegKey([7; 16]));
    assert!(!commands.iter().any(|command| matches!(command, crate::datapath::Command::MoveLeg { .. })));
    let after = control.homes[0].leg(OverlayIndex(0));
    assert!(after.is_some() && after != before);
    assert!(!control.peers.values().any(|peer| peer.paths.relays().any(|path| path == relayed(before, RelayId(5)))));
}

fn relayed(leg: Option<LegId>, relay: RelayId) -> Path {
    Path::Relayed(leg.expect("a leg"), relay)
}

#[test]
fn why_the_first_dial_takes_long_is_told_and_shown_until_there_is_more_to_say() {
    let mut control = registered();
    let link = LinkId::Dialled(1);
    let mut now = Time::START;
    let mut told = |control: &mut Control, event: LinkEvent| {
        control.fx.events.clear();
        control.handle_link(now, event);
        // The next dial.
        now += std::time::Duration::from_secs(9);
        control.handle_timeout(now);
        control.fx.events.iter().any(|event| matches!(event, Event::SupernodeLost { .. }))
    };
    let waiting = || LinkEvent::Waiting { link, reason: "no name server answers".into() };
    assert!(told(&mut control, LinkEvent::Down { link, reason: "it has closed the link".into() }));
    assert!(told(&mut control, waiting()));
    assert_eq!(control.homes[1].trouble.as_deref(), Some("no name server answers"));
    assert!(told(&mut control, LinkEvent::Down { link, reason: "cannot be resolved".into() }));
    assert!(!told(&mut control, waiting()), "it was told");
    assert_eq!(control.homes[1].trouble.as_deref(), Some("no name server answers"));
}
