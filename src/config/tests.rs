use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::datapath::SwitchSettings;
use crate::datapath::offload::TapOffload;
use crate::keys::{Fingerprint, OverlayKey, OverlaySecrets};
use crate::wire::carry::RelayFor;

#[test]
fn a_whole_file_becomes_settings() {
    let (_dir, key) = key_file(0o600);
    let pin = Fingerprint([7; 32]);
    let text = format!(
        r#"
        name = "attic"
        listen = "[::]:4000"
        state = "/tmp/state"
        socket = "/tmp/socket"
        log = "debug"
        log-json = true
        cipher = "chacha20-poly1305"
        priority = 5
        lanes = 3
        supernode = ["sn.example", "192.0.2.1:9#{pin}", "[2001:db8::1]:9/8443"]
        proxy = "http://px.example:3128"
        [[overlay]]
        name = "lab"
        key-file = {key:?}
        bridge = "br0"
        tap = "lw-lab"
        tap-offload = true
        tap-queue = 7
        stp = "drop"
        mtu = 1504
        mss-clamp = false
        arp = "flood"
        multicast = "snoop"
        adapt = false
        [[overlay]]
        name = "home"
        key-file = {key:?}
        address = "10.10.0.1/24"
        tap-offload = false
        "#
    );
    let settings = Config::parse(&text).expect("config").check(None).expect("settings");
    let addresses: Vec<&str> = settings.supernodes.iter().map(|supernode| supernode.address.as_str()).collect();
    assert_eq!(addresses, ["sn.example:7777", "192.0.2.1:9", "[2001:db8::1]:9/8443"]);
    assert_eq!(settings.underlay.proxy, ProxySettings::Through("http://px.example:3128".into()));
    assert_eq!(settings.supernodes[1].pin, Some(pin));
    assert_eq!(settings.cipher, Cipher::ChaChaPoly);
    assert_eq!(settings.overlays[0].attach, Attach::Bridge("br0".into()));
    assert_eq!(
        settings.overlays[0].switch,
        SwitchSettings {
            mtu: 1504,
            stp: false,
            clamp_mss: false,
            answers: false,
            snoops: true,
            adapts: false,
            tap: TapOffload::TcpAndUdp,
            ..SwitchSettings::default()
        }
    );
    assert_eq!(settings.overlays[1].attach.clone(), Attach::Address("10.10.0.1/24".parse().expect("CIDR")));
    assert_eq!(
        settings.overlays[1].switch,
        SwitchSettings { mtu: 1500, stp: true, tap: TapOffload::None, ..SwitchSettings::default() }
    );
    assert_eq!(settings.socket, SocketChoice::At("/tmp/socket".into()));
    assert!(settings.serve.is_none() && settings.log_json);
    assert_eq!((settings.priority, settings.lanes), (5, Some(3)));
    assert_eq!([settings.overlays[0].tap_queue, settings.overlays[1].tap_queue], [Some(7), None]);
}

#[test]
fn an_unknown_key_names_line_and_the_nearest() {
    let says = parse_error("name = \"a\"\n\nsupernodes = []\n");
    assert_eq!(says, "line 3: unknown key `supernodes`; did you mean `supernode`?");
    let says = parse_error("[[overlay]]\nname = \"lab\"\nkeyfile = \"x\"\n");
    assert_eq!(says, "line 3: unknown key `keyfile`; did you mean `key-file`?");
    assert!(parse_error("zzz = 1").starts_with("line 1: unknown key `zzz`; known are name, listen"));
}

#[test]
fn a_key_in_the_config_is_refused() {
    let says = parse_error("[[overlay]]\nname = \"lab\"\nkey = \"lw1-secret\"\n");
    assert!(says.contains("`key-file`") && !says.contains("lw1-secret"), "{says}");
}

#[test]
fn each_bad_word_has_its_line_and_sentence() {
    let cases = [
        ("supernode = [\"sn:0\"]", "port is a number from 1 to 65535"),
        ("supernode = [\"sn/x\"]", "behind the slash stands a TCP port"),
        ("proxy = \"socks5://px:1080\"", "a proxy has the form http://"),
        ("supernode = [\"2001:db8::1\"]", "IPv6 addresses stand in brackets"),
        ("supernode = [\"[::1\"]", "bracket is not closed"),
        ("supernode = [\"[host]:1\"]", "in brackets stands an IPv6 address"),
        ("supernode = [\"sn#abc\"]", "the fingerprint is not an id"),
        ("supernode = [\"\"]", "that is no host"),
        ("supernode = [\"a b\"]", "that is no host"),
        ("listen = \"7777\"", "an address with its port"),
        ("allow = [\"x\"]", "longwire id"),
        ("log = \"loud\"", "not \"loud\""),
        ("[[overlay]]\nname = \"../x\"", "overlay name \"../x\""),
        ("[[overlay]]\nname = \"a\"\ntap = \"much-too-long-name\"", "1 to 15 letters"),
        ("[[overlay]]\nname = \"a\"\naddress = \"10.0.0.1\"", "ADDRESS/PREFIX"),
        ("[[overlay]]\nname = \"a\"\naddress = \"10.0.0.1/33\"", "ADDRESS/PREFIX"),
        ("[[overlay]]\nname = \"a\"\nmtu = -1", "`mtu` takes a whole number"),
        ("name = ", "line 1"),
    ];
    for (text, word) in cases {
        let says = parse_error(text);
        assert!(says.contains(word) && says.starts_with("line "), "{text}: {says}");
        assert!(!says.contains('\n'), "{says}");
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let (_dir, key) = key_file(0o600);
    let overlay = format!("[[overlay]]\nname = \"a\"\nkey-file = {key:?}\n");
    let lists = |of: &str, one: &str, two: &str| {
        let entries = [one, two].map(|entry| format!("[[overlay.{of}]]\n{entry}\n"));
        format!("supernode = [\"a\"]\n{overlay}{}", entries[..if two.is_empty() { 1 } else { 2 }].concat())
    };
    let cases = [
        (String::new(), "no overlay"),
        (overlay.clone(), "no supernode"),
        ("listen = \"[::]:1\"\nserve = \"[::]:1\"".into(), "exclude each other"),
        ("allow = []".into(), "means nothing without `serve`"),
        (format!("supernode = [\"a\"]\n{overlay}{overlay}"), "two overlays with the name a"),
        (format!("supernode = [\"a\"]\n{overlay}passphrase-file = \"x\""), "exclude each other"),
        (format!("supernode = [\"a\"]\n{overlay}bridge = \"b\"\naddress = \"10.0.0.1/8\""), "exclude each other"),
        (format!("supernode = [\"a\"]\n{overlay}mtu = 9000"), "from 576 to 2300"),
        (format!("supernode = [\"a\"]\n{overlay}tap-queue = 0"), "`tap-queue` 0: from 1 to 16384"),
        (format!("lanes = 17\nsupernode = [\"a\"]\n{overlay}"), "`lanes` 17: from 1 to 16"),
        (format!("priority = -21\nsupernode = [\"a\"]\n{overlay}"), "`priority` -21: from -20 to 19"),
        ("supernode = [\"a\"]\n[[overlay]]\nname = \"a\"".into(), "no key for the overlay a"),
        (lists("link", "to = \"192.0.2.1\"\npin = true", ""), "`link` 1 of an overlay: an address cannot be pinned"),
        (lists("link", "to = \"b\"", "to = \"b\"\npin = true"), "`link` 2 of an overlay: link 1 leads to b already"),
        (
            lists("reserve", "to = \"b\"\ncap = 1", "to = \"b\"\nrate = 1"),
            "`reserve` 2 of an overlay: there is one for b",
        ),
    ];
    for (text, word) in cases {
        let says = check_error(&text, None);
        assert!(says.contains(word), "{text}: {says}");
    }
    let two = "supernode = [\"a\"]\n[[overlay]]\nname = \"a\"\n[[overlay]]\nname = \"b\"";
    assert!(check_error(two, Some("lw1-")).contains("LONGWIRE_KEY is for one overlay"));
}

#[test]
fn key_files_that_cannot_be_used_are_named() {
    let lab = |key: &Path| format!("supernode = [\"a\"]\n[[overlay]]\nname = \"a\"\nkey-file = {key:?}\n");
    let (_dir, open) = key_file(0o644);
    let says = check_error(&lab(&open), None);
    assert!(says.contains("mode 0644") && says.contains(open.to_str().expect("UTF-8")), "{says}");
    let (_dir, key) = key_file(0o600);
    let mut typo = std::fs::read(&key).expect("key");
    typo[10] = if typo[10] == b'a' { b'b' } else { b'a' };
    std::fs::write(&key, typo).expect("write");
    assert!(check_error(&lab(&key), None).contains("mistyped: its checksum does not fit"));
    std::fs::write(&key, "hello").expect("write");
    assert!(check_error(&lab(&key), None).contains("not an overlay key"));
    assert!(check_error(&lab(Path::new("/no/such/file")), None).contains("/no/such/file"));
    let text = "supernode = [\"a\"]\n[[overlay]]\nname = \"a\"";
    assert!(check_error(text, Some("lw1-x")).starts_with("LONGWIRE_KEY: "));
}

#[test]
fn a_key_from_the_environment_and_one_from_a_passphrase_make_overlays() {
    let text = "supernode = [\"a\"]\n[[overlay]]\nname = \"a\"";
    let key = OverlayKey::from_bytes([1; 32]).to_text();
    assert_eq!(Config::parse(text).expect("config").check(Some(&key)).expect("settings").overlays.len(), 1);
    let (_dir, file) = key_file(0o600);
    std::fs::write(&file, "correct horse battery\n").expect("write");
    let config = Config::parse(&format!("{text}\npassphrase-file = {file:?}")).expect("config");
    let id = config.check(None).expect("settings").overlays[0].secrets.id();
    let same = OverlayKey::from_passphrase("a", "correct horse battery").expect("key");
    assert_eq!(id, OverlaySecrets::derive("a", &same).id());
}

#[test]
fn what_a_node_does_for_others_is_its_site_unless_it_says_more_or_less() {
    let settings = |words: &str| Config::parse(&format!("serve = \"[::]:1\"\n{words}")).and_then(|c| c.check(None));
    let relaying = |words: &str| settings(words).expect("a config").relaying;
    assert_eq!(relaying("").carries, RelayFor::Site);
    let all = relaying("relay = \"on\"\nrelay-rate = 8\nsite = \"mill\"");
    assert_eq!((all.carries, all.share, &*all.site), (RelayFor::Everyone, Some(1_000_000), "mill"));
    assert_eq!(relaying("relay = \"off\"").carries, RelayFor::Nobody);
    for (words, says) in [
        ("relay-rate = 0".to_owned(), "`relay-rate` 0: from 1 to 30000 is possible"),
        (format!("site = \"{}\"", "x".repeat(64)), "`site` is a name of at most 63 bytes"),
    ] {
        assert_eq!(settings(&words).expect_err("too much").to_string(), says);
    }
}

#[test]
fn a_supernode_alone_needs_nothing_else() {
    let settings = Config::parse("serve = \"[::]:7777\"").expect("config").check(None).expect("settings");
    assert!(settings.serve.is_some_and(|serve| serve.allow.is_none()));
    assert_eq!(settings.socket, SocketChoice::Named("supernode".into()));
}

fn key_file(mode: u32) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("key");
    std::fs::write(&path, OverlayKey::from_bytes([9; 32]).to_text()).expect("write");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    (dir, path)
}

fn parse_error(text: &str) -> String {
    Config::parse(text).expect_err(text).to_string()
}

fn check_error(text: &str, env: Option<&str>) -> String {
    Config::parse(text).expect("well-formed").check(env).expect_err(text).to_string()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_text_panics(text in "[ -~\\n]{0,60}", word in "[\\[\\]:#a-z0-9./%-]{0,40}") {
        let _refused_or_not = (
            Config::parse(&text).and_then(|config| config.check(None)).is_ok(),
            word.parse::<SupernodeText>().is_ok(),
            word.parse::<Cidr>().is_ok(),
            word.parse::<InterfaceName>().is_ok(),
            word.parse::<OverlayName>().is_ok(),
            word.parse::<AllowedOverlay>().is_ok(),
        );
    }

    #[test]
    fn a_supernode_that_is_taken_can_be_resolved(word in "[\\[\\]:#a-z0-9./%-]{0,40}") {
        if let Ok(SupernodeText(supernode)) = word.parse::<SupernodeText>() {
            let udp = supernode.address.split('/').next().expect("the place by UDP");
            let (host, port) = udp.rsplit_once(':').expect("host and port");
            proptest::prop_assert!(!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0));
        }
    }
}
