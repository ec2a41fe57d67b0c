//! A maintenance page: while a file exists, everyone but the operators' networks gets 503 with a page; and when
//! no server is up, clients get the same page instead of a bare error.
//!
//! ```text
//! cargo run --example maintenance_page -- run --config examples/maintenance_page/homing.yaml
//! curl -i http://127.0.0.1:8080/                   # the app
//! touch /tmp/maintenance                           # the file that the configuration names
//! curl -i http://127.0.0.1:8080/                   # 503, Retry-After, the page
//! rm /tmp/maintenance
//! ```

use std::{net::IpAddr, sync::Arc};
use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use homing::prelude::*;

struct Maintenance {
    on: Arc<AtomicBool>,
    page: String,
    operators: Vec<IpAddr>,
}

impl Maintenance {
    /// The file is looked for once a second on a thread of its own: a rule never waits for a disk.
    fn new(config: &Value) -> Result<Self, RuleError> {
        let text = |key: &str| config.get(key).and_then(Value::as_str);
        let file = PathBuf::from(text("file").ok_or_else(|| RuleError::new("`file` is missing"))?);
        let operators = config.get("operators").and_then(Value::as_sequence).into_iter().flatten();
        let operators = operators.filter_map(Value::as_str).map(str::parse).collect::<Result<_, _>>()?;
        let on = Arc::new(AtomicBool::new(file.exists()));
        let watched = Arc::downgrade(&on);
        thread::spawn(move || {
            while let Some(on) = watched.upgrade() {
                on.store(file.exists(), Ordering::Relaxed);
                drop(on);
                thread::sleep(Duration::from_secs(1));
            }
        });
        let page = text("page").unwrap_or("<h1>Back soon</h1>\n").to_owned();
        Ok(Self { on, page, operators })
    }

    fn reply(&self) -> Result<Reply, RuleError> {
        let reply = Reply::new(503).header("Retry-After", "120")?.header("Cache-Control", "no-store")?;
        Ok(reply.header("Content-Type", "text/html; charset=utf-8")?.body(self.page.clone()))
    }
}

#[async_trait]
impl Rule for Maintenance {
    async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
        if self.on.load(Ordering::Relaxed) && !self.operators.contains(&request.client_ip()) {
            request.respond(self.reply()?);
        }
        Ok(())
    }

    fn lb_failed(&self, lb: &mut LbEvent<'_>) -> RuleResult {
        if lb.server().is_none() {
            lb.respond(self.reply()?);
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    homing::main(
        Homing::builder()
            .rule_factory("maintenance", |setup| Ok(Maintenance::new(setup.config)?.into_rule())),
    )
}
