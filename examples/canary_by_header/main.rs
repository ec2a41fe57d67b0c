//! A canary: requests that carry a header, and a share of all others, go to the pool with the new release.
//!
//! A client stays where it is: the choice for the share is kept in the session table by the client's address.
//!
//! ```text
//! cargo run --example canary_by_header -- run --config examples/canary_by_header/homing.yaml
//! curl http://127.0.0.1:8080/                      # stable, or canary for 5 % of the clients
//! curl -H 'X-Canary: always' http://127.0.0.1:8080/
//! curl -H 'X-Canary: never' http://127.0.0.1:8080/
//! ```

use std::{process::ExitCode, time::Duration};

use homing::prelude::*;

/// `config:` of the rule in YAML.
struct Canary {
    pool: String,
    percent: usize,
    header: String,
}

impl Canary {
    fn new(config: &Value) -> Result<Self, RuleError> {
        let text =
            |key: &str, default: &str| config.get(key).and_then(Value::as_str).unwrap_or(default).to_owned();
        let percent = config.get("percent").and_then(Value::as_u64).unwrap_or(5);
        if percent > 100 {
            return Err(RuleError::new(format!("`percent` is {percent}; write a number from 0 to 100")));
        }
        Ok(Self {
            pool: text("pool", "canary"),
            percent: percent as usize,
            header: text("header", "X-Canary"),
        })
    }
}

#[async_trait]
impl Rule for Canary {
    async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
        let canary = match request.header(&self.header) {
            Some("always") => true,
            Some("never") => false,
            _ => {
                let client = request.client_ip().to_string();
                let side = request.session().get_or_add(
                    "canary",
                    client.as_bytes(),
                    Duration::from_secs(3600),
                    || {
                        let chosen = request.random_below(100) < self.percent;
                        if chosen { "canary" } else { "stable" }.to_owned()
                    },
                );
                side == "canary"
            }
        };
        if canary {
            request.pool(&self.pool)?;
            request.insert(Chosen);
        }
        Ok(())
    }

    async fn http_response(&self, response: &mut Response<'_>) -> RuleResult {
        if response.get::<Chosen>().is_some() {
            response.set_header("X-Release", "canary")?;
        }
        Ok(())
    }
}

/// Marks a request that went to the canary.
#[derive(Clone)]
struct Chosen;

fn main() -> ExitCode {
    homing::main(Homing::builder().rule_factory("canary", |setup| Ok(Canary::new(setup.config)?.into_rule())))
}
