//! What a snapshot takes over from the one before.

use std::{collections::BTreeMap, path::Path};

use super::*;
use crate::{
    config::load_from,
    metrics::{Answered, ListenerMetrics},
    rule::Rule,
};

/// Two virtual services, of which `b` has a rule; the text can be changed by replacing parts.
const CONFIG: &str = "
pools:
  - { name: app, servers: [{ ip: 10.0.0.1, port: 80 }, { ip: 10.0.0.2, port: 80 }] }
  - { name: other, servers: [{ ip: 10.0.0.3, port: 80 }] }
  - { name: clones, servers: [{ ip: 10.0.0.4, port: 80 }] }
rules: [{ name: nothing, rule: nothing }]
virtual_services:
  - name: a
    services: [{ address: 127.0.0.1, port: 81 }]
    pool_ref: app
    clone: { pool_ref: clones, tokens: [source_ip] }
  - { name: b, services: [{ address: 127.0.0.1, port: 82 }], pool_ref: other, rule_refs: [nothing] }
";

struct Bench {
    parts: Parts,
    registry: Registry,
}

impl Bench {
    fn new() -> Self {
        struct Nothing;
        impl Rule for Nothing {}
        let (metrics, clock) = (Metrics::new(), Clock::virtual_at(std::time::Duration::from_secs(1)));
        let mut registry = Registry::default();
        registry.factory("nothing", |_| Ok(Arc::new(Nothing)));
        let parts = Parts {
            sessions: Arc::new(SessionTable::new(10, [0; 16], &metrics, clock.now())),
            ticket_keys: TicketKeys::random().unwrap(),
            replay: Arc::new(ReplayGuard::new()),
            drains: Arc::default(),
            censuses: Default::default(),
            words: Default::default(),
            server_names: Default::default(),
            memories: Default::default(),
            unseen: Metrics::new(),
            mark_key: [0; 16],
            metrics,
            clock,
        };
        Self { parts, registry }
    }

    fn build(&self, text: &str, previous: Option<&Snapshot>) -> Snapshot {
        let files = BTreeMap::from([("homing.yaml".into(), text.as_bytes().to_vec())]);
        let loaded = load_from(&files, Path::new("homing.yaml"), &self.registry.names());
        let config = loaded.unwrap_or_else(|problems| panic!("{problems}")).config;
        Snapshot::build(Arc::new(config), &self.registry, &self.parts, previous).unwrap()
    }

    /// The names of what the snapshot of a changed configuration did not take over: pools, virtual services, lanes.
    fn new_after(&self, replace: &[(&str, &str)]) -> [Vec<String>; 3] {
        let mut text = CONFIG.to_owned();
        for (from, to) in replace {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let old = self.build(CONFIG, None);
        let new = self.build(&text, Some(&old));
        let new_pool = |pool: &&Arc<Pool>| !old.pools.iter().any(|before| Arc::ptr_eq(before, pool));
        let new_vs =
            |vs: &&Arc<VirtualService>| !old.virtual_services.iter().any(|before| Arc::ptr_eq(before, vs));
        let lanes = |snapshot: &Snapshot| snapshot.virtual_services[0].clone_pool(&"clones".into());
        let same_lanes = lanes(&old).zip(lanes(&new)).is_some_and(|(a, b)| Arc::ptr_eq(&a, &b));
        [
            new.pools.iter().filter(new_pool).map(|pool| pool.name().to_string()).collect(),
            new.virtual_services.iter().filter(new_vs).map(|vs| vs.name().to_string()).collect(),
            if same_lanes { vec![] } else { vec!["clones".to_owned()] },
        ]
    }
}

#[test]
fn what_has_not_changed_is_the_object_that_it_was() {
    let bench = Bench::new();
    for (replace, pools, virtual_services, lanes) in [
        (&[][..], vec![], vec![], vec![]),
        (&[("port: 82", "port: 83")], vec![], vec!["b"], vec![]),
        (&[("pool_ref: app", "pool_ref: app\n    domain_names: [a.com]")], vec![], vec!["a"], vec![]),
        // Rules may hold any pool.
        (&[("10.0.0.3", "10.0.0.5")], vec!["other"], vec!["a", "b"], vec![]),
        (&[("10.0.0.4", "10.0.0.5")], vec!["clones"], vec!["a", "b"], vec!["clones"]),
        (&[("[source_ip]", "[source_ip], sample: 50%")], vec![], vec!["a"], vec!["clones"]),
    ] {
        let new = bench.new_after(replace);
        assert_eq!(new, [pools, virtual_services, lanes], "{replace:?}");
    }
}

#[test]
fn lanes_that_a_rule_ordered_are_taken_over() {
    let bench = Bench::new();
    let old = bench.build(CONFIG, None);
    let ordered = old.virtual_services[1].clone_pool(&"clones".into()).unwrap();
    let new = bench.build(&CONFIG.replace("port: 82", "port: 83"), Some(&old));
    drop(old);
    let now = new.virtual_services[1].clone_pool(&"clones".into()).unwrap();
    assert!(Arc::ptr_eq(&ordered, &now));
}

#[test]
fn a_listener_that_departed_is_routed_until_it_is_forgotten() {
    let bench = Bench::new();
    let old = bench.build(CONFIG, None);
    let without_b = CONFIG.split("  - { name: b").next().unwrap();
    let new = bench.build(without_b, Some(&old));
    let live = Live::new(old, bench.parts);
    let gone = live.replace(new);
    assert_eq!(gone.iter().map(|listener| listener.addr.port()).collect::<Vec<_>>(), [82]);
    let routed = |listener| live.route(&live.snapshot(), listener, "a.com").map(|vs| vs.name().to_string());
    assert_eq!(routed("127.0.0.1:81").as_deref(), Some("a"));
    assert_eq!(routed("127.0.0.1:82").as_deref(), Some("b"));
    assert_eq!(live.only("127.0.0.1:82").map(|vs| vs.name().to_string()).as_deref(), Some("b"));
    live.forget(&gone[0]);
    assert_eq!(routed("127.0.0.1:82"), None);
    assert!(live.only("127.0.0.1:82").is_none());
}

#[test]
fn series_are_kept_for_what_there_is() {
    let bench = Bench::new();
    let old = bench.build(CONFIG, None);
    let new = bench.build(&CONFIG.replace(", { ip: 10.0.0.2, port: 80 }", ""), Some(&old));
    let live = Live::new(old, bench.parts);
    ListenerMetrics::new(&live.metrics, "127.0.0.1:9").refused("address");
    live.unrouted.count(&Answered {
        status: 421,
        took: std::time::Duration::ZERO,
        version: http::Version::HTTP_11,
        bytes_received: 0,
        bytes_sent: 0,
    });
    live.replace(new);
    live.forget_series();
    let page = live.metrics.page();
    for gone in ["10.0.0.2:80", "127.0.0.1:9"] {
        assert!(!page.contains(gone), "{gone}: {page}");
    }
    for kept in ["10.0.0.1:80", "10.0.0.4:80", r#"pool="-",vs="-"} 1"#, r#"vs="b""#] {
        assert!(page.contains(kept), "{kept}: {page}");
    }
}
