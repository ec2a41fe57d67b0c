//! What the demo puts on disk while it runs, and what it says: configurations, a key, and curl lines.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::origins::Servers;
use crate::site_cookie::{Secret, write_new_secret};

/// A site before it has a place.
pub(super) struct Site {
    pub(super) name: &'static str,
    cluster_uuid: &'static str,
    vs_uuid: &'static str,
    ip: Ipv4Addr,
    admin_port: u16,
}

/// The two sites of Avi's article.
pub(super) const SITES: [Site; 2] = [
    Site {
        name: "site_A",
        cluster_uuid: "cluster-3a179b95-dff9-444b-9986-ba89c4e19c44",
        vs_uuid: "virtualservice-dc871051-35e8-4bec-bd1f-3c63fb6b7087",
        ip: Ipv4Addr::new(127, 0, 0, 11),
        admin_port: 19901,
    },
    Site {
        name: "site_B",
        cluster_uuid: "cluster-1e560f44-c898-41c3-818b-3433edbf9391",
        vs_uuid: "virtualservice-8a68c656-6a89-46d7-b9a5-1b693ae9798a",
        ip: Ipv4Addr::new(127, 0, 0, 12),
        admin_port: 19902,
    },
];

/// One site: what it is called, where it listens, and who serves.
pub(super) struct Place {
    pub(super) name: &'static str,
    cluster_uuid: &'static str,
    vs_uuid: &'static str,
    addr: SocketAddr,
    admin: SocketAddr,
    apps: Vec<SocketAddr>,
    clones: Vec<SocketAddr>,
}

impl Place {
    /// Finds free ports: on the site's own loopback address where the system has one, else on 127.0.0.1.
    /// `held` keeps them from being found twice, until it is dropped.
    pub(super) fn find(site: &Site, servers: Servers, held: &mut Vec<TcpListener>) -> io::Result<Self> {
        let Site { name, cluster_uuid, vs_uuid, ip, admin_port } = *site;
        let mut free = |ip, port| {
            let listener = free(ip, port)?;
            let addr = listener.local_addr()?;
            held.push(listener);
            io::Result::Ok(addr)
        };
        let addr = free(ip, PORT).or_else(|_| free(Ipv4Addr::LOCALHOST, PORT))?;
        let admin = free(Ipv4Addr::LOCALHOST, admin_port)?;
        Ok(Self { name, cluster_uuid, vs_uuid, addr, admin, apps: servers.apps, clones: servers.clones })
    }

    fn configuration(&self) -> String {
        let Self { name, cluster_uuid, vs_uuid, addr, admin, .. } = self;
        let list = |servers: &[SocketAddr]| {
            let servers =
                servers.iter().map(|addr| format!("{{ ip: {}, port: {} }}", addr.ip(), addr.port()));
            servers.collect::<Vec<_>>().join(", ")
        };
        let (apps, clones) = (list(&self.apps), list(&self.clones));
        let (ip, port) = (addr.ip(), addr.port());
        format!(
            r#"site: {{ name: {name}, cluster_uuid: {cluster_uuid} }}
federation: federation.yaml
admin: {{ listen: "{admin}" }}

health_monitors:
  - {{ name: hm-http, type: http, send_interval: 1s, receive_timeout: 500ms, successful_checks: 1, http_request: GET /healthz }}

pools:
  - {{ name: pay, lb_algorithm: round_robin, health_monitor_refs: [hm-http], servers: [{apps}] }}
  - {{ name: MY_CLONEPOOL, health_monitor_refs: [hm-http], servers: [{clones}] }}

virtual_services:
  - name: pay@{name}
    uuid: {vs_uuid}
    services: [{{ address: {ip}, port: {port} }}]
    pool_ref: pay
    clone: {{ pool_ref: MY_CLONEPOOL, tokens: ["cookie:SID", source_ip] }}
"#
        )
    }
}

/// The demo's directory; it goes when this is dropped.
pub(super) struct Files {
    dir: PathBuf,
}

impl Files {
    /// Writes each site's configuration, the federation's, and a fresh key.
    pub(super) fn write(places: &[Place]) -> io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("homing-demo-{:08x}", rand::random::<u32>()));
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let files = Self { dir };
        let secret = Secret::generate(&mut rand::rng());
        write_new_secret(&files.dir.join("site-cookie.key"), &secret).map_err(io::Error::other)?;
        fs::write(files.dir.join("federation.yaml"), federation(places))?;
        for place in places {
            fs::write(files.config(place), place.configuration())?;
        }
        Ok(files)
    }

    /// A site's configuration file.
    pub(super) fn config(&self, place: &Place) -> PathBuf {
        self.dir.join(place.name).with_extension("yaml")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's cleaning of its temporary directory.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn federation(places: &[Place]) -> String {
    let site = |Place { name, cluster_uuid, admin, .. }: &Place| {
        format!("    - {{ name: {name}, cluster_uuid: {cluster_uuid}, admin_url: http://{admin} }}\n")
    };
    let sites: String = places.iter().map(site).collect();
    let members: String = places
        .iter()
        .map(|place| {
            format!(
                "          - {{ cluster_uuid: {}, vs_uuid: {}, ip: {}, services: [{{ port: {} }}] }}\n",
                place.cluster_uuid,
                place.vs_uuid,
                place.addr.ip(),
                place.addr.port()
            )
        })
        .collect();
    format!(
        r#"gslb:
  federation_id: demo
  sites:
{sites}
pki_profiles:
  - {{ name: gpki-server, is_federated: true, ca_certs: [] }}

health_monitors:
  - {{ name: ghm-ping, is_federated: true, type: tcp, send_interval: 1s, receive_timeout: 500ms, successful_checks: 1 }}

application_persistence_profiles:
  - name: gap-1
    is_federated: true
    persistence_type: gslb_site
    server_hm_down_recovery: pick_new_server
    http_cookie_persistence_profile:
      cookie_name: FOO
      timeout: 8h
      keys: [{{ uuid: {KEY_UUID}, key_file: site-cookie.key, state: active }}]

gslb_services:
  - name: gs-1
    uuid: gslbservice-ff1b4e8d-663d-4cb9-932b-d007c81efba6
    domain_names: [a.com]
    is_federated: true
    site_persistence_enabled: true
    application_persistence_profile_ref: gap-1
    health_monitor_refs: [ghm-ping]
    groups:
      - name: group1
        priority: 10
        members:
{members}"#
    )
}

/// The lines that the demo prints.
pub(super) fn what_to_try(places: &[Place], files: &Files) -> String {
    let [a, b] = places else { unreachable!("the demo has two sites") };
    let jar = files.dir.join("jar");
    let (jar, homing) = (jar.display(), program());
    let (a_port, b_port, seen) = (a.addr.port(), b.addr.port(), a.clones[0]);
    let config = files.config(b);
    let sites: String = places
        .iter()
        .map(|place| {
            let Place { name, addr, admin, .. } = place;
            format!("  {name}  http://{addr}  two apps, three clone members  admin http://{admin}\n")
        })
        .collect();
    format!(
        "\
Two sites run in this process:

{sites}
Try this in another terminal:

1. The app is balanced: app-1 and app-2 of site_A answer in turn.

   for i in 1 2 3 4; do curl -s http://{a_addr}/; done

2. Every session is copied to one clone member and stays there: each of ann, bob and cid has its three copies
   at one member. (Every request is copied; those above are the session of your address.)

   for i in 1 2 3; do for s in ann bob cid; do curl -s -b SID=$s http://{a_addr}/cart/$i; done; done
   curl -s http://{seen}/seen

3. A client comes home: it starts at site_A and gets the cookie FOO, then DNS sends it to site_B, and an app of
   site_A still answers. Without the cookie one of site_B does.

   curl -s -c {jar} --resolve a.com:{a_port}:{a_ip} http://a.com:{a_port}/
   curl -s -b {jar} --resolve a.com:{b_port}:{b_ip} http://a.com:{b_port}/
   curl -s --resolve a.com:{b_port}:{b_ip} http://a.com:{b_port}/

4. What site_B knows, and what the cookie says to it.

   {homing} show gslbservice gs-1 runtime filter sp_status --admin http://{b_admin}
   {homing} cookie inspect --config {config} $(awk '/FOO/ {{ print $7 }}' {jar})

The configurations are in {dir} as long as this runs. Ctrl-C ends it.

",
        a_addr = a.addr,
        a_ip = a.addr.ip(),
        b_ip = b.addr.ip(),
        b_admin = b.admin,
        config = config.display(),
        dir = files.dir.display(),
    )
}

/// This program as a shell would call it.
fn program() -> String {
    let path = std::env::args_os().next().map(PathBuf::from);
    path.as_deref().map_or("homing".into(), |path: &Path| path.display().to_string())
}

/// A free port of an address: one of the ten from `first` on, else any.
fn free(ip: Ipv4Addr, first: u16) -> io::Result<TcpListener> {
    let found = (first..first + 10).find_map(|port| TcpListener::bind((ip, port)).ok());
    found.map_or_else(|| TcpListener::bind((ip, 0)), Ok)
}

const PORT: u16 = 18100;
const KEY_UUID: &str = "509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn places() -> Vec<Place> {
        let mut held = Vec::new();
        let server = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let servers = || Servers { apps: vec![server(1), server(2)], clones: (3..6).map(server).collect() };
        let places = SITES.iter().map(|site| Place::find(site, servers(), &mut held));
        places.collect::<io::Result<_>>().expect("there are free ports")
    }

    #[test]
    fn the_configurations_load_and_go_with_the_demo() {
        let places = places();
        let files = Files::write(&places).expect("the temporary directory can be written");
        for place in &places {
            let loaded =
                config::load(&files.config(place), &[]).unwrap_or_else(|problems| panic!("{problems}"));
            assert_eq!(loaded.warnings, []);
            assert_eq!(loaded.config.virtual_services[0].services[0].addr, place.addr);
        }
        let dir = files.dir.clone();
        drop(files);
        assert!(!dir.exists());
    }

    #[test]
    fn a_taken_port_is_not_found() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = taken.local_addr().expect("its address").port();
        let found = free(Ipv4Addr::LOCALHOST, port.min(u16::MAX - 10)).expect("another port");
        assert_ne!(found.local_addr().expect("its address").port(), port);
        let [a, b] = &places()[..] else { panic!("two sites") };
        assert!(a.addr != b.addr && a.admin != b.admin);
    }

    #[test]
    fn what_to_try_names_the_addresses_that_were_found() {
        let places = places();
        let files = Files::write(&places).expect("the temporary directory can be written");
        let text = what_to_try(&places, &files);
        for part in [
            format!("curl -s http://{}/; done", places[0].addr),
            format!("--resolve a.com:{}:{}", places[1].addr.port(), places[1].addr.ip()),
            format!("--admin http://{}", places[1].admin),
        ] {
            assert!(text.contains(&part), "{part}: {text}");
        }
    }
}
