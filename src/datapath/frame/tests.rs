use proptest::prelude::*;

use super::*;

const DST: [u8; 6] = [0x02, 0, 0x5e, 0x10, 0, 0x01];
const SRC: [u8; 6] = [0x02, 0, 0x5e, 0x10, 0, 0x02];

#[test]
fn a_plain_header_is_read() {
    let frame = frame(&[], 0x0800, b"payload");
    let header = Header::parse(&frame).expect("whole");
    assert_eq!(header, Header { dst: Mac(DST), src: Mac(SRC), vlan: 0, ethertype: 0x0800, payload: 14 });
    assert_eq!(&frame[header.payload..], b"payload");
}

#[test]
fn the_outer_tag_names_the_vlan_and_the_ethertype_is_behind_all_tags() {
    let cases: [(&[(u16, u16)], u16); 6] = [
        (&[(0x8100, 10)], 10),
        (&[(0x8100, 0xe00a)], 10),         // priority 7 does not matter
        (&[(0x8100, 0xa000)], 0),          // priority tag: untagged
        (&[(0x88a8, 7), (0x8100, 10)], 7), // QinQ
        (&[(0x8100, 7), (0x8100, 10)], 7), // the older way to stack
        (&[(0x88a8, 0), (0x8100, 10)], 0), // a priority tag outside decides too
    ];
    for (tags, vlan) in cases {
        let frame = frame(tags, 0x88b5, b"x");
        let header = Header::parse(&frame).expect("whole");
        assert_eq!((header.vlan, header.ethertype, header.payload), (vlan, 0x88b5, 14 + 4 * tags.len()), "{tags:?}");
    }
}

#[test]
fn a_frame_that_ends_within_its_header_or_a_tag_is_a_runt() {
    for (tags, header) in [(&[][..], 14), (&[(0x8100, 1)], 18), (&[(0x88a8, 1), (0x8100, 2)], 22)] {
        let frame = frame(tags, 0x0800, &[]);
        assert_eq!(frame.len(), header);
        assert!(Header::parse(&frame).is_some());
        for len in 0..header {
            assert_eq!(Header::parse(&frame[..len]), None, "{len} of {header}");
        }
    }
}

#[test]
fn a_mac_is_printed_and_read_back() {
    let mac = Mac(DST);
    assert_eq!(mac.to_string(), "02:00:5e:10:00:01");
    assert_eq!("02:00:5E:10:00:01".parse(), Ok(mac));
    for wrong in
        ["", "02", "02:00:5e:10:00", "02:00:5e:10:00:01:02", "2:0:5e:10:0:1", "02:00:5e:10:00:+1", "02-00-5e-10-00-01"]
    {
        assert_eq!(wrong.parse::<Mac>(), Err(MacError), "{wrong}");
    }
}

#[test]
fn groups_and_nobody_are_told_from_stations() {
    assert!(Mac([0xff; 6]).is_group());
    assert!(Mac([0x01, 0x0e, 0xcf, 0, 0, 0]).is_group());
    assert!(!Mac(DST).is_group());
    assert!(Mac([0; 6]).is_zero() && !Mac(DST).is_zero());
}

#[test]
fn a_wire_passes_bpdus_and_lldp_but_never_pause_and_lacp() {
    for last in 0..=0xff {
        let expected = match last {
            0x00 => LinkLocal::Stp,
            0x01 | 0x02 => LinkLocal::Never,
            _ => LinkLocal::Pass,
        };
        assert_eq!(link_local(Mac([0x01, 0x80, 0xc2, 0, 0, last])), expected, "{last:02x}");
    }
    assert_eq!(link_local(Mac([0xff; 6])), LinkLocal::Pass);
    assert_eq!(link_local(Mac([0x00, 0x80, 0xc2, 0, 0, 0x01])), LinkLocal::Pass);
}

#[test]
fn arp_announces_only_when_the_sender_asks_for_itself() {
    let me = [10, 0, 0, 1];
    let other = [10, 0, 0, 2];
    for (operation, sender, target, expected) in [
        (1, me, me, true),
        (2, me, me, true),
        (1, me, other, false),
        (2, me, other, false),
        (1, [0; 4], me, false),
        (9, me, me, false),
    ] {
        let packet = arp(operation, sender, target);
        assert_eq!(announced(&[], 0x0806, &packet), expected, "{operation} {sender:?} {target:?}");
        assert_eq!(announced(&[(0x8100, 10)], 0x0806, &packet), expected, "tagged");
    }
}

#[test]
fn the_rarp_of_a_hypervisor_announces() {
    assert!(announced(&[], 0x8035, &arp(3, [0; 4], [0; 4])));
}

#[test]
fn an_advertisement_announces_only_when_nobody_asked() {
    assert!(announced(&[], 0x86dd, &advertisement(0x20)));
    assert!(announced(&[], 0x86dd, &advertisement(0xa0)), "of a router");
    assert!(!announced(&[], 0x86dd, &advertisement(0x60)), "solicited");
    let mut routed = advertisement(0x20);
    routed[7] = 254;
    assert!(!announced(&[], 0x86dd, &routed), "from another link");
    let mut solicitation = advertisement(0x20);
    solicitation[40] = 135;
    assert!(!announced(&[], 0x86dd, &solicitation));
    let mut tcp = advertisement(0x20);
    tcp[6] = 6;
    assert!(!announced(&[], 0x86dd, &tcp));
}

#[test]
fn other_ethertypes_never_announce() {
    assert!(!announced(&[], 0x0800, &arp(1, [1; 4], [1; 4])));
}

#[test]
fn a_truncated_announcement_is_none() {
    for (ethertype, packet) in
        [(0x0806, arp(1, [1; 4], [1; 4])), (0x8035, arp(3, [0; 4], [0; 4])), (0x86dd, advertisement(0x20))]
    {
        for len in 0..packet.len() {
            assert!(!announced(&[], ethertype, &packet[..len]), "{ethertype:04x} {len}");
        }
    }
}

#[test]
fn the_payload_of_a_whole_udp_packet_is_found() {
    for (ethertype, packet) in [(0x0800, ipv4(0)), (0x0800, ipv4(8)), (0x86dd, ipv6())] {
        let mut padded = packet.clone();
        padded.extend_from_slice(&[0; 20]);
        assert_eq!(udp(ethertype, &packet).as_deref(), Some(&b"sealed"[..]));
        assert_eq!(udp(ethertype, &padded).as_deref(), Some(&b"sealed"[..]), "padding is not payload");
        for len in 0..packet.len() {
            assert_eq!(udp(ethertype, &packet[..len]), None, "{ethertype:04x} {len}");
        }
    }
}

#[test]
fn fragments_other_protocols_and_wrong_lengths_have_no_udp_payload() {
    let with = |mut packet: Vec<u8>, at: usize, value: u8| {
        packet[at] = value;
        packet
    };
    assert_eq!(udp(0x0800, &with(ipv4(0), 6, 0x40)).as_deref(), Some(&b"sealed"[..]), "don't fragment is whole");
    for (what, packet) in [
        ("more fragments", with(ipv4(0), 6, 0x20)),
        ("offset", with(ipv4(0), 7, 1)),
        ("TCP", with(ipv4(0), 9, 6)),
        ("version", with(ipv4(0), 0, 0x65)),
        ("header too short", with(ipv4(0), 0, 0x44)),
        ("UDP too short", with(ipv4(0), 25, 7)),
        ("UDP too long", with(ipv4(0), 25, 200)),
        ("IPv4 too short", with(ipv4(0), 3, 20)),
    ] {
        assert_eq!(udp(0x0800, &packet), None, "{what}");
    }
    assert_eq!(udp(0x86dd, &with(ipv6(), 6, 0)), None, "extension header");
    assert_eq!(udp(0x86dd, &with(ipv6(), 0, 0x40)), None, "version");
    assert_eq!(udp(0x0806, &ipv4(0)), None);
}

#[test]
fn only_a_whole_announcement_to_its_group_is_one() {
    let packet = [&[DISCOVER][..], &[7; PACKET_LEN - 1]].concat();
    let wrapped = |payload: &[u8], dst: [u8; 6]| {
        let udp_len = u16::try_from(8 + payload.len()).expect("short");
        let total = (20 + udp_len).to_be_bytes();
        let ip = [&[0x45, 0, total[0], total[1], 0, 0, 0, 0, 1, 17, 0, 0, 10, 0, 0, 1, 224, 0, 0, 254][..]].concat();
        let udp = [&[0, 1, 0, 2][..], &udp_len.to_be_bytes(), &[0, 0], payload].concat();
        let mut frame = frame(&[], IPV4, &[ip, udp].concat());
        frame[..6].copy_from_slice(&dst);
        is_announcement(&frame, &Header::parse(&frame).expect("whole"))
    };
    assert!(wrapped(&packet, GROUP_MACS[0]));
    assert!(!wrapped(&packet, DST) && !wrapped(&packet[1..], GROUP_MACS[0]) && !wrapped(&[], GROUP_MACS[0]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..160), kind in 0usize..8) {
        let mut bytes = bytes;
        // Most arbitrary EtherTypes are boring: put one of ours where the first one is.
        let ethertype = [0x0800u16, 0x86dd, 0x0806, 0x8035, 0x8100, 0x88a8].get(kind);
        if let (Some(ethertype), Some(place)) = (ethertype, bytes.get_mut(12..14)) {
            place.copy_from_slice(&ethertype.to_be_bytes());
        }
        if let Some(header) = Header::parse(&bytes) {
            prop_assert!(header.payload <= bytes.len() && header.vlan <= 4095);
            announces(&bytes, &header);
            udp_payload(&bytes, &header);
            link_local(header.dst);
        }
    }

    #[test]
    fn every_mac_reads_back_what_it_prints(bytes in any::<[u8; 6]>()) {
        prop_assert_eq!(Mac(bytes).to_string().parse(), Ok(Mac(bytes)));
    }

    #[test]
    fn arbitrary_text_is_refused_without_panic(text in ".{0,24}") {
        let _ = text.parse::<Mac>();
    }
}

/// A frame with tags of (EtherType, control information), outer first.
fn frame(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [DST, SRC].concat();
    for (tag, control) in tags {
        frame.extend_from_slice(&tag.to_be_bytes());
        frame.extend_from_slice(&control.to_be_bytes());
    }
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn announced(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> bool {
    let frame = frame(tags, ethertype, payload);
    announces(&frame, &Header::parse(&frame).expect("whole"))
}

fn udp(ethertype: u16, payload: &[u8]) -> Option<Vec<u8>> {
    let frame = frame(&[(0x8100, 3)], ethertype, payload);
    udp_payload(&frame, &Header::parse(&frame).expect("whole")).map(<[u8]>::to_vec)
}

fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend_from_slice(&SRC);
    packet.extend_from_slice(&sender);
    packet.extend_from_slice(&[0; 6]);
    packet.extend_from_slice(&target);
    packet
}

fn advertisement(flags: u8) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 24, 58, 255];
    packet.extend_from_slice(&[0xfe; 16]);
    packet.extend_from_slice(&[0xff; 16]);
    packet.extend_from_slice(&[136, 0, 0, 0, flags, 0, 0, 0]);
    packet.extend_from_slice(&[0xfe; 16]);
    packet
}

fn ipv4(options: u8) -> Vec<u8> {
    let mut packet = vec![0x45 + options / 4, 0, 0, 20 + options + 14, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend_from_slice(&[10; 8]);
    packet.resize(packet.len() + usize::from(options), 1);
    packet.extend_from_slice(b"\x1e\x61\x1e\x61\x00\x0e\x00\x00sealed");
    packet
}

fn ipv6() -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 14, 17, 64];
    packet.extend_from_slice(&[0xfe; 32]);
    packet.extend_from_slice(b"\x1e\x61\x1e\x61\x00\x0e\x00\x00sealed");
    packet
}
