use super::*;

/// Ethernet, and what of IP and TCP follows from nothing else: flags ACK, sequence number 768.
pub(in crate::datapath) fn tcp4(payload: &[u8]) -> Vec<u8> {
    let tcp = [&[0x1f, 0x90, 0x30, 0x39, 0, 0, 3, 0, 0, 0, 0, 9, 0x50, 0x10, 1, 0, 0, 0, 0, 0], payload].concat();
    ipv4(0x45, 6, &[], &tcp)
}

pub(in crate::datapath) fn tcp6(extensions: &[u8], next: u8, payload: &[u8]) -> Vec<u8> {
    let tcp = [&[0x1f, 0x90, 0x30, 0x39, 0, 0, 3, 0, 0, 0, 0, 9, 0x50, 0x10, 1, 0, 0, 0, 0, 0], payload].concat();
    ipv6(next, extensions, &tcp)
}

pub(in crate::datapath) fn udp4(payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).expect("short").to_be_bytes();
    ipv4(0x45, 17, &[], &[&[0x1f, 0x90, 0x30, 0x39, len[0], len[1], 0, 0], payload].concat())
}

fn ipv4(first: u8, protocol: u8, options: &[u8], body: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + options.len() + body.len()).expect("short").to_be_bytes();
    let head = [first, 0, total[0], total[1], 0, 7, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let mut frame = [&[2; 12], [8, 0].as_slice(), &head, options, body].concat();
    let end = 34 + options.len();
    crate::datapath::checksum::finish_ipv4(&mut frame[14..end]);
    frame
}

fn ipv6(next: u8, extensions: &[u8], body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(extensions.len() + body.len()).expect("short").to_be_bytes();
    let head = [0x60, 0, 0, 0, len[0], len[1], next, 64];
    [&[2; 12], [0x86, 0xdd].as_slice(), &head, &[0xfd; 32], extensions, body].concat()
}

pub(in crate::datapath) fn find(frame: &[u8]) -> Option<Layout> {
    Layout::find(frame, &Header::parse(frame).expect("an Ethernet header"))
}

/// So many headers of destination options, TCP behind them.
fn extensions(count: usize) -> Vec<u8> {
    let mut all = [60, 0, 0, 0, 0, 0, 0, 0].repeat(count);
    all[(count - 1) * 8] = 6;
    all
}

#[test]
fn headers_are_found_behind_options_and_extensions() {
    let tcp = Layout { ip: 14, transport: 34, payload: 54, is_v6: false, protocol: Transport::Tcp };
    assert_eq!(find(&tcp4(b"")), Some(tcp));
    assert_eq!(find(&udp4(b"four")), Some(Layout { payload: 42, protocol: Transport::Udp, ..tcp }));
    let options = ipv4(0x47, 6, &[1; 8], &tcp4(b"")[34..]);
    assert_eq!(find(&options), Some(Layout { transport: 42, payload: 62, ..tcp }));
    let mut long = tcp4(&[1; 12]);
    long[34 + 12] = 0x80;
    assert_eq!(find(&long), Some(Layout { payload: 66, ..tcp }), "options of TCP");
    let v6 = Layout { transport: 54, payload: 74, is_v6: true, ..tcp };
    assert_eq!(find(&tcp6(&[], 6, b"")), Some(v6));
    let three = [[43, 0, 0, 0, 0, 0, 0, 0].as_slice(), &[60, 1], &[0; 14], &[6, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(find(&tcp6(&three, 0, b"")), Some(Layout { transport: 86, payload: 106, ..v6 }));
    let most = extensions(EXTENSIONS_MAX);
    assert_eq!(find(&tcp6(&most, 60, b"")), Some(Layout { transport: 54 + 64, payload: 74 + 64, ..v6 }));
}

#[test]
fn what_is_no_whole_packet_has_no_layout() {
    let changed = |frame: &[u8], at: usize, value: u8| {
        let mut frame = frame.to_vec();
        frame[at] = value;
        frame
    };
    let (v4, v6) = (tcp4(b"payload"), tcp6(&[], 6, b"payload"));
    let many = extensions(EXTENSIONS_MAX + 1);
    let refused = [
        ("neither IP", changed(&v4, 13, 6)),
        ("version 6 in IPv4", changed(&v4, 14, 0x65)),
        ("a header of 16 bytes", changed(&v4, 14, 0x44)),
        ("a header longer than the packet", changed(&v4, 14, 0x4f)),
        ("longer than the frame", changed(&v4, 17, 48)),
        ("without any length", changed(&v4, 17, 0)),
        ("a first fragment", changed(&v4, 20, 0x20)),
        ("a later fragment", changed(&v4, 21, 1)),
        ("ICMP", changed(&v4, 23, 1)),
        ("a TCP header of 16 bytes", changed(&v4, 46, 0x40)),
        ("a TCP header beyond the packet", changed(&v4, 46, 0x70)),
        ("version 4 in IPv6", changed(&v6, 14, 0x40)),
        ("longer than the frame, IPv6", changed(&v6, 19, 28)),
        ("a TCP header beyond the packet, IPv6", changed(&v6, 19, 19)),
        ("no next header", changed(&v6, 20, 59)),
        ("a fragment header", tcp6(&[6, 0, 0, 0, 0, 0, 0, 0], 44, b"")),
        ("an extension beyond the packet", tcp6(&[6, 200, 0, 0, 0, 0, 0, 0], 60, b"")),
        ("extensions without end", tcp6(&many, 60, b"")),
        ("half a UDP header", ipv4(0x45, 17, &[], &[0, 1, 0, 2])),
    ];
    for (name, frame) in refused {
        assert_eq!(find(&frame), None, "{name}");
    }
    for len in 14..v4.len() {
        assert_eq!(find(&v4[..len]), None, "{len} bytes of IPv4");
    }
    for len in 14..v6.len() {
        assert_eq!(find(&v6[..len]), None, "{len} bytes of IPv6");
    }
}

#[test]
fn padding_is_behind_the_end() {
    for frame in [tcp4(b"x"), tcp6(&[], 6, b"x")] {
        let padded = [frame.as_slice(), &[0; 9]].concat();
        let layout = find(&padded).expect("padding does not matter");
        assert_eq!(layout.end(&padded), frame.len());
    }
}
