use super::*;
use crate::datapath::{Command, SwitchSettings};
use crate::keys::{Identity, OverlayKey, OverlaySecrets};
use crate::seam::{HandshakeKind, Memory, OverlaySettings, Settings};
use crate::time::WallTime;
use crate::wire::discovery::PACKET_LEN;

const PORT: u16 = 7777;

/// A member at 192.0.2.NUMBER.
fn member(number: u8, key: u8, discovery: bool) -> Control {
    let secrets = OverlaySecrets::derive("lab", &OverlayKey::from_bytes([key; 32]));
    let settings = Settings {
        identity: Identity::from_secret(&[number; 32]),
        name: format!("n{number}"),
        overlays: vec![OverlaySettings::new("lab", secrets, SwitchSettings::default())],
        supernodes: Vec::new(),
        serve: None,
        relaying: crate::seam::RelaySettings::default(),
        uplink: None,
        links: crate::seam::budget::LinkBudget::default(),
        memory: Memory::default(),
        birthday: false,
        handshake: HandshakeKind::Noise,
        discovery,
        has_aes: true,
    };
    let wall = WallTime::since_1970(Duration::from_secs(1_700_000_000));
    let mut control = Control::new(settings, [number; 32], Time::START, wall);
    control.handle_addresses(Time::START, PORT, vec![address(number).ip()]);
    control
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], PORT))
}

/// Where its announcements come from.
fn speaker(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 40_000))
}

/// What it announces within `span` of the start.
fn announced(control: &mut Control, span: Duration) -> Vec<Announce> {
    let end = Time::START + span;
    while let Some((at, _)) = control.fx.timers.next().filter(|(at, _)| *at <= end) {
        control.handle_timeout(at);
    }
    control.fx.announces.drain(..).collect()
}

fn first(control: &mut Control) -> Vec<u8> {
    announced(control, START_SPREAD).pop().expect("an announcement").packet
}

/// Where INITs go to.
fn greeted(control: &mut Control) -> Vec<Path> {
    announced(control, Duration::from_secs(2));
    let greeting = |command| if let Command::SendPlain { path, .. } = command { Some(path) } else { None };
    control.fx.commands.drain(..).filter_map(greeting).collect()
}

#[test]
fn a_member_on_the_link_is_greeted_and_answered() {
    let (mut one, mut other) = (member(1, 1, true), member(2, 1, true));
    let packet = first(&mut one);
    assert_eq!(packet.len(), PACKET_LEN);
    let now = Time::START + Duration::from_secs(1);
    other.handle_announcement(now, speaker(1), &packet);
    let answer = other.fx.announces.pop_back().expect("an answer");
    assert_eq!(answer.to, Some(speaker(1)));
    assert!(greeted(&mut other).contains(&Path::Direct(address(1))));
    one.handle_announcement(now, speaker(2), &answer.packet);
    assert!(one.fx.announces.is_empty(), "an answer is not answered");
    assert!(greeted(&mut one).contains(&Path::Direct(address(2))));
}

#[test]
fn strangers_repeats_and_our_own_are_ignored() {
    let (mut one, mut other, mut stranger) = (member(1, 1, true), member(2, 1, true), member(3, 9, true));
    let packet = first(&mut one);
    let now = Time::START + Duration::from_secs(1);
    for deaf in [&mut stranger, &mut one] {
        announced(deaf, START_SPREAD);
        deaf.handle_announcement(now, speaker(1), &packet);
        assert!(deaf.peers.is_empty() && deaf.fx.announces.is_empty());
    }
    other.handle_announcement(now, speaker(1), &packet);
    other.fx.announces.clear();
    other.handle_announcement(now, speaker(66), &packet);
    assert!(other.fx.announces.is_empty(), "a repeat is answered");
}

#[test]
fn what_is_damaged_opens_for_nobody() {
    let (mut one, mut other) = (member(1, 1, true), member(2, 1, true));
    let packet = first(&mut one);
    for place in 0..PACKET_LEN {
        let mut damaged = packet.clone();
        damaged[place] ^= 0x10;
        other.handle_announcement(Time::START, speaker(1), &damaged);
        other.handle_announcement(Time::START, speaker(1), &packet[..place]);
    }
    assert!(other.peers.is_empty());
}

#[test]
fn nothing_tells_overlay_or_node_to_a_stranger() {
    let mut one = member(1, 1, true);
    let packets = announced(&mut one, Duration::from_secs(30));
    let (id, overlay) = (one.me.identity.id().0, one.overlays[0].id().0);
    let secret = [&id[..], &overlay[..], &[192, 0, 2, 1]];
    for Announce { packet, .. } in &packets {
        let tells = |word: &[u8]| packet.windows(word.len()).any(|window| window == word);
        assert!(!secret.iter().any(|word| tells(word)));
    }
    assert!(packets.len() >= 2 && packets[0].packet[4..20] != packets[1].packet[4..20], "two look alike");
}

#[test]
fn announcements_get_rarer_down_to_one_a_minute() {
    let mut one = member(1, 1, true);
    let early = announced(&mut one, Duration::from_secs(60)).len();
    assert!((4..=5).contains(&early), "{early} in the first minute");
    announced(&mut one, Duration::from_secs(600));
    let late = announced(&mut one, Duration::from_secs(1200)).len();
    assert!((8..=10).contains(&late), "{late} in ten minutes");
}

#[test]
fn a_node_that_shall_not_is_silent_and_deaf() {
    let (mut one, mut silent) = (member(1, 1, true), member(2, 1, false));
    let packet = first(&mut one);
    assert!(announced(&mut silent, Duration::from_secs(600)).is_empty());
    silent.handle_announcement(Time::START, speaker(1), &packet);
    assert!(silent.peers.is_empty());
}
