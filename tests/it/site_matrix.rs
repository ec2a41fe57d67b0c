//! The table of homes that are away, cell by cell, between two real sites; it stands in `gslb::policy`. Homes that
//! misbehave in the middle of a request have a file of their own.

use serde_yaml::Value;

use crate::{
    sites::Sites,
    support::{
        client::Request,
        config::{APP, Federation},
        homing::Homing,
        origin::Origin,
        site_cookie::{A, B, Cookie},
    },
};

#[tokio::test]
async fn every_home_that_is_away_is_recovered_from_as_the_table_says() {
    const PROXIED: Cell = Cell { status: 200, server: "b", begins_here: false };
    const BEGUN_HERE: Cell = Cell { status: 200, server: "a", begins_here: true };
    const REFUSED: Cell = Cell { status: 503, server: "", begins_here: false };
    for (n, recovery) in
        ["pick_new_server", "abort_connection", "continue_persistent_server"].into_iter().enumerate()
    {
        let fed = Federation::new().recovery(recovery);
        let apps = [Origin::start("a").await, Origin::start("b").await];
        let [site_a, site_b] =
            [fed.site_a(&[&apps[0]]), fed.site_b(&[&apps[1]])].map(|site| site.monitored(APP, "tcp"));
        let mut sites = Sites::of(&site_a, &site_b, apps).await;
        let expect = async |sites: &Sites, what: &str, by_recovery: [Cell; 3]| {
            for request in [Request::get("/"), Request::post("/", "the body")] {
                check(&sites.a, request, by_recovery[n], &format!("{what}, {recovery}")).await;
            }
        };
        let changed = async |sites: &Sites, change: &dyn Fn(&mut Value)| {
            let fed = fed.clone().with(change);
            sites.a.reloaded(&site_a.clone().in_federation(&fed)).await;
            sites.b.reloaded(&site_b.clone().in_federation(&fed)).await;
        };
        expect(&sites, "up", [PROXIED; 3]).await;

        drain(&sites.b, "30m").await;
        expect(&sites, "draining", [PROXIED; 3]).await;
        drain(&sites.b, "0s").await;
        expect(&sites, "drained", [BEGUN_HERE; 3]).await;
        assert_eq!(sites.b.command(&["gslb", "undrain", "site_B"]).await.code, Some(0));

        changed(&sites, &|fed| member_b(fed)["enabled"] = false.into()).await;
        expect(&sites, "disabled", [PROXIED; 3]).await;
        changed(&sites, &|fed| {
            member_b(fed)["enabled"] = false.into();
            fed["gslb_services"][0]["graceful_disable_timeout"] = "0s".into();
        })
        .await;
        expect(&sites, "disabled, after the deadline", [BEGUN_HERE; 3]).await;

        changed(&sites, &|fed| member_b(fed)["drain_epoch"] = 1.into()).await;
        expect(&sites, "of an older epoch", [BEGUN_HERE; 3]).await;
        let without_b = fed.clone().with(|fed| {
            fed["gslb_services"][0]["groups"].as_sequence_mut().expect("a list").truncate(1);
        });
        sites.a.reloaded(&site_a.clone().in_federation(&without_b)).await;
        expect(&sites, "removed", [BEGUN_HERE; 3]).await;
        changed(&sites, &|_| {}).await;
        sites.a.sees(SP_POOL, sites.b.addr, true).await;
        expect(&sites, "back again", [PROXIED; 3]).await;

        sites.app_b.down().await;
        sites.b.sees(APP, sites.app_b.addr, false).await;
        expect(&sites, "its app down", [BEGUN_HERE, REFUSED, REFUSED]).await;
        sites.app_a.down().await;
        sites.a.sees(APP, sites.app_a.addr, false).await;
        expect(&sites, "its app down, and the one here", [REFUSED; 3]).await;

        sites.b.kill().await;
        sites.a.sees(SP_POOL, sites.b.addr, false).await;
        expect(&sites, "down, and the app here", [REFUSED; 3]).await;
        sites.app_a.up().await;
        sites.a.sees(APP, sites.app_a.addr, true).await;
        expect(&sites, "down", [BEGUN_HERE, REFUSED, REFUSED]).await;

        sites.app_b.up().await;
        sites.b = site_b.start().await;
        sites.b.sees(APP, sites.app_b.addr, true).await;
        sites.a.sees(SP_POOL, sites.b.addr, true).await;
        expect(&sites, "up after all", [PROXIED; 3]).await;
    }
}

/// What a client of site_B gets at site_A.
#[derive(Clone, Copy)]
struct Cell {
    status: u16,
    /// The app server that answers, if one does.
    server: &'static str,
    /// The answer makes site_A its home; else it keeps the one that it has.
    begins_here: bool,
}

async fn check(at: &Homing, request: Request, cell: Cell, what: &str) {
    let answer = request.clone().cookie(&format!("FOO={}", Cookie::of(B).seal())).send(at.addr).await;
    let what = format!("{} {what}", request.method);
    assert_eq!((answer.status, answer.server()), (cell.status, cell.server), "{what}");
    let home = answer.site_cookie().map(|value| Cookie::open(value).member);
    assert_eq!(home, cell.begins_here.then(|| A.id()), "{what}");
}

async fn drain(at: &Homing, how_long: &str) {
    let output = at.command(&["gslb", "drain", "site_B", "--for", how_long]).await;
    assert_eq!(output.code, Some(0), "{}", output.text());
}

fn member_b(fed: &mut Value) -> &mut Value {
    &mut fed["gslb_services"][0]["groups"][1]["members"][0]
}

const SP_POOL: &str = "SP-gs-web@site_A";
