//! The yardstick of `make bench`: Pingora with nothing on it, built with homing's profile and allocator.
//!
//! Listens on `LISTEN` (`ip:port`) and proxies to `ORIGIN` (`ip:port`), both from the environment.

use std::env;

use async_trait::async_trait;
use pingora::{
    Result,
    proxy::{ProxyHttp, Session, http_proxy_service},
    server::{Server, configuration::ServerConf},
    upstreams::peer::HttpPeer,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare {
    origin: String,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.origin.as_str(), false, String::new())))
    }
}

fn main() {
    let (Ok(listen), Ok(origin)) = (env::var("LISTEN"), env::var("ORIGIN")) else {
        println!("set LISTEN and ORIGIN to ip:port; `make bench` does");
        return;
    };
    let threads = env::var("THREADS").ok().and_then(|threads| threads.parse().ok()).unwrap_or(1);
    let conf = ServerConf { threads, upstream_keepalive_pool_size: 1024, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Bare { origin });
    proxy.add_tcp(&listen);
    server.add_service(proxy);
    server.run_forever();
}
