//! Who gets in, and who does not: keys from wherever they are kept, allow lists, pinned supernodes,
//! strangers at the door. The members are the hosts themselves, with an address on the TAP.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lab::{Daemon, Host, Lab, Nat, Ping, Supernode, inner_address, longwire, new_key, poll_for, wait_for};
use longwire::wire::handshake::{Envelope, Suite};

const MEETING: Duration = Duration::from_secs(15);

/// Long enough for what must not happen.
const WATCH: Duration = Duration::from_secs(2);

/// Handshakes of a stranger; fewer than the limit at once.
const SHOTS: u64 = 200;

/// Public hosts, each at a site of its own, and a supernode elsewhere.
struct Scene {
    supernode: Supernode,
    server: Host,
    lab: Lab,
}

/// A host that is a member itself.
struct Member {
    daemon: Daemon,
    host: Host,
    number: usize,
}

impl Scene {
    fn new(supernode: &[&str]) -> Scene {
        Scene::with(Lab::new(), supernode)
    }

    fn with(mut lab: Lab, supernode: &[&str]) -> Scene {
        let server = lab.supernode_host("sn");
        let supernode = Supernode::start(&lab, &server, supernode);
        Scene { supernode, server, lab }
    }

    /// `longwire up lan` on the next host, with these words; `before` see [`Daemon::start_words`].
    fn member(&mut self, number: usize, before: &[&str], words: &[&str]) -> Member {
        let site = self.lab.site(&format!("s{number}"), Nat::Open);
        let host = self.lab.host(&site, &format!("h{number}"));
        let address = format!("{}/24", inner_address(number));
        let words = [&["up", "lan", "--address", &address], words].concat();
        let name = format!("n{number}");
        let daemon = Daemon::start_words(&self.lab, &host, &name, &name, before, &words);
        Member { daemon, host, number }
    }

    /// The same with a key file and the supernode at `address`.
    fn member_with_key(&mut self, number: usize, key: &str, address: &str) -> Member {
        let file = secret(&self.lab, &format!("{number}.key"), key);
        self.member(number, &[], &["--key-file", &file, "--supernode", address])
    }
}

impl Member {
    /// Whether a ping across the overlay is answered in time.
    fn hears(&self, other: &Member, timeout: Duration) -> bool {
        let ping = Ping::start(&self.host.space, inner_address(other.number), Duration::from_millis(100), &[]);
        poll_for(timeout, || (!ping.so_far().replies.is_empty()).then_some(())).is_some()
    }

    #[track_caller]
    fn says(&self, words: &str) {
        let what = format!("n{} says `{words}`", self.number);
        wait_for(&what, MEETING, || self.daemon.process().stderr().contains(words).then_some(()));
    }
}

/// A file of mode 0600.
fn secret(lab: &Lab, name: &str, text: &str) -> String {
    let path = lab.dir().join(name);
    fs::write(&path, format!("{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_string_lossy().into_owned()
}

fn overlay_id(lab: &Lab, key: &str) -> String {
    let file = secret(lab, "asked.key", key);
    let output = longwire(&["id", "lan", "--key-file", &file]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_key_joins_from_the_environment_from_standard_input_and_from_a_passphrase() {
    let mut scene = Scene::new(&[]);
    let supernode = scene.supernode.address.clone();
    let key = new_key();
    let file = secret(&scene.lab, "lan.key", &key);
    let variable = format!("LONGWIRE_KEY={key}");
    let from_environment = scene.member(1, &["env", &variable], &["--supernode", &supernode]);
    let redirected = ["sh", "-c", "file=$1; shift; exec \"$@\" < \"$file\"", "sh", &file];
    let from_input = scene.member(2, &redirected, &["--key-file", "-", "--supernode", &supernode]);
    let from_file = scene.member(3, &[], &["--key-file", &file, "--supernode", &supernode]);
    for other in [&from_input, &from_file] {
        assert!(from_environment.hears(other, MEETING), "n{}", other.number);
    }
    assert!(from_input.hears(&from_file, MEETING));

    let phrases = ["correct horse battery staple", "correct horse battery stable"];
    let [right, wrong] = phrases.map(|phrase| secret(&scene.lab, &phrase.replace(' ', "-"), phrase));
    let by_phrase = |scene: &mut Scene, number, file: &str| {
        scene.member(number, &[], &["--passphrase-file", file, "--supernode", &supernode])
    };
    let one = by_phrase(&mut scene, 4, &right);
    let other = by_phrase(&mut scene, 5, &right);
    let mistyped = by_phrase(&mut scene, 6, &wrong);
    assert!(one.hears(&other, MEETING));
    mistyped.says("alone in lan: check the key and the supernode");
    assert!(!mistyped.hears(&one, WATCH), "another passphrase is another overlay");
    assert!(!one.hears(&from_file, WATCH), "a passphrase and a key are two overlays");
}

#[test]
fn a_supernode_with_an_allow_list_refuses_other_overlays_with_its_reason() {
    let lab = Lab::new();
    let [key, strange] = [new_key(), new_key()];
    let id = overlay_id(&lab, &key);
    let mut scene = Scene::with(lab, &["--allow", &id]);
    let supernode = scene.supernode.address.clone();
    let one = scene.member_with_key(1, &key, &supernode);
    let other = scene.member_with_key(2, &key, &supernode);
    let strangers = [3, 4].map(|number| scene.member_with_key(number, &strange, &supernode));
    assert!(one.hears(&other, MEETING));
    for stranger in &strangers {
        stranger.says("the supernode refuses this overlay");
        stranger.says("the supernode's allow list lacks it");
        stranger.says("alone in lan: check the key and the supernode");
        assert!(stranger.daemon.status().overlays[0].peers.is_empty());
        let state = &stranger.daemon.status().overlays[0].supernodes[0].state;
        assert_ne!(state, "up", "a supernode that refuses is not up");
    }
    assert!(!strangers[0].hears(&strangers[1], WATCH), "no introduction and no relay for them");
    let said = scene.supernode.process().stderr();
    assert!(said.contains("registration refused"), "{said}");
    assert!(!one.daemon.process().stderr().contains("refuse"));
}

#[test]
fn handshakes_of_a_stranger_who_knows_the_address_are_counted_and_not_answered() {
    let mut scene = Scene::new(&[]);
    let supernode = scene.supernode.address.clone();
    let [key, strange] = [new_key(), new_key()];
    let one = scene.member_with_key(1, &key, &supernode);
    let other = scene.member_with_key(2, &key, &supernode);
    assert!(one.hears(&other, MEETING));
    let bad_macs = || one.daemon.counters()["handshake_bad_mac"];
    assert_eq!(bad_macs(), 0, "members have the right key");

    // A real node of another key that remembers a member's place as one of its own overlay.
    let place = format!("{}:7777", one.host.address);
    let remembered = serde_json::json!({
        "peers": { overlay_id(&scene.lab, &strange): [
            { "id": one.daemon.status().node_id, "name": "n1", "addresses": [place] },
        ] },
    });
    let state = scene.lab.dir().join("n3.state");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("memory.json"), remembered.to_string()).unwrap();
    let stranger = scene.member_with_key(3, &strange, &supernode);
    wait_for("the stranger's handshake is counted", MEETING, || (bad_macs() > 0).then_some(()));
    assert!(!stranger.hears(&one, WATCH));
    assert!(stranger.daemon.status().overlays[0].peers.iter().all(|peer| peer.state != "up"));
    stranger.daemon.process().kill();

    let before = bad_macs();
    let elsewhere = scene.lab.site("s4", Nat::Open);
    let outsider = scene.lab.host(&elsewhere, "h4");
    let socket = outsider.space.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    for shot in 0..SHOTS {
        let sender = u32::try_from(shot).unwrap();
        let envelope = Envelope { suite: Suite::AesGcm, key_id: 0, sender, receiver: None, noise: &[7; 300] };
        socket.send_to(&envelope.bytes(|_| [7; 16]), &place).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    wait_for("each shot is counted", WATCH, || (bad_macs() >= before + SHOTS).then_some(()));
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(socket.recv(&mut [0; 2000]).is_err(), "a stranger was answered");
    assert_eq!(Ping::count(&one.host.space, inner_address(2), 3).replies.len(), 3);
}

#[test]
fn a_supernode_with_another_key_than_the_pinned_one_is_refused_with_a_sentence() {
    let mut scene = Scene::new(&[]);
    let (address, key) = (scene.supernode.address.clone(), new_key());
    let right = scene.supernode.fingerprint();
    // The overlay's id has the form of a fingerprint, and is none of this supernode.
    let wrong = overlay_id(&scene.lab, &key);
    let pinned = scene.member_with_key(1, &key, &format!("{address}#{right}"));
    let misled = scene.member_with_key(2, &key, &format!("{address}#{wrong}"));
    pinned.says("registered");
    misled.says(&format!("refused: {address} shows the key {right}, expected was {wrong}"));
    misled.says("alone in lan: check the key and the supernode");
    assert!(!misled.daemon.process().stderr().contains("registered"));
    assert!(!pinned.daemon.process().stderr().contains("trusted on first use"), "it was told the key");
    assert!(misled.daemon.process().is_running());
}

#[test]
fn a_key_trusted_on_first_use_is_remembered_and_a_changed_one_refused() {
    let mut scene = Scene::new(&[]);
    let (address, key) = (scene.supernode.address.clone(), new_key());
    let first = scene.supernode.fingerprint();
    let mut member = scene.member_with_key(1, &key, &address);
    member.says("trusted on first use");
    member.says("registered");
    member.daemon.process().terminate(MEETING).unwrap();
    member.daemon.start_again();
    member.says("registered");
    assert!(!member.daemon.process().stderr().contains("trusted on first use"), "it was trusted before");

    // Another machine takes the supernode's place.
    scene.supernode.process().kill();
    let state = scene.lab.dir().join(format!("{}.state", scene.server.name));
    fs::remove_file(state.join("node.key")).unwrap();
    scene.supernode.start_again();
    let second = scene.supernode.fingerprint();
    assert_ne!(first, second);
    let refusal = format!("refused: {address} shows the key {second}, expected was {first}");
    member.says(&refusal);
    member.daemon.process().kill();
    member.daemon.start_again();
    member.says(&refusal);
    assert!(!member.daemon.process().stderr().contains("registered"));
}
