use super::*;
use crate::keys::{Identity, OverlayKey, OverlaySecrets, sign};
use crate::seam::LinkCommand;
use crate::time::{Time, WallTime};

const EXPORTER: [u8; 32] = [7; 32];

struct World {
    supernode: Supernode,
    fx: Effects,
}

fn secrets(key: u8) -> OverlaySecrets {
    OverlaySecrets::derive("lab", &OverlayKey::from_bytes([key; 32]))
}

/// Where a node is seen, and where it comes from: the same, by QUIC.
fn place(port: u16) -> (SocketAddr, SocketAddr) {
    (from(port), from(port))
}

fn from(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], port))
}

fn register(node: u8, key: u8, exporter: &[u8; 32]) -> Vec<u8> {
    let (identity, secrets) = (Identity::from_secret(&[node; 32]), secrets(key));
    let certificate = Certificate::issue(&secrets, &identity).bytes().to_vec();
    let signature = sign(&identity, &registration(exporter, secrets.id()));
    Message::Register { certificate, signature, directory: vec![node], version: Version::OURS, continues: None }.bytes()
}

impl World {
    fn new(settings: ServeSettings) -> Self {
        let fx = Effects::new([1; 32], Time::START, WallTime::default());
        Self { supernode: Supernode::new(settings), fx }
    }

    /// A link whose node says `message`; what the supernode said to anybody then.
    fn say(&mut self, link: u64, message: &[u8]) -> Vec<(u64, Message)> {
        if !self.supernode.links.contains_key(&link) {
            self.supernode.on_up(&mut self.fx, link, place(1000 + u16::try_from(link).expect("small")), EXPORTER);
        }
        let remote = self.supernode.links[&link].remote;
        self.supernode.on_message(&mut self.fx, link, remote, message);
        self.said()
    }

    fn said(&mut self) -> Vec<(u64, Message)> {
        self.fx.timers.cancel(Timer::Push);
        self.supernode.on_push_timer(&mut self.fx);
        let read = |command| {
            let LinkCommand::Send { link: LinkId::Accepted(link), message } = command else {
                panic!("a supernode only sends: {command:?}")
            };
            (link, Message::parse(&message).expect("own message").expect("known type"))
        };
        self.fx.links.drain(..).map(read).collect()
    }
}

fn refusal(said: &[(u64, Message)]) -> Option<Refusal> {
    match said {
        [(_, Message::Refused { reason, .. })] => Some(*reason),
        _ => None,
    }
}

#[test]
fn two_members_hear_of_each_other_once() {
    let mut world = World::new(ServeSettings::default());
    let first = world.say(1, &register(1, 9, &EXPORTER));
    assert!(matches!(first[..], [(1, Message::Welcome { .. })]), "{first:?}");
    let second = world.say(2, &register(2, 9, &EXPORTER));
    let [
        (2, Message::Welcome { .. }),
        (2, Message::Roster { members: to_new, .. }),
        (1, Message::Roster { members, .. }),
    ] = &second[..]
    else {
        panic!("{second:?}")
    };
    assert_eq!((to_new[0].directory.as_slice(), members[0].directory.as_slice()), ([1].as_slice(), [2].as_slice()));
}

#[test]
fn members_of_other_overlays_hear_nothing() {
    let mut world = World::new(ServeSettings::default());
    world.say(1, &register(1, 9, &EXPORTER));
    let said = world.say(2, &register(2, 8, &EXPORTER));
    assert!(matches!(said[..], [(2, Message::Welcome { .. })]), "{said:?}");
}

#[test]
fn what_does_not_hold_is_refused_with_its_reason() {
    let mut world = World::new(ServeSettings { allow: Some(vec![secrets(9).id()]), ..ServeSettings::default() });
    assert_eq!(refusal(&world.say(1, &register(1, 8, &EXPORTER))), Some(Refusal::NotAllowed));
    assert_eq!(refusal(&world.say(1, &register(1, 9, &[6; 32]))), Some(Refusal::Signature), "of another link");
    let mut bent = register(1, 9, &EXPORTER);
    bent[40] ^= 1;
    assert_eq!(refusal(&world.say(1, &bent)), Some(Refusal::Certificate));
    assert!(refusal(&world.say(1, &register(1, 9, &EXPORTER))).is_none());
}

#[test]
fn another_major_version_is_refused_and_an_older_minor_one_is_not() {
    let mut world = World::new(ServeSettings::default());
    let mut message = register(1, 9, &EXPORTER);
    let major = message.len() - 2;
    message[major] = 2;
    assert_eq!(refusal(&world.say(1, &message)), Some(Refusal::Version));
    message.truncate(major);
    let said = world.say(1, &message);
    assert!(matches!(said[..], [(1, Message::Welcome { version: Version::OURS, .. })]), "{said:?}");
}

#[test]
fn a_certificate_that_does_not_hold_is_refused_by_the_overlay_it_names() {
    let mut world = World::new(ServeSettings::default());
    let mut bent = register(1, 9, &EXPORTER);
    bent[150] ^= 1;
    let said = world.say(1, &bent);
    let reason = Refusal::Certificate;
    let told = Message::Refused { overlay: secrets(9).id(), reason, version: Version::OURS };
    assert_eq!(said, [(1, told)]);
}

#[test]
fn a_restarted_node_takes_its_own_place() {
    let mut world = World::new(ServeSettings::default());
    world.say(1, &register(1, 9, &EXPORTER));
    world.say(2, &register(2, 9, &EXPORTER));
    let said = world.say(3, &register(1, 9, &EXPORTER));
    assert!(said.iter().any(|(to, message)| *to == 2 && matches!(message, Message::Gone { .. })), "{said:?}");
    assert_eq!(world.supernode.overlays[&secrets(9).id()].members.len(), 2);
    world.supernode.on_down(&mut world.fx, 1, "");
    assert_eq!(world.supernode.overlays[&secrets(9).id()].members.len(), 2, "the old link's end does not matter");
}

#[test]
fn a_link_has_one_registration_in_an_overlay() {
    let mut world = World::new(ServeSettings::default());
    for node in 1..=20 {
        world.say(1, &register(node, 9, &EXPORTER));
    }
    assert_eq!(world.supernode.overlays[&secrets(9).id()].members.len(), 1);
    world.supernode.on_down(&mut world.fx, 1, "");
    assert!(world.supernode.overlays.is_empty() && world.supernode.per_address.is_empty());
}

#[test]
fn a_member_cannot_take_anothers_place() {
    let mut world = World::new(ServeSettings::default());
    world.say(1, &register(1, 9, &EXPORTER));
    let (thief, victim, secrets) = (Identity::from_secret(&[2; 32]), Identity::from_secret(&[1; 32]), secrets(9));
    let certificate = Certificate::issue_for(&secrets, thief.fingerprint().0, victim.id()).bytes().to_vec();
    let signature = sign(&thief, &registration(&EXPORTER, secrets.id()));
    let stolen =
        Message::Register { certificate, signature, directory: vec![], version: Version::OURS, continues: None }
            .bytes();
    assert_eq!(refusal(&world.say(2, &stolen)), Some(Refusal::Certificate));
}

#[test]
fn a_clone_is_told_and_the_older_one_too() {
    let mut world = World::new(ServeSettings::default());
    world.say(1, &register(1, 9, &EXPORTER));
    let said = world.say(2, &register(1, 9, &EXPORTER));
    let told = (1, Message::Refused { overlay: secrets(9).id(), reason: Refusal::Replaced, version: Version::OURS });
    assert!(said.contains(&told), "{said:?}");
}

#[test]
fn a_link_that_never_stops_talking_is_closed() {
    let mut world = World::new(ServeSettings::default());
    world.supernode.on_up(&mut world.fx, 1, place(1), EXPORTER);
    for nonce in 0..1000 {
        world.supernode.on_message(&mut world.fx, 1, from(1), &Message::Ping { nonce }.bytes());
    }
    let closed = |command: &LinkCommand| matches!(command, LinkCommand::Close { link: LinkId::Accepted(1) });
    assert!(world.fx.links.iter().any(closed));
    assert!(world.supernode.links.is_empty());
}

#[test]
fn the_last_one_out_leaves_nothing() {
    let mut world = World::new(ServeSettings::default());
    for node in 1..=3 {
        world.say(node, &register(u8::try_from(node).expect("small"), 9, &EXPORTER));
    }
    world.say(1, &Message::Leave { overlay: secrets(9).id() }.bytes());
    world.supernode.on_down(&mut world.fx, 2, "");
    world.supernode.on_down(&mut world.fx, 3, "");
    let left = &world.supernode;
    assert!(left.overlays.is_empty() && left.overlay_of.is_empty() && left.per_address.is_empty());
}

#[test]
fn one_address_cannot_fill_the_supernode() {
    let mut world = World::new(ServeSettings::default());
    world.supernode.per_address.insert(from(0).ip(), PER_ADDRESS_MAX);
    assert_eq!(refusal(&world.say(1, &register(1, 9, &EXPORTER))), Some(Refusal::Full));
}

#[test]
fn a_node_that_moved_is_told_of_at_its_new_address() {
    let mut world = World::new(ServeSettings::default());
    world.say(1, &register(1, 9, &EXPORTER));
    world.say(2, &register(2, 9, &EXPORTER));
    world.supernode.on_message(&mut world.fx, 1, from(4444), &Message::Ping { nonce: 5 }.bytes());
    let said = world.said();
    assert!(said.contains(&(1, Message::Pong { nonce: 5, seen: from(4444) })), "{said:?}");
    let told = said.iter().any(
        |(to, message)| matches!(message, Message::Roster { members, .. } if *to == 2 && members[0].seen == from(4444)),
    );
    assert!(told, "{said:?}");
}

#[test]
fn what_changes_in_a_moment_is_told_in_one_message() {
    let mut world = World::new(ServeSettings::default());
    world.say(1, &register(1, 9, &EXPORTER));
    for node in 2..=9 {
        world.supernode.on_up(&mut world.fx, node, place(u16::try_from(node).expect("small")), EXPORTER);
        let register = register(u8::try_from(node).expect("small"), 9, &EXPORTER);
        world.supernode.on_message(&mut world.fx, node, from(1), &register);
    }
    world.supernode.on_down(&mut world.fx, 9, "");
    let said = world.said();
    let to_first: Vec<_> = said.iter().filter(|(to, _)| *to == 1).map(|(_, message)| message).collect();
    let [Message::Gone { relays, .. }, Message::Roster { members, reset: false, .. }] = &to_first[..] else {
        panic!("{to_first:?}")
    };
    assert_eq!((relays.len(), members.len()), (1, 7));
}

#[test]
fn nobody_hears_again_what_its_roster_said() {
    let mut world = World::new(ServeSettings::default());
    for node in 1..=30 {
        world.supernode.on_up(&mut world.fx, node, place(u16::try_from(node).expect("small")), EXPORTER);
        let register = register(u8::try_from(node).expect("small"), 9, &EXPORTER);
        world.supernode.on_message(&mut world.fx, node, from(1), &register);
    }
    world.fx.links.clear();
    let said = world.said();
    let to = |link: u64| said.iter().filter(|(to, _)| *to == link).count();
    assert_eq!([1, 13, 14, 27, 28, 29, 30].map(to), [3, 3, 2, 2, 1, 1, 0]);
}

#[test]
fn pushes_have_a_gap_and_the_first_one_has_none() {
    let mut world = World::new(ServeSettings::default());
    world.say(1, &register(1, 9, &EXPORTER));
    world.fx.now = Time::START + Duration::from_secs(5);
    for node in [2, 3] {
        world.supernode.on_up(&mut world.fx, node, place(1), EXPORTER);
        let register = register(u8::try_from(node).expect("small"), 9, &EXPORTER);
        world.supernode.on_message(&mut world.fx, node, from(1), &register);
        let due = if node == 2 { world.fx.now } else { world.fx.now + Duration::from_millis(50) };
        assert_eq!(world.fx.timers.when(Timer::Push), Some(due));
        if node == 2 {
            world.fx.timers.cancel(Timer::Push);
            world.supernode.on_push_timer(&mut world.fx);
        }
    }
}

#[test]
fn a_link_that_does_not_register_is_closed_after_ten_seconds() {
    let mut world = World::new(ServeSettings::default());
    world.say(1, &register(1, 9, &EXPORTER));
    world.fx.now = Time::START + Duration::from_secs(3);
    world.supernode.on_up(&mut world.fx, 2, place(2), EXPORTER);
    world.fx.now = Time::START + Duration::from_secs(10);
    world.supernode.on_newcomers_timer(&mut world.fx);
    assert!(world.fx.links.is_empty(), "{:?}", world.fx.links);
    assert_eq!(world.fx.timers.when(Timer::Newcomers), Some(Time::START + Duration::from_secs(13)));
    world.fx.now = Time::START + Duration::from_secs(13);
    world.supernode.on_newcomers_timer(&mut world.fx);
    assert_eq!(world.fx.links, [LinkCommand::Close { link: LinkId::Accepted(2) }]);
    assert_eq!(world.supernode.links.keys().copied().collect::<Vec<_>>(), [1]);
}

/// The same registration, which goes on with a leg.
fn go_on(node: u8, key: u8, relay: RelayId) -> Vec<u8> {
    [register(node, key, &EXPORTER), relay.0.to_be_bytes().to_vec()].concat()
}

#[test]
fn a_member_that_changes_its_transport_keeps_its_leg_and_others_hear_only_where_it_is() {
    let mut world = World::new(ServeSettings::default());
    world.supernode.on_up(&mut world.fx, 1, (crate::seam::stream::address(1), from(443)), EXPORTER);
    let first = world.say(1, &register(1, 9, &EXPORTER));
    let [(1, Message::Welcome { relay, key, seen, .. })] = first[..] else { panic!("{first:?}") };
    assert_eq!(seen.to_string(), "[::]:0", "a stream's name is nobody's business");
    world.say(3, &register(3, 9, &EXPORTER));
    world.fx.commands.clear();
    world.fx.events.clear();

    let moved = world.say(2, &go_on(1, 9, relay));
    let again = Message::Welcome { overlay: secrets(9).id(), relay, key, seen: from(1002), version: Version::OURS };
    assert_eq!(moved[0], (2, again));
    let [(3, Message::Roster { reset: false, members, .. })] = &moved[1..] else { panic!("{moved:?}") };
    assert_eq!((members[0].relay, members[0].seen), (relay, from(1002)));
    let [Command::MoveChannel { relay: what, addr }] = *world.fx.commands.make_contiguous() else { panic!("more") };
    assert_eq!((what, addr), (relay, from(1002)));
    world.supernode.on_down(&mut world.fx, 1, "");
    let is_of_link = |event: &Event| matches!(event, Event::LinkEnded { .. });
    assert!(world.said().is_empty(), "the link before has nothing left to take along");
    assert!(world.fx.events.iter().all(is_of_link), "{:?}", world.fx.events);
}

#[test]
fn the_end_of_a_member_or_a_link_has_its_reason() {
    let mut world = World::new(ServeSettings::default());
    for node in 1..=4 {
        world.say(u64::from(node), &register(node, 9, &EXPORTER));
    }
    world.supernode.on_up(&mut world.fx, 5, place(5), EXPORTER);
    world.fx.events.clear();
    world.supernode.on_down(&mut world.fx, 1, "the node does not answer");
    world.say(2, &Message::Leave { overlay: secrets(9).id() }.bytes());
    world.say(6, &register(3, 9, &EXPORTER));
    for nonce in 0..=u64::from(LINK_BURST) {
        let remote = world.supernode.links.get(&4).map_or(from(4), |link| link.remote);
        world.supernode.on_message(&mut world.fx, 4, remote, &Message::Ping { nonce }.bytes());
    }
    world.fx.now = Time::START + REGISTER_PATIENCE;
    world.supernode.on_newcomers_timer(&mut world.fx);
    let reason = |event: Event| {
        if let Event::MemberLeft { reason, .. } = event {
            return Some(format!("member: {reason}"));
        }
        let Event::LinkEnded { from, reason } = event else { return None };
        Some(format!("{}: {reason}", from.port()))
    };
    let reasons = world.fx.events.drain(..).filter_map(reason).collect::<Vec<_>>();
    assert_eq!(
        reasons,
        [
            "member: the node does not answer",
            "member: it left",
            "member: it has registered anew",
            "member: it sends too many messages",
            "5: it has not registered in time"
        ]
    );
}

#[test]
fn nobody_goes_on_with_anothers_leg() {
    let mut world = World::new(ServeSettings::default());
    let first = world.say(1, &register(1, 9, &EXPORTER));
    let [(1, Message::Welcome { relay: victim, .. })] = first[..] else { panic!("{first:?}") };
    for (link, thief) in [(2, go_on(2, 9, victim)), (3, go_on(1, 8, victim)), (4, go_on(3, 9, RelayId(!victim.0)))] {
        let said = world.say(link, &thief);
        let welcome = said.iter().find_map(|(to, message)| {
            let Message::Welcome { relay, .. } = message else { return None };
            Some(*relay).filter(|_| *to == link)
        });
        assert!(welcome.is_some_and(|relay| relay != victim), "{said:?}");
    }
}
