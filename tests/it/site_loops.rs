//! Three sites that send a session round in a circle: no request crosses more than one hop.

use crate::{
    sites::OUTCOMES,
    support::{
        client::Request,
        config::{Federation, Site},
        homing::Homing,
        origin::Origin,
        site_cookie::{A, B, C, Cookie, Member},
    },
};

/// Three sites, an app server each; `a`, `b` and `c` are called by their apps.
struct Circle {
    sites: [Homing; 3],
    apps: [Origin; 3],
    names: [&'static str; 3],
}

impl Circle {
    /// Each of a federation of its own making: `federation` is given the site's number.
    async fn start(federation: impl Fn(usize) -> Federation) -> Self {
        let apps = [Origin::start("a").await, Origin::start("b").await, Origin::start("c").await];
        let make: [fn(&Federation, &[&Origin]) -> Site; 3] =
            [Federation::site_a, Federation::site_b, Federation::site_c];
        let start = async |n: usize| make[n](&federation(n), &[&apps[n]]).start().await;
        let sites = [start(0).await, start(1).await, start(2).await];
        for (site, name) in sites.iter().zip(["site_A", "site_B", "site_C"]) {
            for other in sites.iter().filter(|other| other.addr != site.addr) {
                site.sees(&format!("SP-gs-web@{name}"), other.addr, true).await;
            }
        }
        Self { sites, apps, names: ["a", "b", "c"] }
    }

    /// Asks a site; gives the app that answered. All apps together get one request, over one hop at most.
    async fn ask(&self, at: usize, cookies: &str) -> String {
        let answer = Request::get("/").cookie(cookies).send(self.sites[at].addr).await;
        assert_eq!(answer.status, 200);
        let records = self.apps.iter().flat_map(Origin::take).collect::<Vec<_>>();
        assert_eq!(records.len(), 1, "one app server serves it");
        let marks = |field: &str| {
            records[0].headers.all(field).iter().filter(|mark| mark.contains("homing-tests")).count()
        };
        assert!(marks("via") <= 1 && marks("via") == marks("cdn-loop"), "{:?}", records[0].headers);
        assert_eq!(marks("via") == 1, answer.server() != self.names[at], "a hop is marked, and only a hop");
        answer.server().to_owned()
    }
}

/// The cookies of these members, each newer than the one before.
fn cookies(members: [Member; 3]) -> String {
    let cookie = |(n, member)| {
        let cookie = Cookie::of(member);
        let iat = cookie.iat - 10 + n as u64;
        format!("FOO={}", Cookie { iat, ..cookie }.seal())
    };
    members.into_iter().enumerate().map(cookie).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn cookies_that_send_each_site_to_the_next_are_served_after_one_hop() {
    // A site takes only the next one's cookie for valid: the others' are of an older epoch.
    let fed = Federation::three();
    let circle = Circle::start(|own| {
        fed.clone().with(|yaml| {
            for (n, group) in
                yaml["gslb_services"][0]["groups"].as_sequence_mut().expect("a list").iter_mut().enumerate()
            {
                group["members"][0]["drain_epoch"] = if n == (own + 1) % 3 { 0 } else { 9 }.into();
            }
        })
    })
    .await;
    for order in [[A, B, C], [C, B, A], [B, A, C]] {
        for (at, served_by) in ["b", "c", "a"].into_iter().enumerate() {
            assert_eq!(circle.ask(at, &cookies(order)).await, served_by);
        }
    }
    for site in &circle.sites {
        site.settles(OUTCOMES, &[("outcome", "proxied")], 3.0).await;
        site.settles(OUTCOMES, &[("outcome", "loop")], 3.0).await;
        site.settles(OUTCOMES, &[], 6.0).await;
    }
}

#[tokio::test]
async fn addresses_that_send_each_site_to_the_next_are_refused_and_served_where_they_began() {
    // Where a site believes its peers, there are the others: what is meant for B comes to C.
    let fed = Federation::three();
    let circle = Circle::start(|own| {
        fed.clone().with(|yaml| {
            let groups = &mut yaml["gslb_services"][0]["groups"];
            let place = |groups: &serde_yaml::Value, n: usize| {
                let member = &groups[n]["members"][0];
                (member["ip"].clone(), member["services"].clone())
            };
            let (one, other) = ((own + 1) % 3, (own + 2) % 3);
            let (of_one, of_other) = (place(groups, one), place(groups, other));
            for (n, (ip, services)) in [(one, of_other), (other, of_one)] {
                groups[n]["members"][0]["ip"] = ip;
                groups[n]["members"][0]["services"] = services;
            }
        })
    })
    .await;
    for (at, own, home) in [(0, "a", B), (0, "a", C), (1, "b", C), (1, "b", A), (2, "c", A), (2, "c", B)] {
        let cookie = format!("FOO={}", Cookie::of(home).seal());
        assert_eq!(circle.ask(at, &cookie).await, own, "the wrong site says so, and recovery serves it here");
    }
    for site in &circle.sites {
        site.settles(OUTCOMES, &[("outcome", "rehomed")], 2.0).await;
        site.settles(OUTCOMES, &[("outcome", "from_peer")], 2.0).await;
    }
}

#[tokio::test]
async fn hops_that_prove_nothing_are_known_by_their_token_and_served() {
    let fed = Federation::three();
    let sites = Circle::start(|_| fed.clone()).await;
    let request = |cookie: Member| Request::get("/").cookie(&format!("FOO={}", Cookie::of(cookie).seal()));
    for token in ["homing-tests", "other, Homing-Tests;x=1"] {
        let answer = request(B).header("CDN-Loop", token).send(sites.sites[0].addr).await;
        assert_eq!(
            (answer.status, answer.server()),
            (200, "a"),
            "{token}: it has been through the federation"
        );
    }
    sites.sites[0].settles(OUTCOMES, &[("outcome", "loop")], 2.0).await;
    assert_eq!(sites.apps.iter().flat_map(Origin::take).count(), 2);
}
