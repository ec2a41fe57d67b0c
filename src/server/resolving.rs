//! Keeps the addresses of servers that are configured by name: asks DNS again when an answer's time is over, and puts
//! what has changed in force as a reload does. While DNS fails, servers stay as they were.
//!
//! Envoy calls this strict DNS, HAProxy `resolvers`, Avi `resolve_server_by_dns`.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::Instance;
use crate::{
    config::{Config, DnsResolver},
    snapshot::{Live, Snapshot},
};

/// Asks until `stop`.
pub(super) async fn watch(instance: Arc<Instance>, stop: CancellationToken) {
    let mut book = Book::default();
    loop {
        if book.look(&instance.live).await {
            instance.renew_servers().await;
        }
        if stop.run_until_cancelled(tokio::time::sleep(LOOK_INTERVAL)).await.is_none() {
            return;
        }
    }
}

/// Asks for every name once, so that the first requests find servers, and builds these into the snapshot.
pub(super) async fn first(instance: &Arc<Instance>) {
    if Book::default().look(&instance.live).await {
        instance.renew_servers().await;
    }
}

/// When which name is to be asked for.
#[derive(Default)]
struct Book {
    names: HashMap<String, Entry>,
    /// What it was made from.
    resolver: Option<(DnsResolver, TokioResolver)>,
}

struct Entry {
    due: Instant,
    failing: bool,
}

impl Book {
    /// Asks for the names that are due; whether one has other addresses now.
    async fn look(&mut self, live: &Live) -> bool {
        let config = live.snapshot().config.clone();
        let wanted = names(&config);
        self.names.retain(|name, _| wanted.contains(name));
        let now = live.clock.now();
        let is_due = |name: &String| self.names.get(name).is_none_or(|entry| entry.due <= now);
        let due: Vec<_> = wanted.into_iter().filter(is_due).collect();
        if due.is_empty() {
            return false;
        }
        let terms = config.dns_resolver.clone();
        let mut lookups = JoinSet::new();
        match self.resolver(&terms) {
            Ok(resolver) => {
                for name in due {
                    let (resolver, limit) = (resolver.clone(), terms.timeout);
                    lookups.spawn(async move {
                        let answer = timeout(limit, lookup(&resolver, &name)).await;
                        let late = |_| Err(format!("no answer within {}", humantime::format_duration(limit)));
                        (name, answer.unwrap_or_else(late))
                    });
                }
            }
            Err(error) => due
                .into_iter()
                .for_each(|name| drop(lookups.spawn(std::future::ready((name, Err(error.clone())))))),
        }
        let mut changed = false;
        for (name, answer) in lookups.join_all().await {
            changed |= self.note(live, &terms, name, answer);
        }
        changed
    }

    fn note(&mut self, live: &Live, terms: &DnsResolver, name: String, answer: Answer) -> bool {
        let now = live.clock.now();
        let known = live.server_names.count(&name);
        let was_failing = self.names.get(&name).is_some_and(|entry| entry.failing);
        let result = if answer.is_ok() { "success" } else { "failure" };
        live.metrics.server_name_lookups.with_label_values(&[result]).inc();
        let (entry, changed) = match answer {
            Ok((addresses, time)) => {
                let addresses_now = addresses.len();
                let changed = live.server_names.learn(&name, addresses);
                if changed || was_failing {
                    tracing::info!(name, addresses = addresses_now, "servers' name resolved");
                }
                (Entry { due: now + time.clamp(terms.min_ttl, terms.max_ttl), failing: false }, changed)
            }
            Err(error) => {
                if !was_failing {
                    tracing::warn!(
                        name,
                        error,
                        "servers' name cannot be resolved; {known} servers stay, and it is tried again; \
                         see `dns_resolver` and the name servers"
                    );
                }
                (Entry { due: now + terms.min_ttl.max(RETRY_INTERVAL), failing: true }, false)
            }
        };
        self.names.insert(name, entry);
        changed
    }

    fn resolver(&mut self, terms: &DnsResolver) -> Result<TokioResolver, String> {
        if let Some((made_from, resolver)) = &self.resolver
            && made_from == terms
        {
            return Ok(resolver.clone());
        }
        let resolver = build(terms).map_err(|error| error.to_string())?;
        self.resolver = Some((terms.clone(), resolver.clone()));
        Ok(resolver)
    }
}

/// Addresses and how long they hold.
type Answer = Result<(Vec<IpAddr>, Duration), String>;

async fn lookup(resolver: &TokioResolver, name: &str) -> Answer {
    // With a dot at the end no search domain is tried.
    let answer = resolver.lookup_ip(format!("{}.", name.trim_end_matches('.'))).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let addresses: Vec<_> = answer.iter().collect();
    match addresses.is_empty() {
        true => Err("it has no address".into()),
        false => Ok((addresses, answer.valid_until().saturating_duration_since(Instant::now()))),
    }
}

fn build(terms: &DnsResolver) -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = match terms.name_servers.is_empty() {
        true => Resolver::builder(provider)?,
        false => {
            let servers = terms.name_servers.iter().map(|addr| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = addr.port();
                    connection
                });
                NameServerConfig::new(addr.ip(), true, connections.into())
            });
            Resolver::builder_with_config(ResolverConfig::from_name_servers(servers.collect()), provider)
        }
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = 0;
    // Several attempts fit into the limit that holds for all.
    options.timeout = terms.timeout / 3;
    builder.build()
}

/// Those of pools that are configured.
fn names(config: &Config) -> BTreeSet<String> {
    let servers = config.pools.iter().flat_map(|pool| &pool.named_servers);
    servers.filter_map(|server| server.hostname.clone()).collect()
}

impl Instance {
    /// Builds the pools anew with the addresses that names have now. It is a reload of what is in force already.
    async fn renew_servers(self: &Arc<Self>) {
        let _one_at_a_time = self.reloading.lock().await;
        let instance = self.clone();
        let built = tokio::task::spawn_blocking(move || {
            let current = instance.live.snapshot();
            Snapshot::build(
                current.config.clone(),
                &instance.builder.registry,
                &instance.live,
                Some(&current),
            )
        });
        match built.await {
            Ok(Ok(snapshot)) => {
                let stopping = self.stopping.lock();
                if *stopping {
                    return;
                }
                // The same configuration has the same listeners.
                self.live.replace(snapshot);
                self.monitors.follow(&self.live.snapshot().probed_pools(), &mut rand::rng());
            }
            Ok(Err(error)) => tracing::error!(%error, "servers' new addresses cannot be put in force"),
            Err(error) => tracing::error!(%error, "servers' new addresses cannot be put in force"),
        }
        self.live.forget_series();
    }
}

/// How often it is looked for names that are due.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// After a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
