//! homing: a programmable load balancer on Pingora that brings every session home: to its app server, to its
//! clone (the analyser that gets a copy of the session), and to its site.
//!
//! # How a request travels
//!
//! ```text
//! client ──▶ listen ──▶ tls ──▶ proxy: route ──▶ rules ──▶ pool ──▶ server
//!             │                          │          │
//!             │ address lists,           │          └─▶ clone: tap ──▶ lane ──▶ clone member
//!             │ connection events        └─ Host ──▶ virtual service
//!             ▼
//!   client_accepted … http_request … lb_selected … http_response … client_closed
//! ```
//!
//! Before all that, [`dns`] may have sent the client here: it answers for the names of a federation's services with
//! the site that is best for who asks.
//!
//! [`listen`] accepts a connection, refuses what the address lists refuse, lets [`tls`] shake hands, and tells
//! the connection's events. [`proxy`] is the table of contents of a request: its phases in order, each a few
//! lines. Rules ([`rule`]) see every event; homing's own features, clone pools and site persistence, are rules
//! too ([`filter`]). A [`pool`] picks a server and counts what is in flight with leases. A [`clone`] tap gives
//! the request to a lane, which nobody waits for.
//!
//! # What holds everywhere
//!
//! 1. The app never waits for the clone: nothing on its path awaits what a clone member can delay.
//! 2. A request that came from a peer site is never sent to a peer site.
//! 3. A bad configuration never replaces a good one, and says everything that is wrong at once ([`config`]).
//! 4. A reload loses no request, no connection and no session: what has the same name and configuration is the same
//!    object before and after ([`snapshot`]).
//! 5. A connection stays on one thread, and so do the connections to servers that it used ([`listen::Workers`]).
//! 6. Time and randomness are arguments of every engine ([`clock`]).
//! 7. Nothing is global: metrics, clock and tables belong to a running instance ([`snapshot::Live`]).
//!
//! # Layers
//!
//! A module imports from the layers below its own, and never from its neighbours. A test keeps it so.
//!
//! | layer | modules |
//! |---|---|
//! | 0 | [`names`] [`clock`] [`buckets`] [`limits`] [`message`] [`metrics`] [`site_cookie`] |
//! | 1 | [`config`] |
//! | 2 | [`session`] [`tls`] [`listen`] [`preface`] [`access_log`] |
//! | 3 | [`pool`] [`clone`] [`gslb`] |
//! | 4 | [`rule`] |
//! | 5 | [`filter`] |
//! | 6 | [`snapshot`] |
//! | 7 | [`proxy`] [`admin`] [`dns`] |
//! | 8 | [`server`] |
//! | 9 | [`cli`] |
//!
//! # Writing a rule
//!
//! Implement [`rule::Rule`], register it, and name it in YAML:
//!
//! ```no_run
//! use homing::prelude::*;
//!
//! struct Greet;
//!
//! #[async_trait]
//! impl Rule for Greet {
//!     async fn http_response(&self, response: &mut Response<'_>) -> RuleResult {
//!         response.set_header("X-Greeting", "welcome home")
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     homing::main(Homing::builder().rule("greet", Greet))
//! }
//! ```

pub mod access_log;
pub mod admin;
pub mod buckets;
pub mod cli;
pub mod clock;
pub mod clone;
pub mod config;
pub mod dns;
pub mod filter;
pub mod gslb;
pub mod limits;
pub mod listen;
pub mod message;
pub mod metrics;
pub mod names;
pub mod pool;
pub mod preface;
pub mod proxy;
pub mod rule;
pub mod server;
pub mod session;
pub mod site_cookie;
pub mod snapshot;
pub mod tls;

pub use cli::main;

/// What a rule needs, ours and yours.
pub mod prelude {
    pub use std::net::SocketAddr;

    pub use async_trait::async_trait;
    pub use bytes::Bytes;
    pub use http::{HeaderMap, HeaderName, Method};
    pub use prometheus::IntCounter;
    pub use serde_yaml::Value;

    pub use crate::{
        clone::{
            DropReason, SkipReason, is_copy,
            selection::{Candidate, StableHash, choose},
            token,
        },
        config::{
            ClientMask, CloneChoice, CloneRefresh, CloneSection, CloneSelection, ErrorPageProfile, FieldEdit,
            FieldMatch, HeaderAction, HmDownRecovery, HttpAnswer, HttpMatch, HttpRule, PersistBy,
            PersistenceProfile, Redirect, Rewrite, Template, Texts, Token, Variable,
        },
        gslb::{
            Arrival, Cookie, Decision, Ending, MemberId, Outcome, OutcomeCounters, PeerMember, PublicName,
            ReadCookie, SetCookie, Sites, Standing, carries_loop_token, cookie_values, decide,
            private_cache_control, without_cookie,
        },
        metrics::Metrics,
        names::{PoolName, VsName},
        pool::{AdminState, NamedServer, Pool, Server, ServerCookie},
        rule::{
            Assign, ClientConn, CloneEvent, CloneOrder, Exchange, Finished, LbEvent, Pools, Reply, Request,
            RequestData, RequestId, RequestSend, Response, ResponseData, Rule, RuleError, RuleResult,
            Sessions, Setup, Simulated, Simulator, SiteSetup, TlsView,
        },
        server::{Builder, Homing},
        session::{Assigned, How, Refresh},
        site_cookie::{
            ClientScheme, HOP_HEADER, HOP_REFUSED_HEADER, HomeRefusal, HopFields, HopRefusal, LastOpened,
            Refusal,
        },
        tls::{ClientCertificate, TlsFacts},
    };
}
