//! Keys are rotated while clients keep sending: each site loads its new keys by itself, and nobody leaves home.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::task::JoinHandle;

use crate::{
    keys::{NEW, WithKeys, sealed_by},
    sites::OUTCOMES,
    support::{
        client::Browser,
        config::{Federation, Site},
        eventually,
        homing::Homing,
        origin::{Origin, hex},
        site_cookie::KEY,
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_by_reloads_under_load_and_no_client_changes_its_site() {
    let fed = Federation::three();
    let apps = [Origin::start("a").await, Origin::start("b").await, Origin::start("c").await];
    let configured = [fed.site_a(&[&apps[0]]), fed.site_b(&[&apps[1]]), fed.site_c(&[&apps[2]])]
        .map(|site| site.file("new.key", &hex(&NEW.secret)));
    let sites = [configured[0].start().await, configured[1].start().await, configured[2].start().await];
    see_each_other(&sites).await;
    let load = Load::start(sites.each_ref().map(|site| site.addr));
    load.goes_on().await;
    for keys in [
        &[(KEY, "active"), (NEW, "next")][..],
        &[(KEY, "retiring"), (NEW, "active")],
        &[(NEW, "active")],
        // And the next round begins.
        &[(NEW, "active"), (KEY, "next")],
    ] {
        let fed = fed.with_keys(keys);
        for (homing, site) in sites.iter().zip(&configured) {
            homing.reloaded(&Site::in_federation(site.clone(), &fed)).await;
            load.goes_on().await;
        }
    }
    let cookies = load.end().await;
    assert!(cookies.iter().all(|cookie| sealed_by(cookie, NEW)), "{cookies:?}");
    for site in &sites {
        site.settles(OUTCOMES, &[("outcome", "new")], CLIENTS as f64 / 3.0).await;
        for outcome in
            ["rehomed", "aborted", "unknown_key", "undecryptable", "expired", "wrong_service", "loop"]
        {
            assert_eq!(site.metric(OUTCOMES, &[("outcome", outcome)]).await, 0.0, "{outcome}");
        }
        assert_eq!(site.metric("homing_sp_hops_refused_total", &[]).await, 0.0);
    }
}

async fn see_each_other(sites: &[Homing; 3]) {
    for (site, name) in sites.iter().zip(["site_A", "site_B", "site_C"]) {
        for other in sites.iter().filter(|other| other.addr != site.addr) {
            site.sees(&format!("SP-gs-web@{name}"), other.addr, true).await;
        }
    }
}

/// Clients that began at one site each and ask all of them in turn; the first that is not served by its home's app
/// ends the test.
struct Load {
    clients: Vec<(Arc<AtomicU64>, JoinHandle<String>)>,
    ending: Arc<AtomicBool>,
}

impl Load {
    fn start(sites: [SocketAddr; 3]) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let client = |n: usize| {
            let (asked, ending) = (Arc::new(AtomicU64::new(0)), ending.clone());
            let (counter, home) = (asked.clone(), n % 3);
            let client = tokio::spawn(async move {
                let mut browser = Browser::default();
                for at in sites.into_iter().cycle().skip(home) {
                    let answer = browser.get(at, &format!("/{n}")).await;
                    assert_eq!((answer.status, answer.server()), (200, ["a", "b", "c"][home]), "client {n}");
                    counter.fetch_add(1, Relaxed);
                    if ending.load(Relaxed) {
                        break;
                    }
                }
                browser.cookies.remove("FOO").expect("a client has a site cookie")
            });
            (asked, client)
        };
        Self { clients: (0..CLIENTS).map(client).collect(), ending }
    }

    /// Waits until every client has asked every site once more at least.
    async fn goes_on(&self) {
        let before = self.clients.iter().map(|(asked, _)| asked.load(Relaxed)).collect::<Vec<_>>();
        let failed = || self.clients.iter().any(|(_, client)| client.is_finished());
        eventually("clients go on", async || {
            let mut counts = self.clients.iter().zip(&before);
            // The request that is under way counts for the time before.
            failed() || counts.all(|((asked, _), before)| asked.load(Relaxed) > before + 3)
        })
        .await;
        assert!(!failed(), "a client was not served by its home");
    }

    /// The site cookies that clients have in the end.
    async fn end(self) -> Vec<String> {
        self.ending.store(true, Relaxed);
        let mut cookies = Vec::new();
        for (_, client) in self.clients {
            cookies.push(client.await.expect("no request fails"));
        }
        cookies
    }
}

/// As many of each site.
const CLIENTS: usize = 12;
