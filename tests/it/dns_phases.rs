//! Avi's three phases of site persistence, from a client's first question to DNS on: two sites, the DNS of each, and a
//! client that moves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::support::{
    client::{Answer, Browser},
    config::{Federation, Site, parse},
    dns::Resolver,
    homing::Homing,
    net,
    origin::Origin,
};

/// Clients here are site_A's.
const OFFICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);
/// And here site_B's.
const HOME: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 0);

const TTL: u64 = 30;

/// Two sites that send clients to the nearer one.
struct World {
    sites: [(Site, SocketAddr); 2],
    _running: [Homing; 2],
    _apps: [Origin; 2],
}

impl World {
    async fn new() -> Self {
        let apps = [Origin::start("a").await, Origin::start("b").await];
        let fed = Federation::new().with(|yaml| {
            yaml["gslb"]["topology"] = parse(&format!(
                "[{{networks: ['{OFFICE}/24'], sites: [site_A]}}, {{networks: ['{HOME}/24'], sites: [site_B]}}]"
            ));
            let service = &mut yaml["gslb_services"][0];
            service["ttl"] = format!("{TTL}s").into();
            let second = service["groups"][1]["members"][0].clone();
            let groups = service["groups"].as_sequence_mut().expect("a list");
            groups.truncate(1);
            groups[0]["algorithm"] = "topology".into();
            groups[0]["members"].as_sequence_mut().expect("a list").push(second);
        });
        let [a, b] = [fed.site_a(&[&apps[0]]), fed.site_b(&[&apps[1]])].map(|site| {
            let dns = net::free_addr();
            (site.with(|yaml| yaml["dns"] = parse(&format!("{{listen: ['{dns}']}}"))), dns)
        });
        let running = [a.0.start().await, b.0.start().await];
        // site_A began when site_B was not there yet.
        let b_is_up = [("service", "gs"), ("member", "site_B"), ("source", "monitors")];
        running[0].settles("homing_gslb_member_up", &b_is_up, 1.0).await;
        Self { sites: [a, b], _running: running, _apps: apps }
    }

    fn ip(&self, site: usize) -> IpAddr {
        self.sites[site].0.addr.ip()
    }

    /// Goes to the site that has one of the addresses.
    async fn get(&self, browser: &mut Browser, to: &[IpAddr]) -> Answer {
        let site = self.sites.iter().find(|(site, _)| to == [site.addr.ip()]).expect("the address of a site");
        browser.get(site.0.addr, "/").await
    }
}

#[tokio::test]
async fn a_client_that_dns_sends_elsewhere_is_served_by_the_site_where_its_session_began() {
    let world = World::new().await;
    let [dns_a, dns_b] = [world.sites[0].1, world.sites[1].1];
    let (mut browser, mut resolver) = (Browser::default(), Resolver::default());

    // Phase 1: it asks, is sent to site_A, and gets a cookie there.
    let sent_to = resolver.resolve("a.com.", OFFICE, dns_a, 0).await;
    assert_eq!(sent_to, [world.ip(0)]);
    let first = world.get(&mut browser, &sent_to).await;
    assert_eq!((first.server(), first.site_cookie().is_some()), ("a", true));

    // Phase 2: the time to live passes while the client moves, and the DNS of site_B sends it to site_B.
    assert_eq!(resolver.resolve("a.com.", HOME, dns_b, TTL - 1).await, [world.ip(0)], "still kept");
    let sent_to = resolver.resolve("a.com.", HOME, dns_b, TTL).await;
    assert_eq!((&*sent_to, resolver.asked), (&[world.ip(1)][..], 2));

    // Phase 3: it knocks at site_B with the cookie, and is served by site_A.
    let second = world.get(&mut browser, &sent_to).await;
    assert_eq!((second.status, second.server()), (200, "a"));

    // Who comes to site_B without a cookie is at home there.
    let mut stranger = Browser::default();
    assert_eq!(world.get(&mut stranger, &sent_to).await.server(), "b");
    assert_eq!(world.get(&mut stranger, &[world.ip(0)]).await.server(), "b", "also at site_A");
}
