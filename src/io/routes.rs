//! The host's main routing table: which way the internet is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::netlink::{NetlinkError, explain};

/// One route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The network it leads to; all zero of a default route.
    pub(super) network: IpAddr,
    /// Bits of it that count.
    pub(super) prefix: u8,
    /// The index of the link it leaves by.
    pub(super) link: u32,
    /// The next router, if there is one.
    pub(super) gateway: Option<IpAddr>,
    /// The least is taken.
    pub(super) metric: u32,
}

/// All of them.
pub(super) async fn list(handle: &Handle) -> Result<Vec<Route>, NetlinkError> {
    let mut found = Vec::new();
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    for question in [v4, v6] {
        let answers = handle.route().get(question).execute().try_collect::<Vec<_>>().await;
        let answers = answers.map_err(|error| explain("listing routes", &error))?;
        found.extend(answers.into_iter().filter_map(view));
    }
    Ok(found)
}

/// The default routes of a family, the one in use first.
pub(super) fn defaults(routes: &[Route], is_v4: bool) -> Vec<Route> {
    let mut found: Vec<Route> =
        routes.iter().filter(|route| route.prefix == 0 && route.network.is_ipv4() == is_v4).copied().collect();
    found.sort_by_key(|route| route.metric);
    found
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the kernel has many attributes and we want few")]
fn view(message: RouteMessage) -> Option<Route> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN || message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut network = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut link, mut gateway, mut metric) = (None, None, 0);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => network = ip(&address)?,
            RouteAttribute::Gateway(address) => gateway = ip(&address),
            RouteAttribute::Oif(index) => link = Some(index),
            RouteAttribute::Priority(priority) => metric = priority,
            RouteAttribute::MultiPath(hops) => {
                let hop = hops.into_iter().next()?;
                link = Some(hop.interface_index);
                gateway = hop.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Gateway(address) => ip(address),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(Route { network, prefix: message.header.destination_prefix_length, link: link?, gateway, metric })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        RouteAddress::Mpls(_) | RouteAddress::Other(_) => None,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: Vec<RouteAttribute>, prefix: u8) -> RouteMessage {
        let mut message = RouteMessageBuilder::<Ipv4Addr>::new().build();
        message.header.destination_prefix_length = prefix;
        message.attributes = attributes;
        message
    }

    #[test]
    fn a_default_route_names_its_router() {
        let router = IpAddr::from([10, 0, 0, 1]);
        let attributes =
            vec![RouteAttribute::Gateway(router.into()), RouteAttribute::Oif(3), RouteAttribute::Priority(100)];
        let route = view(message(attributes, 0)).expect("a route");
        let expected =
            Route { network: Ipv4Addr::UNSPECIFIED.into(), prefix: 0, link: 3, gateway: Some(router), metric: 100 };
        assert_eq!(route, expected);
        assert_eq!(view(message(vec![RouteAttribute::Gateway(router.into())], 0)), None, "leads nowhere");
    }

    #[test]
    fn the_default_route_with_the_least_metric_comes_first() {
        let route =
            |link, metric, prefix| Route { network: Ipv4Addr::UNSPECIFIED.into(), prefix, link, gateway: None, metric };
        let found = defaults(&[route(1, 600, 0), route(2, 100, 0), route(3, 0, 8)], true);
        assert_eq!(found.iter().map(|route| route.link).collect::<Vec<_>>(), [2, 1]);
    }
}
