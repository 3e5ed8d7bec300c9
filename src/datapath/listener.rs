//! IGMP and MLD as they are snooped: who wants to hear which group, who asks for that, and our own question.
//!
//! Untagged frames only: what is said in a VLAN is carried as any frame, and so is what is for its groups. No input
//! panics. Read first: RFC 4541, RFC 3376 4, RFC 2236 2, RFC 3810 5, RFC 2710 3.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::icmpv6::{
    TYPE_MULTICAST_LISTENER_QUERY as MLD_QUERY, TYPE_MULTICAST_LISTENER_REDUCTION as MLD_DONE,
    TYPE_MULTICAST_LISTENER_REPORT as MLD_REPORT,
};
use etherparse::igmp::{GroupAddress, MembershipReportV3Slice, ReportGroupRecordV3Slice};
use etherparse::{IgmpSlice, IpNumber, NetSlice, SlicedPacket, TransportSlice};

use super::ask::{self, ICMPV6};
use super::checksum;
use super::frame::{self, HEADER, Header, IPV4, IPV6, Mac};

const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Routers among each other (PIM): who says it wants to hear everything.
const PIM: u8 = IpNumber::PIM.0;
const IGMP: u8 = IpNumber::IGMP.0;
const HOP_BY_HOP: u8 = IpNumber::IPV6_HEADER_HOP_BY_HOP.0;
/// Of our questions: with the option that follows, and with a hop-by-hop header.
const IPV4_HEADER: usize = frame::IPV4_HEADER + 4;
const IPV6_HEADERS: usize = frame::IPV6_HEADER + 8;
/// "Look into it on the way" (RFC 2113, RFC 2711).
const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
const HOP_BY_HOP_ALERT: [u8; 8] = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];
/// Robustness 2, and 125 s between questions.
const PACE: [u8; 2] = [2, 125];
const QUERY: u8 = 0x11;
/// MLDv2's (RFC 3810 5.2).
const MLD_REPORT_V2: u8 = 143;
/// Of a record in a report: it is so (include, exclude), it becomes so, these sources more.
const IS_INCLUDE: u8 = 1;
const IS_EXCLUDE: u8 = 2;
const TO_INCLUDE: u8 = 3;
const TO_EXCLUDE: u8 = 4;
const ALLOW: u8 = 5;
/// Type, auxiliary words, sources and group of an MLDv2 record.
const RECORD: usize = 20;

/// What a machine or a router says of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// "I want to hear this one."
    Wants(IpAddr),
    /// "I do not any more"; another machine may.
    Leaves(IpAddr),
    /// "Who wants to hear this one?", or any; and whether it is a router that asks, and no switch.
    Asks(Option<IpAddr>, bool),
    /// "I am a router."
    Routes,
}

impl Said {
    /// Whether it is for routers only: other machines that hear it would say nothing themselves.
    pub(super) const fn is_report(self) -> bool {
        matches!(self, Self::Wants(_) | Self::Leaves(_))
    }
}

/// What a frame says; nothing, most often.
pub(super) fn read(frame: &[u8], header: &Header) -> Vec<Said> {
    let protocol = match header.ethertype {
        IPV4 => frame.get(HEADER + 9),
        IPV6 => frame.get(HEADER + 6),
        _ => None,
    };
    let is_heard = header.dst.is_group() && header.payload == HEADER;
    let Some(protocol) = protocol.copied().filter(|protocol| is_heard && matches!(*protocol, HOP_BY_HOP | IGMP | PIM))
    else {
        return Vec::new();
    };
    let Ok(SlicedPacket { net: Some(net), transport, .. }) = SlicedPacket::from_ethernet(frame) else {
        return Vec::new();
    };
    match (net, transport) {
        (NetSlice::Ipv4(ip), Some(TransportSlice::Igmp(igmp))) => {
            let asks_as_router = !ip.header().source_addr().is_unspecified();
            read_igmp(&igmp, asks_as_router)
        }
        (NetSlice::Ipv6(_), Some(TransportSlice::Icmpv6(icmp))) => read_mld(icmp.slice()).unwrap_or_default(),
        (NetSlice::Ipv4(_) | NetSlice::Ipv6(_), None) if protocol == PIM => vec![Said::Routes],
        _ => Vec::new(),
    }
}

fn read_igmp(igmp: &IgmpSlice<'_>, asks_as_router: bool) -> Vec<Said> {
    let group = |GroupAddress { octets }: GroupAddress| multicast(IpAddr::from(octets));
    let asks = |address: GroupAddress| vec![Said::Asks(group(address), asks_as_router)];
    let wants = |address: GroupAddress| group(address).map(Said::Wants).into_iter().collect();
    match igmp {
        IgmpSlice::MembershipQuery(query) => asks(query.group_address()),
        IgmpSlice::MembershipQueryWithSources(query) => asks(query.group_address()),
        IgmpSlice::MembershipReportV1(report) => wants(report.group_address()),
        IgmpSlice::MembershipReportV2(report) => wants(report.group_address()),
        IgmpSlice::MembershipReportV3(report) => read_records(report),
        IgmpSlice::LeaveGroup(leave) => group(leave.group_address()).map(Said::Leaves).into_iter().collect(),
        IgmpSlice::Unknown(_) => Vec::new(),
    }
}

fn read_records(report: &MembershipReportV3Slice<'_>) -> Vec<Said> {
    let said = |record: ReportGroupRecordV3Slice<'_>| {
        let group = IpAddr::from(record.multicast_address());
        said(record.record_type().0, record.num_of_sources(), group)
    };
    report.group_records().map_while(Result::ok).filter_map(said).collect()
}

/// What a record of a report comes to, where sources are not told apart.
fn said(kind: u8, sources: u16, group: IpAddr) -> Option<Said> {
    let group = multicast(group)?;
    match (kind, sources) {
        (IS_EXCLUDE | TO_EXCLUDE, _) | (IS_INCLUDE | TO_INCLUDE | ALLOW, 1..) => Some(Said::Wants(group)),
        (TO_INCLUDE, 0) => Some(Said::Leaves(group)),
        _ => None,
    }
}

fn multicast(ip: IpAddr) -> Option<IpAddr> {
    Some(ip).filter(IpAddr::is_multicast)
}

fn read_mld(message: &[u8]) -> Option<Vec<Said>> {
    let (head, rest) = message.split_first_chunk::<8>()?;
    let group = |bytes: &[u8]| bytes.first_chunk::<16>().map(|ip| IpAddr::from(*ip)).and_then(multicast);
    match head[0] {
        MLD_QUERY => Some(vec![Said::Asks(group(rest), true)]),
        MLD_REPORT => Some(vec![Said::Wants(group(rest)?)]),
        MLD_DONE => Some(vec![Said::Leaves(group(rest)?)]),
        MLD_REPORT_V2 => Some(read_mld_records(u16::from_be_bytes([head[6], head[7]]), rest)),
        _ => None,
    }
}

fn read_mld_records(count: u16, mut records: &[u8]) -> Vec<Said> {
    let mut all = Vec::new();
    for _ in 0..count {
        let Some(([kind, words, s0, s1, group @ ..], _)) = records.split_first_chunk::<RECORD>() else { break };
        let sources = u16::from_be_bytes([*s0, *s1]);
        all.extend(said(*kind, sources, IpAddr::from(*group)));
        let len = RECORD + usize::from(sources) * 16 + usize::from(*words) * 4;
        let Some(rest) = records.get(len..) else { break };
        records = rest;
    }
    all
}

/// The group that a frame is for, if it is one that need not be heard everywhere: of wider scope than the link.
pub(super) fn group(frame: &[u8], header: &Header) -> Option<IpAddr> {
    if !header.dst.is_group() || header.payload != HEADER {
        return None;
    }
    let packet = frame.get(HEADER..)?;
    let ip = match header.ethertype {
        IPV4 => IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?),
        IPV6 => IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?),
        _ => return None,
    };
    Some(ip).filter(|ip| is_wide(*ip))
}

/// Whether a group is of wider scope than the link: those of the link everybody hears (RFC 4541 2.1.2 and 3).
pub(super) const fn is_wide(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_multicast() && !matches!(ip.octets(), [224, 0, 0, _]),
        IpAddr::V6(ip) => ip.is_multicast() && ip.octets()[1] & 0x0f > 2,
    }
}

/// "Who wants to hear which group?", to be answered within so many seconds (below 13), of a switch that routes nothing.
pub(super) fn questions(station: Mac, seconds: u8) -> [Vec<u8>; 2] {
    [igmp_question(station, seconds), mld_question(station, seconds)]
}

/// Without an address of our own: no router takes us for one (RFC 4541 2.1.1).
fn igmp_question(station: Mac, seconds: u8) -> Vec<u8> {
    let mut frame = ask::ethernet(Mac([1, 0, 0x5e, 0, 0, 1]), station, 0, IPV4);
    let ip = frame.len();
    frame.extend([0x46, 0xc0, 0, 36, 0, 0, 0x40, 0, 1, IGMP, 0, 0]);
    frame.extend(Ipv4Addr::UNSPECIFIED.octets());
    frame.extend(ALL_SYSTEMS.octets());
    frame.extend(ROUTER_ALERT);
    checksum::finish_ipv4(&mut frame[ip..]);
    frame.extend([QUERY, seconds * 10, 0, 0, 0, 0, 0, 0]);
    frame.extend(PACE);
    frame.extend([0, 0]);
    checksum::finish(&mut frame, ip + IPV4_HEADER, 2);
    frame
}

fn mld_question(station: Mac, seconds: u8) -> Vec<u8> {
    let mut frame = ask::ethernet(Mac([0x33, 0x33, 0, 0, 0, 1]), station, 0, IPV6);
    let ip = frame.len();
    frame.extend([0x60, 0, 0, 0, 0, 8 + 28, HOP_BY_HOP, 1]);
    frame.extend(ask::link_local(station).octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(HOP_BY_HOP_ALERT);
    let [high, low] = (u16::from(seconds) * 1000).to_be_bytes();
    frame.extend([MLD_QUERY, 0, 0, 0, high, low, 0, 0]);
    frame.extend(Ipv6Addr::UNSPECIFIED.octets());
    frame.extend(PACE);
    frame.extend([0, 0]);
    ask::finish(&mut frame, (ip, ip + IPV6_HEADERS));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATION: Mac = Mac([2, 1, 2, 3, 4, 5]);
    const G: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
    const G6: Ipv6Addr = Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 9);

    fn says(frame: &[u8]) -> Vec<Said> {
        read(frame, &Header::parse(frame).expect("a whole frame"))
    }

    fn igmp(body: &[u8]) -> Vec<u8> {
        let mut frame = ask::ethernet(Mac([1, 0, 0x5e, 0, 0, 22]), STATION, 0, IPV4);
        let len = u8::try_from(20 + body.len()).expect("short");
        frame.extend([0x45, 0, 0, len, 0, 0, 0, 0, 1, IGMP, 0, 0, 10, 0, 0, 1, 224, 0, 0, 22]);
        frame.extend(body);
        frame.resize(frame.len().max(60), 0);
        frame
    }

    fn mld(body: &[u8]) -> Vec<u8> {
        let mut frame = mld_question(STATION, 10);
        frame.truncate(HEADER + IPV6_HEADERS);
        frame.extend(body);
        frame[HEADER + 5] = u8::try_from(8 + body.len()).expect("short");
        frame
    }

    #[test]
    fn our_questions_are_whole_and_ask_for_all() {
        let [igmp, mld] = questions(STATION, 10);
        assert_eq!((says(&igmp), says(&mld)), (vec![Said::Asks(None, false)], vec![Said::Asks(None, true)]));
        let packet = SlicedPacket::from_ethernet(&igmp).expect("a whole packet");
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Igmp(igmp))) = (packet.net, packet.transport) else {
            panic!("IGMP")
        };
        assert!(igmp.is_checksum_valid());
        assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
        let packet = SlicedPacket::from_ethernet(&mld).expect("a whole packet");
        let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) = (packet.net, packet.transport) else {
            panic!("MLD")
        };
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
    }

    #[test]
    fn reports_of_every_version_are_read_and_padding_is_not() {
        let octets = G.octets();
        for (kind, expected) in
            [(0x12, Said::Wants(G.into())), (0x16, Said::Wants(G.into())), (0x17, Said::Leaves(G.into()))]
        {
            assert_eq!(says(&igmp(&[&[kind, 0, 0, 0][..], &octets].concat())), [expected]);
        }
        let record = |kind: u8, sources: u8| {
            let list = vec![10; usize::from(sources) * 4];
            [&[kind, 0, 0, sources][..], &octets, &list].concat()
        };
        let records = [record(4, 0), record(3, 0), record(1, 2), record(6, 1)].concat();
        let (wants, leaves) = (Said::Wants(G.into()), Said::Leaves(G.into()));
        assert_eq!(says(&igmp(&[&[0x22, 0, 0, 0, 0, 0, 0, 4][..], &records].concat())), [wants, leaves, wants]);
    }

    #[test]
    fn mld_is_read_in_both_versions() {
        let one = |kind: u8| mld(&[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &G6.octets()].concat());
        assert_eq!(says(&one(MLD_REPORT)), [Said::Wants(G6.into())]);
        assert_eq!(says(&one(MLD_DONE)), [Said::Leaves(G6.into())]);
        assert_eq!(says(&one(MLD_QUERY)), [Said::Asks(Some(G6.into()), true)]);
        let records = [&[TO_EXCLUDE, 0, 0, 0][..], &G6.octets(), &[TO_INCLUDE, 0, 0, 0], &G6.octets()].concat();
        let both = [Said::Wants(G6.into()), Said::Leaves(G6.into())];
        assert_eq!(says(&mld(&[&[MLD_REPORT_V2, 0, 0, 0, 0, 0, 0, 2][..], &records].concat())), both);
    }

    #[test]
    fn groups_of_the_link_are_everybodys() {
        for (ip, wide) in [
            ("224.0.0.251", false),
            ("224.0.1.1", true),
            ("239.255.255.250", true),
            ("ff02::1", false),
            ("ff02::1:ff00:1", false),
            ("ff05::2", true),
            ("10.0.0.1", false),
        ] {
            assert_eq!(is_wide(ip.parse().expect("an address")), wide, "{ip}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_frames_never_panic(is_v6 in any::<bool>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let [four, six] = questions(STATION, 10);
            let frame = [if is_v6 { &six[..HEADER + IPV6_HEADERS] } else { &four[..HEADER + IPV4_HEADER] }, &bytes].concat();
            says(&frame);
            says(&[&frame[..HEADER], &bytes].concat());
        }
    }
}
