//! F5's iRule "clone pool persistence", event by event.
//!
//! Connections are balanced over `MY_APPPOOL` without persistence. Independently of that, every request of a
//! TLS session is copied to one member of `MY_CLONEPOOL`: the one in the session table if it is up, else one of
//! the active members by chance. The entry lives for 300 s after the last connection of the session.
//!
//! ```text
//! cargo run --example clone_pool_persistence -- run --config examples/clone_pool_persistence/homing.yaml
//! curl -k https://127.0.0.1:8443/one https://127.0.0.1:8443/two     # one connection: one clone member
//! openssl s_client -connect 127.0.0.1:8443 -sess_out s.pem < /dev/null
//! openssl s_client -connect 127.0.0.1:8443 -sess_in s.pem < /dev/null   # resumed: the same member again
//! ```

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use homing::prelude::*;

const CLONE_POOL: &str = "MY_CLONEPOOL";

struct ClonePoolPersistence;

#[async_trait]
impl Rule for ClonePoolPersistence {
    // when CLIENT_ACCEPTED
    async fn client_accepted(&self, conn: &mut ClientConn<'_>) -> RuleResult {
        // pool MY_APPPOOL
        conn.pool("MY_APPPOOL")?;
        // persist none
        conn.persist_none();
        Ok(())
    }

    // when CLIENTSSL_HANDSHAKE
    async fn clientssl_handshake(&self, conn: &mut ClientConn<'_>) -> RuleResult {
        // [SSL::sessionid]; here it survives TLS 1.3 and session tickets too
        let Some(id) = conn.ssl().map(|ssl| ssl.session_id()) else { return Ok(()) };

        // set cserver [session lookup ssl [SSL::sessionid]]
        let known = conn.session().lookup("ssl", id).and_then(|server| server.parse::<SocketAddr>().ok());

        // if { [LB::status pool MY_CLONEPOOL member $ip $port] eq "up" } { set target 1 }
        let target = known.filter(|server| conn.pools().is_up(CLONE_POOL, *server));

        // if { $target == 0 } { lindex [active_members -list MY_CLONEPOOL] [expr {int(rand()*…)}] }
        let server = match target {
            Some(server) => server,
            None => {
                let active = conn.pools().active_servers(CLONE_POOL)?;
                if active.is_empty() {
                    return Ok(());
                }
                active[conn.random_below(active.len())]
            }
        };

        // clone pool MY_CLONEPOOL member $ip
        conn.clone_to(CLONE_POOL, server)?;
        // session add ssl [SSL::sessionid] $cserver 300
        conn.session().add("ssl", id, server.to_string(), Duration::from_secs(300));
        Ok(())
    }
}

fn main() -> ExitCode {
    homing::main(Homing::builder().rule("clone_pool_persistence", ClonePoolPersistence))
}
