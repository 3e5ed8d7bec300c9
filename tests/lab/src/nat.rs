//! The kinds of NAT and firewall (RFC 4787), as nftables rules of a site's router.
//!
//! Three facts of the Linux NAT carry the rules, each checked by `lab_selftest`:
//!
//! 1. A plain `snat` keeps the port of an inside endpoint toward everyone (endpoint-independent
//!    mapping), as long as no other flow holds the same pair of addresses and ports. A packet
//!    that nobody asked for makes such a flow if the router's `input` takes it, and the endpoint
//!    then gets another port: [`Nat::BareMasquerade`]. All other kinds drop it there.
//! 2. `fully-random` gives each flow a port of its own: [`Nat::Symmetric`].
//! 3. The outside port is known only after the NAT hook of postrouting (priority 100). A chain
//!    behind it notes which inside endpoint stands behind which outside port, and a `dnat` by
//!    that note lets strangers in: [`Nat::FullCone`], [`Nat::Restricted`].

/// What stands between the hosts of a site and the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nat {
    /// Public addresses, nothing filtered.
    Open,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Endpoint-independent mapping, filters by address.
    Restricted,
    /// Endpoint-independent mapping, filters by address and port: the usual home router.
    PortRestricted,
    /// A port of its own for each destination, filters by address and port.
    Symmetric,
    /// The same, but ports count up from destination to destination.
    Counting,
    /// A port of its own for each destination address, filters by address.
    AddressDependent,
    /// A Linux gateway with a masquerade rule and nothing else; see the head of the file.
    BareMasquerade,
    /// Public addresses behind a stateful firewall.
    Firewall,
}

impl Nat {
    /// All kinds.
    pub const ALL: [Nat; 9] = [
        Nat::Open,
        Nat::FullCone,
        Nat::Restricted,
        Nat::PortRestricted,
        Nat::Symmetric,
        Nat::Counting,
        Nat::AddressDependent,
        Nat::BareMasquerade,
        Nat::Firewall,
    ];

    /// Whether addresses are translated.
    pub fn translates(self) -> bool {
        !matches!(self, Nat::Open | Nat::Firewall)
    }

    /// A short name for labels of namespaces and nodes.
    pub fn label(self) -> &'static str {
        match self {
            Nat::Open => "open",
            Nat::FullCone => "full",
            Nat::Restricted => "rest",
            Nat::PortRestricted => "port",
            Nat::Symmetric => "symm",
            Nat::Counting => "coun",
            Nat::AddressDependent => "addr",
            Nat::BareMasquerade => "bare",
            Nat::Firewall => "fire",
        }
    }

    /// Lets in only who was written to, address and port.
    fn filters_by_port(self) -> bool {
        matches!(self, Nat::PortRestricted | Nat::Symmetric | Nat::Counting | Nat::BareMasquerade | Nat::Firewall)
    }

    /// Takes another port for another destination.
    fn is_hard(self) -> bool {
        matches!(self, Nat::Symmetric | Nat::Counting | Nat::AddressDependent)
    }

    /// The rules for the router with `wan0` outside at `wan`, in front of `lan` (a prefix).
    pub(super) fn rules(self, wan: &str, lan: &str) -> String {
        self.rules_with_ports(wan, lan, "")
    }

    /// The same, with outside ports from a range only (`:LOW-HIGH`), where ports are kept otherwise.
    pub(super) fn rules_with_ports(self, wan: &str, lan: &str, ports: &str) -> String {
        match self {
            Nat::Open => String::new(),
            Nat::Firewall => firewall(),
            Nat::FullCone
            | Nat::Restricted
            | Nat::PortRestricted
            | Nat::Symmetric
            | Nat::Counting
            | Nat::AddressDependent
            | Nat::BareMasquerade => self.translation(wan, lan, ports),
        }
    }

    fn translation(self, wan: &str, lan: &str, ports: &str) -> String {
        let source = match self {
            Nat::BareMasquerade => "masquerade".to_owned(),
            Nat::Symmetric => format!("snat to {wan} fully-random"),
            Nat::Counting | Nat::AddressDependent => {
                let number = if self == Nat::Counting { "numgen inc" } else { "jhash ip saddr . udp sport . ip daddr" };
                format!("{}\n        oifname \"wan0\" ip saddr {lan} snat to {wan}", numbered(wan, number))
            }
            Nat::Open | Nat::FullCone | Nat::Restricted | Nat::PortRestricted | Nat::Firewall => {
                // Only what has ports can be given others.
                let of_udp = if ports.is_empty() { "" } else { "meta l4proto udp " };
                format!("{of_udp}snat to {wan}{ports}")
            }
        };
        let admitted = match self {
            Nat::FullCone => "dnat to udp dport map @behind".to_owned(),
            Nat::Restricted | Nat::AddressDependent => {
                "udp dport . ip saddr @written_to dnat to udp dport map @behind".to_owned()
            }
            Nat::Open | Nat::PortRestricted | Nat::Symmetric | Nat::Counting | Nat::BareMasquerade | Nat::Firewall => {
                "return".to_owned()
            }
        };
        let unasked = if self == Nat::BareMasquerade { "accept" } else { "drop" };
        gateway(wan, lan, &source, &admitted, unasked)
    }
}

/// The one of 4,096 ports that has this number. A bare number would come out with its bytes swapped.
fn numbered(wan: &str, number: &str) -> String {
    let ports: Vec<String> = (0..4096).map(|n| format!("{n} : {}", 16384 + n)).collect();
    format!("meta l4proto udp snat to {wan} : {number} mod 4096 map {{ {} }}", ports.join(", "))
}

/// A translating gateway: how flows get their source, which strangers are let in to whom, and
/// what becomes of packets that nobody asked for.
fn gateway(wan: &str, lan: &str, source: &str, admitted: &str, unasked: &str) -> String {
    format!(
        r#"
table ip site {{
    map behind {{
        type inet_service : ipv4_addr . inet_service
        flags dynamic, timeout
        timeout 120s
        size 65535
    }}
    set written_to {{
        type inet_service . ipv4_addr
        flags dynamic, timeout
        timeout 120s
        size 65535
    }}
    chain strangers {{
        type nat hook prerouting priority -100
        iifname "wan0" ip daddr {wan} meta l4proto udp jump admitted
    }}
    chain admitted {{
        {admitted}
    }}
    chain translate {{
        type nat hook postrouting priority 100
        oifname "wan0" ip saddr {lan} {source}
    }}
    chain note {{
        type filter hook postrouting priority 110
        oifname != "wan0" return
        meta l4proto != udp return
        ct direction original update @behind {{ udp sport : ct original ip saddr . ct original proto-src }}
        ct direction reply update @behind {{ udp sport : ct reply ip saddr . ct reply proto-src }}
        update @written_to {{ udp sport . ip daddr }}
    }}
    chain own {{
        type filter hook input priority 0
        iifname "lan0" ip daddr {wan} drop
        iifname "wan0" ct state new {unasked}
    }}
    chain through {{
        type filter hook forward priority 0
        iifname != "wan0" accept
        ct state established,related accept
        ct status dnat accept
        drop
    }}
}}
"#
    )
}

fn firewall() -> String {
    r#"
table ip site {
    chain through {
        type filter hook forward priority 0
        iifname != "wan0" accept
        ct state established,related accept
        drop
    }
}
"#
    .to_owned()
}

/// Which pairs meet by plain punching: all, unless one side takes another port for each
/// destination and the other does so too or lets in only the port that it wrote to.
pub fn can_punch(one: Nat, other: Nat) -> bool {
    let stuck = |a: Nat, b: Nat| a.is_hard() && (b.is_hard() || b.filters_by_port());
    !stuck(one, other) && !stuck(other, one)
}

/// How a pair of nodes is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// Directly, at once, or by predicting the ports of a NAT that counts.
    Direct,
    /// Directly after a search of many ports.
    Searched,
    /// As chance has it: guesses are strays for a gateway that strays mislead, and one supernode cannot
    /// tell what depends on addresses.
    Either,
    /// By a relay for ever.
    Relayed,
}

/// What longwire makes of a pair.
pub fn meeting(one: Nat, other: Nat) -> Meeting {
    if can_punch(one, other) {
        return Meeting::Direct;
    }
    let either = |nat: Nat| one == nat || other == nat;
    match (one.is_hard(), other.is_hard()) {
        (true, true) if one == Nat::Counting && other == Nat::Counting => Meeting::Direct,
        _ if either(Nat::AddressDependent) => Meeting::Either,
        (true, true) => Meeting::Relayed,
        _ if either(Nat::BareMasquerade) => Meeting::Either,
        _ if either(Nat::Counting) => Meeting::Direct,
        _ => Meeting::Searched,
    }
}
