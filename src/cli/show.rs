//! `homing show`: what a running homing is doing, as tables or JSON.

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::{
    ask::{Ask, Output},
    client::{self, Client, escaped},
    print, table,
    watch::{self, watch},
};
use crate::admin::view;

#[derive(Args, Debug)]
pub struct Show {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    ask: Ask,
    /// Show it again and again, every 2s if no INTERVAL is given
    #[arg(
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        default_missing_value = "2s",
        value_parser = watch::interval,
        global = true
    )]
    watch: Option<Duration>,
}

#[derive(Subcommand, Debug)]
enum What {
    /// All virtual services, or one in detail
    Virtualservice { name: Option<String> },
    /// All pools, or one in detail
    Pool { name: Option<String> },
    /// A GSLB service as it is configured; with `runtime` its members and their site-persistence pools
    Gslbservice {
        name: String,
        #[command(subcommand)]
        view: Option<GslbView>,
    },
    /// The sites of the federation, or one: whether it is being emptied, and how many sessions it has
    Gslbsite { name: Option<String> },
    /// Which configuration is in force, since when, and what the last reload changed
    Configuration,
    /// The session tables, the entries of one, or the entry of one session
    Session {
        table: Option<String>,
        /// A key: `cookie:SID=abc`, `source_ip=192.0.2.1`, or its hash; see also `homing session explain`
        key: Option<String>,
    },
}

#[derive(Subcommand, Debug)]
enum GslbView {
    /// Its state, over all sites whose admin API is in the federation's file
    Runtime {
        #[command(subcommand)]
        filter: Option<Filter>,
    },
}

#[derive(Subcommand, Debug)]
enum Filter {
    /// Only a part of it
    Filter { part: Part },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    /// What concerns site persistence
    #[value(name = "sp_status")]
    SpStatus,
}

/// Asks the running homing and prints what it says.
pub async fn show(args: Show) -> Result<ExitCode, super::Error> {
    let Show { what, ask, watch: every } = args;
    let client = ask.client()?;
    match every {
        None => print(what.text(&client, ask.output).await?),
        Some(every) => watch(every, async || what.text(&client, ask.output).await).await,
    }
}

impl What {
    async fn text(&self, client: &Client, output: Output) -> Result<String, client::Error> {
        Ok(match self {
            Self::Virtualservice { name: None } => {
                let all: Vec<view::VirtualService> = client.get("/api/v1/virtualservices").await?;
                output.or_as(&all, |all| virtual_services(all))
            }
            Self::Virtualservice { name: Some(name) } => {
                let path = format!("/api/v1/virtualservices/{}", escaped(name));
                output.one(&client.get::<view::VirtualService>(&path).await?)
            }
            Self::Pool { name: None } => {
                let all: Vec<view::Pool> = client.get("/api/v1/pools").await?;
                output.or_as(&all, |all| pools(all))
            }
            Self::Pool { name: Some(name) } => {
                let path = format!("/api/v1/pools/{}", escaped(name));
                output.one(&client.get::<view::Pool>(&path).await?)
            }
            Self::Gslbservice { name, view: None } => {
                let path = format!("/api/v1/gslbservices/{}", escaped(name));
                output.one(&client.get::<view::GslbServiceConfig>(&path).await?)
            }
            Self::Gslbservice { name, view: Some(GslbView::Runtime { filter }) } => {
                let path = format!("/api/v1/gslbservices/{}/runtime", escaped(name));
                let runtime: view::GslbRuntime = client.get(&path).await?;
                match filter {
                    None => output.one(&runtime),
                    Some(Filter::Filter { part: Part::SpStatus }) => output.one(&runtime.sp_status()),
                }
            }
            Self::Gslbsite { name: None } => {
                let all: Vec<view::Site> = client.get("/api/v1/gslb/sites").await?;
                output.or_as(&all, |all| sites(all))
            }
            Self::Gslbsite { name: Some(name) } => {
                let path = format!("/api/v1/gslb/sites/{}", escaped(name));
                output.one(&client.get::<view::Site>(&path).await?)
            }
            Self::Configuration => {
                output.one(&client.get::<view::Configuration>("/api/v1/configuration").await?)
            }
            Self::Session { table, key } => {
                let query = [("table", table), ("key", key)];
                let query = query.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
                let query: Vec<_> = query.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
                let found = client.get(&format!("/api/v1/sessions?{}", query.join("&"))).await?;
                output.or_as(&found, |found| sessions(found, table.is_some(), key.is_some()))
            }
        })
    }
}

fn virtual_services(all: &[view::VirtualService]) -> String {
    let row = |vs: &view::VirtualService| {
        let services: Vec<_> = vs.services.iter().map(service).collect();
        [
            vs.name.clone(),
            services.join(", "),
            vs.pool_ref.clone().unwrap_or_default(),
            word(&vs.oper_status.state),
        ]
    };
    table::list(["Name", "Services", "Pool", "Oper State"], all.iter().map(row).collect())
}

/// `127.0.0.11:443 (ssl)`
fn service(service: &view::Service) -> String {
    let ssl = if service.enable_ssl { " (ssl)" } else { "" };
    match service.address {
        Some(ip) => format!("{}{ssl}", std::net::SocketAddr::new(ip, service.port)),
        None => format!("{}{ssl}", service.port),
    }
}

fn pools(all: &[view::Pool]) -> String {
    let row = |pool: &view::Pool| {
        let up = format!("{}/{}", pool.num_servers_up, pool.num_servers);
        [pool.name.clone(), ports(pool), word(&pool.oper_status.state), up]
    };
    table::list(["Name", "Port", "Oper State", "Servers (up/total)"], all.iter().map(row).collect())
}

/// The servers' ports, each once; of many the first and the last.
fn ports(pool: &view::Pool) -> String {
    let ports: std::collections::BTreeSet<_> = pool.servers.iter().map(|server| server.port).collect();
    let mut ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    if ports.len() > 3 {
        ports.splice(1..ports.len() - 1, ["…".to_string()]);
    }
    ports.join(" ")
}

fn sites(all: &[view::Site]) -> String {
    let row = |site: &view::Site| {
        let until = site.drain_until.map_or(String::new(), |until| table::date(until.secs, None));
        let sessions = site.pinned_sessions.map_or(String::new(), |sessions| sessions.to_string());
        [site.name.clone(), word(&site.drain_state), until, sessions]
    };
    table::list(["Name", "Drain State", "Until", "Sessions"], all.iter().map(row).collect())
}

fn sessions(found: &view::Sessions, of_table: bool, of_key: bool) -> String {
    match (of_table, of_key, found.entries.first()) {
        (false, ..) => {
            let row = |table: &view::SessionTable| [table.name.clone(), table.entries.to_string()];
            table::list(["Table", "Entries"], found.tables.iter().map(row).collect())
        }
        (true, true, Some(entry)) => table::fields(entry),
        (true, ..) => {
            let date =
                |time: Option<view::Timestamp>| time.map_or(String::new(), |t| table::date(t.secs, None));
            let row = |entry: &view::SessionEntry| {
                let in_use = if entry.in_use { "True" } else { "False" };
                let requests = entry.requests.to_string();
                let (created, expires) = (date(entry.created), date(entry.expires));
                let (session, value) = (entry.session.clone(), entry.value.clone());
                let (since, why) = (date(Some(entry.since)), entry.why.clone());
                [session, value, requests, in_use.into(), created, expires, since, why]
            };
            let header = ["Session", "Value", "Requests", "In Use", "Created", "Expires", "Since", "Why"];
            let text = table::list(header, found.entries.iter().map(row).collect());
            let more = if found.truncated {
                "There are more; `homing session explain` finds the one that a TOKEN names.\n"
            } else {
                ""
            };
            text + more
        }
    }
}

/// The word that JSON has for it.
fn word(state: &impl Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word,
        _ => unreachable!("a state is a word"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::view::example,
        cli::{ask::json, table::golden as check},
    };

    #[test]
    fn objects_and_lists_look_as_operators_know_them() {
        check("virtualservice.txt", &virtual_services(&example::virtual_services()));
        check("virtualservice-name.txt", &table::fields(&example::virtual_services()[0]));
        check("pool.txt", &pools(&example::pools()));
        check("pool-name.txt", &table::fields(&example::pools()[1]));
        check("pool-sp.txt", &table::fields(&example::pools()[0]));
        check("gslbservice-runtime.txt", &table::fields(&example::gslb_runtime()));
        check("gslbservice-sites.txt", &table::fields(&example::gslb_service()));
        check("gslbservice-name.txt", &table::fields(&example::gslb_service_config()));
        check("explain.txt", &table::fields(&example::explanation()));
        check("gslbservice-sp-status.txt", &table::fields(&example::gslb_runtime().sp_status()));
        check("gslbsite.txt", &sites(&example::sites()));
        check("configuration.txt", &table::fields(&example::configuration()));
        check("session.txt", &sessions(&example::sessions(), false, false));
        check("session-table.txt", &sessions(&example::sessions(), true, false));
        check("session-key.txt", &sessions(&example::sessions(), true, true));
    }

    #[test]
    fn json_is_what_the_admin_api_answers() {
        check("pool-name.json", &json(&example::pools()[1]));
        check("gslbservice-runtime.json", &json(&example::gslb_runtime()));
    }

    #[test]
    fn a_long_list_of_ports_is_cut() {
        let server = &example::pools()[1].servers[0];
        let with_ports = |ports: &[u16]| view::Pool {
            servers: ports.iter().map(|port| view::Server { port: *port, ..server.clone() }).collect(),
            ..example::pools().remove(1)
        };
        for (given, shown) in [
            (&[] as &[u16], ""),
            (&[80, 80], "80"),
            (&[82, 80, 81], "80 81 82"),
            (&[80, 81, 82, 83, 84], "80 … 84"),
        ] {
            assert_eq!(ports(&with_ports(given)), shown);
        }
    }
}
