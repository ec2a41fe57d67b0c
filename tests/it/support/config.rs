//! Configurations of the usual setups; a test changes what it is about.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_yaml::Value;

use super::{
    certs::Cert,
    homing::Homing,
    net,
    origin::{Origin, hex},
    site_cookie::{self, Member},
};

/// The name of the app's pool.
pub const APP: &str = "app";
/// The name of the clone pool.
pub const CLONES: &str = "clones";

/// A homing's configuration: its own file and what lies beside it.
#[derive(Clone)]
pub struct Site {
    pub yaml: Value,
    /// Where the first virtual service listens.
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    /// Name and content of files beside it.
    pub files: Vec<(String, String)>,
}

impl Site {
    /// One virtual service `web` for `a.com` in front of these servers, which no monitor probes.
    pub fn new(servers: &[&Origin]) -> Self {
        let (addr, admin) = (net::free_addr(), net::free_addr());
        let yaml = format!(
            "
            threads: 2
            grace_period: 5s
            # Tests ask by these names.
            admin: {{ listen: '{admin}', domain_names: [a.com, admin] }}
            pools: []
            virtual_services:
              - name: web
                domain_names: [a.com]
                services: [{{ address: {ip}, port: {port} }}]
                pool_ref: {APP}
            ",
            ip = addr.ip(),
            port = addr.port(),
        );
        let site = Self { yaml: parse(&yaml), addr, admin, files: Vec::new() };
        site.pool(APP, servers).with(|yaml| yaml["pools"][0]["lb_algorithm"] = "round_robin".into())
    }

    /// Adds a pool.
    pub fn pool(self, name: &str, servers: &[&Origin]) -> Self {
        let servers = servers
            .iter()
            .map(|server| format!("{{ip: {}, port: {}}}", server.addr.ip(), server.addr.port()));
        let servers = servers.collect::<Vec<_>>().join(", ");
        self.push("pools", &format!("{{name: {name}, servers: [{servers}]}}"))
    }

    /// Copies go to these members; sessions are told apart by the cookie `SID`, the header `X-Session`, the address.
    pub fn clone_to(self, members: &[&Origin]) -> Self {
        self.pool(CLONES, members).with(|yaml| {
            yaml["virtual_services"][0]["clone"] = parse(&format!(
                "{{pool_ref: {CLONES}, tokens: ['cookie:SID', 'header:X-Session', source_ip]}}"
            ));
        })
    }

    /// Probes a pool's servers several times a second.
    pub fn monitored(self, pool: &str, kind: &str) -> Self {
        let request = match kind {
            "tcp" => "",
            _ => ", http_request: GET /healthz, http_response_code: [http_2xx]",
        };
        let monitor = format!("hm-{kind}-{pool}");
        self.push(
            "health_monitors",
            &format!(
                "{{name: {monitor}, type: {kind}, send_interval: 200ms, receive_timeout: 2s,
                   successful_checks: 1, failed_checks: 2{request}}}"
            ),
        )
        .with(|yaml| {
            let pools = yaml["pools"].as_sequence_mut().expect("pools are a list");
            let pool = pools.iter_mut().find(|it| it["name"] == pool).expect("the pool is there");
            pool["health_monitor_refs"] = vec![monitor].into();
        })
    }

    /// Its virtual service listens with TLS.
    pub fn tls(self, cert: &Cert) -> Self {
        self.certificate("cert", cert).with(|yaml| {
            let service = &mut yaml["virtual_services"][0]["services"][0];
            service["enable_ssl"] = true.into();
            service["ssl_key_and_certificate_ref"] = "cert".into();
        })
    }

    /// Adds a certificate that services may name.
    pub fn certificate(self, name: &str, cert: &Cert) -> Self {
        self.certificate_files(name, cert).push(
            "ssl_keys_and_certificates",
            &format!("{{name: {name}, certificate_file: {name}.pem, key_file: {name}.key}}"),
        )
    }

    /// The files of a certificate that services name already.
    pub fn certificate_files(self, name: &str, cert: &Cert) -> Self {
        self.file(&format!("{name}.pem"), &cert.certificate).file(&format!("{name}.key"), &cert.key)
    }

    /// An HTTP profile for its virtual service, `keepalive_timeout: 1s` for example.
    pub fn http(self, settings: &str) -> Self {
        self.push("application_profiles", &format!("{{name: http, {settings}}}"))
            .with(|yaml| yaml["virtual_services"][0]["application_profile_ref"] = "http".into())
    }

    /// Adds an object to a list of objects.
    pub fn push(self, list: &str, object: &str) -> Self {
        self.with(|yaml| {
            let object = parse(object);
            match yaml[list].as_sequence_mut() {
                Some(objects) => objects.push(object),
                None => yaml[list] = Value::Sequence(vec![object]),
            }
        })
    }

    /// Any change.
    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.yaml);
        self
    }

    /// Changes the first virtual service: a key and its value as YAML.
    pub fn vs(self, key: &str, value: &str) -> Self {
        self.with(|yaml| yaml["virtual_services"][0][key] = parse(value))
    }

    /// Changes the clone section of the first virtual service.
    pub fn clone_section(self, key: &str, value: &str) -> Self {
        self.with(|yaml| yaml["virtual_services"][0]["clone"][key] = parse(value))
    }

    /// Adds a virtual service, all but its services, on the listener of the first.
    pub fn neighbour(self, object: &str) -> Self {
        let services = self.yaml["virtual_services"][0]["services"].clone();
        self.push("virtual_services", object).with(|yaml| {
            let all = yaml["virtual_services"].as_sequence_mut().expect("virtual services are a list");
            all.last_mut().expect("one was pushed")["services"] = services;
        })
    }

    /// Adds a file beside it, or replaces it.
    pub fn file(mut self, name: &str, content: &str) -> Self {
        self.files.retain(|(known, _)| known != name);
        self.files.push((name.to_owned(), content.to_owned()));
        self
    }

    /// The same site in another federation, or in one that has changed.
    pub fn in_federation(self, fed: &Federation) -> Self {
        self.file("federation.yaml", &fed.text())
    }

    /// Writes what lies beside the configuration.
    pub fn write_files(&self, dir: &Path) {
        for (name, content) in &self.files {
            let path = dir.join(name);
            std::fs::write(&path, content).expect("a file can be written");
            private(&path);
        }
    }

    /// Writes everything; returns the path of the configuration.
    pub fn write(&self, dir: &Path) -> PathBuf {
        self.write_files(dir);
        let path = dir.join("homing.yaml");
        let yaml = serde_yaml::to_string(&self.yaml).expect("the configuration is plain YAML");
        std::fs::write(&path, yaml).expect("the configuration can be written");
        path
    }

    pub async fn start(&self) -> Homing {
        Homing::start(self).await
    }
}

/// Two sites of one GSLB service, or three.
#[derive(Clone)]
pub struct Federation {
    pub yaml: Value,
    /// Where the virtual services of site_A, site_B and site_C listen.
    addrs: [SocketAddr; 3],
}

impl Federation {
    /// The sites' cookies name each other, and a tcp monitor probes each other's virtual service.
    pub fn new() -> Self {
        let addrs = [net::free_addr(), net::free_addr(), net::free_addr()];
        let yaml = format!(
            "
            gslb:
              federation_id: tests
              sites:
                - {{ name: site_A, cluster_uuid: {a}, mode: active }}
                - {{ name: site_B, cluster_uuid: {b}, mode: active }}
            pki_profiles: [{{ name: pki, is_federated: true, ca_certs: [] }}]
            health_monitors:
              - {{ name: ghm, is_federated: true, type: tcp, send_interval: 200ms, receive_timeout: 2s,
                   successful_checks: 1, failed_checks: 2 }}
            application_persistence_profiles:
              - name: gap
                is_federated: true
                persistence_type: gslb_site
                server_hm_down_recovery: pick_new_server
                http_cookie_persistence_profile:
                  cookie_name: {cookie}
                  timeout: 8h
                  keys: [{{ uuid: {key}, key_file: site-cookie.key, state: active }}]
            gslb_services:
              - name: gs
                uuid: {service}
                domain_names: [a.com]
                is_federated: true
                site_persistence_enabled: true
                application_persistence_profile_ref: gap
                health_monitor_refs: [ghm]
                groups:
                  - {group_a}
                  - {group_b}
            ",
            a = site_cookie::A.cluster,
            b = site_cookie::B.cluster,
            cookie = site_cookie::NAME,
            key = site_cookie::KEY.uuid,
            service = site_cookie::SERVICE,
            group_a = group("a", 13, site_cookie::A, addrs[0]),
            group_b = group("b", 12, site_cookie::B, addrs[1]),
        );
        Self { yaml: parse(&yaml), addrs }
    }

    /// Any change of the federation's file.
    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.yaml);
        self
    }

    /// With site_C as a third site.
    pub fn three() -> Self {
        let fed = Self::new();
        let third = parse(&group("c", 11, site_cookie::C, fed.addrs[2]));
        fed.with(|yaml| {
            let site = format!("{{name: site_C, cluster_uuid: {}, mode: active}}", site_cookie::C.cluster);
            yaml["gslb"]["sites"].as_sequence_mut().expect("sites are a list").push(parse(&site));
            yaml["gslb_services"][0]["groups"].as_sequence_mut().expect("groups are a list").push(third);
        })
    }

    /// Every site is reached over TLS and verified against an authority.
    pub fn over_tls(self) -> Self {
        self.with(|yaml| {
            yaml["pki_profiles"][0]["ca_certs"] = vec!["ca.pem"].into();
            for group in yaml["gslb_services"][0]["groups"].as_sequence_mut().expect("groups are a list") {
                group["members"][0]["services"][0]["enable_ssl"] = true.into();
            }
        })
    }

    /// What happens to a session whose home is down.
    pub fn recovery(self, recovery: &str) -> Self {
        self.with(|yaml| {
            yaml["application_persistence_profiles"][0]["server_hm_down_recovery"] = recovery.into()
        })
    }

    /// The longest silence of a home.
    pub fn home_read_timeout(self, timeout: &str) -> Self {
        self.with(|yaml| yaml["application_persistence_profiles"][0]["home_read_timeout"] = timeout.into())
    }

    /// Somebody else has the address at which site_B's member is looked for.
    pub fn home_b_at(self, addr: SocketAddr) -> Self {
        self.with(|yaml| {
            let member = &mut yaml["gslb_services"][0]["groups"][1]["members"][0];
            member["ip"] = addr.ip().to_string().into();
            member["services"][0]["port"] = addr.port().into();
        })
    }

    /// Monitors that fire so rarely that none does during a test.
    pub fn unmonitored(self) -> Self {
        self.with(|yaml| yaml["health_monitors"][0]["send_interval"] = "1h".into())
    }

    /// site_A, whose virtual service is `web@site_A`.
    pub fn site_a(&self, servers: &[&Origin]) -> Site {
        self.site("site_A", site_cookie::A, self.addrs[0], servers)
    }

    /// site_B, whose virtual service is `web@site_B`.
    pub fn site_b(&self, servers: &[&Origin]) -> Site {
        self.site("site_B", site_cookie::B, self.addrs[1], servers)
    }

    /// site_C, whose virtual service is `web@site_C`.
    pub fn site_c(&self, servers: &[&Origin]) -> Site {
        self.site("site_C", site_cookie::C, self.addrs[2], servers)
    }

    fn text(&self) -> String {
        serde_yaml::to_string(&self.yaml).expect("plain YAML")
    }

    fn site(&self, name: &str, member: Member, addr: SocketAddr, servers: &[&Origin]) -> Site {
        let mut site = Site::new(servers)
            .with(|yaml| {
                yaml["site"] = parse(&format!("{{name: {name}, cluster_uuid: {}}}", member.cluster));
                yaml["federation"] = "federation.yaml".into();
            })
            .vs("name", &format!("web@{name}"))
            .vs("uuid", member.vs)
            .vs("services", &format!("[{{address: {}, port: {}}}]", addr.ip(), addr.port()))
            .in_federation(self)
            .file("site-cookie.key", &hex(&site_cookie::KEY.secret));
        site.addr = addr;
        site
    }
}

/// A group of one member, as YAML.
fn group(name: &str, priority: u8, member: Member, addr: SocketAddr) -> String {
    format!(
        "{{name: {name}, priority: {priority}, algorithm: round_robin, members: [{{cluster_uuid: {},
           vs_uuid: {}, ip: {}, services: [{{port: {}}}]}}]}}",
        member.cluster,
        member.vs,
        addr.ip(),
        addr.port()
    )
}

/// YAML as a value; it is the test's own, so it is right.
pub fn parse(yaml: &str) -> Value {
    serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("the test's YAML: {error}\n{yaml}"))
}

/// Key files must not be readable by others.
fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("permissions can be set");
}
