//! `homing session`: which server a session has and why, taking it to another, ending it.

use std::net::SocketAddr;

use clap::{Args, Subcommand};

use super::{Error, ask::Ask, client::escaped, table};
use crate::admin::view;

#[derive(Args, Debug)]
pub struct Session {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Which server a session has, why, since when and until when
    Explain(One),
    /// Give a session another server
    ///
    /// Its copies go there from its next request on, numbered on; those under way still arrive where they were
    /// bound for, so each server has its own part of the session's seq. The idle timeout is not put off.
    #[command(override_usage = "homing session move [OPTIONS] [TABLE | --vs NAME] TOKEN SERVER")]
    Move {
        /// The session, as `homing session explain` takes it, and its new server IP:PORT
        #[arg(num_args = 2..=3, required = true, value_names = ["TABLE", "TOKEN", "SERVER"])]
        words: Vec<String>,
        #[command(flatten)]
        scope: Vs,
        /// To a server that drains, or that is down and about to return
        #[arg(long)]
        force: bool,
    },
    /// End a session under all of its tokens
    ///
    /// Its next request begins another, whose server is chosen anew and whose seq starts at 1.
    Delete(One),
}

/// Which session is meant.
#[derive(Args, Debug)]
#[command(allow_missing_positional = true)]
struct One {
    /// The session table; all are searched without it
    #[arg(conflicts_with = "vs")]
    table: Option<String>,
    /// `cookie:SID=abc`, `source_ip=192.0.2.1`, `tls_session_id=HEX`, the value of any token of the chain alone, or
    /// the session as copies carry it in X-Homing-Clone
    token: String,
    #[command(flatten)]
    scope: Vs,
}

#[derive(Args, Debug)]
struct Vs {
    /// Search the tables of this virtual service's clone pools
    #[arg(long, value_name = "NAME")]
    vs: Option<String>,
}

/// Tells the running homing and returns what to print.
pub async fn session(args: Session) -> Result<String, Error> {
    let client = args.ask.client()?;
    let output = args.ask.output;
    match args.what {
        What::Explain(which) => {
            let query = query(which.table.as_deref(), which.scope.vs.as_deref(), &which.token);
            let all: Vec<view::Explained> = client.get(&format!("/api/v1/sessions/explain?{query}")).await?;
            Ok(output.or_as(&all, |all| all.iter().map(table::fields).collect()))
        }
        What::Move { words, scope, force } => {
            let (table, token, server) = parts(words, &scope)?;
            let query = query(table.as_deref(), scope.vs.as_deref(), &token);
            let force = if force { "&force=true" } else { "" };
            let path =
                format!("/api/v1/sessions/move?{query}&server={}{force}", escaped(&server.to_string()));
            Ok(output.one(&client.post::<view::Explained>(&path).await?))
        }
        What::Delete(which) => {
            let query = query(which.table.as_deref(), which.scope.vs.as_deref(), &which.token);
            let was: view::Explained = client.delete(&format!("/api/v1/sessions?{query}")).await?;
            Ok(output.one(&was))
        }
    }
}

/// The table if there is one, the token and the server.
fn parts(words: Vec<String>, scope: &Vs) -> Result<(Option<String>, String, SocketAddr), Error> {
    let (table, token, server) = match <[String; 3]>::try_from(words) {
        Ok([table, token, server]) => (Some(table), token, server),
        Err(mut words) => {
            let server = words.pop().unwrap_or_default();
            (None, words.pop().unwrap_or_default(), server)
        }
    };
    if table.is_some() && scope.vs.is_some() {
        return Err(Error::Arguments("a session is of a TABLE or of --vs NAME; give one of them".into()));
    }
    match server.parse() {
        Ok(server) => Ok((table, token, server)),
        Err(_) => Err(Error::Arguments(format!("server {server} is not an address; give IP:PORT"))),
    }
}

fn query(table: Option<&str>, vs: Option<&str>, token: &str) -> String {
    let parts = [("table", table), ("vs", vs), ("token", Some(token))];
    let parts = parts.iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped((*value)?))));
    parts.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::view::example;

    #[test]
    fn a_session_is_explained_by_its_server_the_reason_and_the_times() {
        table::golden("session-explain.txt", &table::fields(&example::explained()));
    }

    #[test]
    fn a_move_names_a_table_or_a_virtual_service_or_neither() {
        let server = SocketAddr::from(([127, 0, 0, 1], 80));
        let parts = |words: &[&str], vs: Option<&str>| {
            let words = words.iter().map(|word| word.to_string()).collect();
            parts(words, &Vs { vs: vs.map(str::to_owned) }).map_err(|error| error.to_string())
        };
        assert_eq!(
            parts(&["t", "SID=1", "127.0.0.1:80"], None),
            Ok((Some("t".into()), "SID=1".into(), server))
        );
        assert_eq!(parts(&["a", "127.0.0.1:80"], Some("web")), Ok((None, "a".into(), server)));
        assert!(
            parts(&["t", "a", "127.0.0.1:80"], Some("web")).is_err_and(|why| why.contains("one of them"))
        );
        assert!(parts(&["t", "a"], None).is_err_and(|why| why.contains("server a is not an address")));
        assert_eq!(query(None, Some("web"), "cookie:SID=a b"), "vs=web&token=cookie%3ASID%3Da%20b");
    }
}
