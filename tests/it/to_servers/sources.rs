//! Where connections to servers come from.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use crate::support::{
    client::{Connection, Request},
    config::{APP, CLONES, Site, parse},
    homing::run,
    net,
    origin::Origin,
};

/// Stands before a server, and sees who comes.
struct Door {
    addr: SocketAddr,
    came: Arc<Mutex<Vec<IpAddr>>>,
}

impl Door {
    async fn of(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(net::free_addr()).await.expect("the address is free");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let came = Arc::new(Mutex::new(Vec::new()));
        let seen = came.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, from)) = listener.accept().await {
                seen.lock().push(from.ip());
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.expect("the server listens");
                    copy_bidirectional(&mut stream, &mut server).await.ok();
                });
            }
        });
        Self { addr, came }
    }

    /// How many connections came from each address.
    fn came(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for ip in self.came.lock().iter() {
            *counts.entry(ip.to_string()).or_default() += 1;
        }
        counts
    }
}

/// The first pool with a server behind this door, and these keys.
fn through(door: &Door, keys: &str) -> Site {
    Site::new(&[]).with(|yaml| {
        yaml["threads"] = 1.into();
        let pool = &mut yaml["pools"][0];
        pool["servers"] = parse(&format!("[{{ip: {}, port: {}}}]", door.addr.ip(), door.addr.port()));
        for (key, value) in parse(keys).as_mapping().expect("keys and values") {
            pool[key] = value.clone();
        }
    })
}

fn all_of(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(ip, n)| ((*ip).to_owned(), *n)).collect()
}

#[tokio::test]
async fn connections_to_servers_come_from_the_addresses_of_the_pool_in_turn_and_are_kept_apart() {
    let app = Origin::start("app").await;
    for more in ["", "max_connection_age: 1h"] {
        let door = Door::of(app.addr).await;
        let keys = format!("{{snat_ip: [127.0.0.2, 127.0.0.3], {more}}}");
        let site = through(&door, &keys);
        let homing = site.start().await;
        for _ in 0..8 {
            assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
        }
        assert_eq!(door.came(), all_of(&[("127.0.0.2", 1), ("127.0.0.3", 1)]), "{more}: they are used again");
        homing.reloaded(&site.with(|yaml| yaml["pools"][0]["snat_ip"] = parse("[127.0.0.4]"))).await;
        assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
        let after = all_of(&[("127.0.0.2", 1), ("127.0.0.3", 1), ("127.0.0.4", 1)]);
        assert_eq!(door.came(), after, "{more}: one of another address is not");
    }
}

#[tokio::test]
async fn tunnels_probes_and_copies_come_from_there_too() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let (door, side) = (Door::of(app.addr).await, Door::of(clone.addr).await);
    let site =
        through(&door, "{snat_ip: [127.0.0.2]}").clone_to(&[&clone]).monitored(APP, "tcp").with(|yaml| {
            let pools = yaml["pools"].as_sequence_mut().expect("a list");
            let clones = pools.iter_mut().find(|pool| pool["name"] == CLONES).expect("the clone pool");
            clones["servers"] = parse(&format!("[{{ip: {}, port: {}}}]", side.addr.ip(), side.addr.port()));
            clones["snat_ip"] = parse("[127.0.0.3]");
        });
    let homing = site.start().await;
    homing.sees(APP, door.addr, true).await;
    let mut client = Connection::open(homing.addr).await;
    assert_eq!(client.ask(&Request::get("/").cookie("SID=1")).await.status, 200);
    let upgrade = Request::get("/").header("connection", "upgrade").header("upgrade", "websocket");
    client.ask(&upgrade).await;
    clone.got(1).await;
    assert_eq!(side.came().into_keys().collect::<Vec<_>>(), ["127.0.0.3"]);
    assert_eq!(door.came().into_keys().collect::<Vec<_>>(), ["127.0.0.2"]);
    let pool = homing.json(&format!("/api/v1/pools/{APP}")).await;
    assert_eq!(pool["snat_ip"], serde_json::json!(["127.0.0.2"]));
}

#[tokio::test]
async fn an_address_that_this_machine_does_not_have_is_refused_at_the_start_and_in_a_reload() {
    let app = Origin::start("app").await;
    let elsewhere =
        |site: &Site| site.clone().with(|yaml| yaml["pools"][0]["snat_ip"] = parse("[192.0.2.1]"));
    let site = Site::new(&[&app]);
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = elsewhere(&site).write(dir.path());
    let refused = run(&["run", "--config", file.to_str().expect("temporary paths are text")]).await;
    assert_eq!(refused.code, Some(1), "{}", refused.text());
    for part in ["snat_ip 192.0.2.1", "give the address to an interface"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.text());
    }
    let homing = site.start().await;
    let reload = homing.reload(&elsewhere(&site)).await;
    assert_eq!(reload["result"], "failure", "{reload}");
    assert!(reload.to_string().contains("snat_ip 192.0.2.1"), "{reload}");
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
}
