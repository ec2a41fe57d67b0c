//! Rules and copies: a rule chooses the member, and hears what becomes of copies.

use std::{sync::Arc, time::Duration};

use homing::{
    prelude::{self, CloneEvent, DropReason, How, Rule, RuleResult, SocketAddr, async_trait},
    server,
};
use parking_lot::Mutex;

use crate::{
    rules::{example, run_here},
    support::{
        client::{Connection, Request},
        config::CLONES,
        copies::Mark,
        eventually,
        origin::Origin,
    },
};

/// Sends copies where a request's header says.
struct Director;

#[async_trait]
impl Rule for Director {
    async fn http_request(&self, request: &mut prelude::Request<'_>) -> RuleResult {
        match request.header("X-Clone-To").map(str::to_owned) {
            Some(member) => request.clone_to(CLONES, member.parse()?),
            None => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_rule_may_choose_the_member_in_place_of_a_clone_section() {
    let app = Origin::start("app").await;
    let members = [Origin::start("c0").await, Origin::start("c1").await];
    let site = example("director", &app)
        .clone_to(&members.each_ref())
        .clone_section("paths", "[/sectioned]")
        .clone_section("clone_selection", "rendezvous");
    let running = run_here(&site, server::Homing::builder().rule("director", Director)).await;
    let ask = async |request: Request| assert_eq!(request.cookie("SID=1").send(site.addr).await.status, 200);
    ask(Request::get("/sectioned")).await;
    eventually("the section's copy arrives", async || members.iter().any(|it| it.requests().len() == 1))
        .await;
    let home = members.iter().position(|it| it.requests().len() == 1).expect("one got it");
    let (home, other) = (&members[home], &members[1 - home]);
    for path in ["/sectioned", "/elsewhere"] {
        ask(Request::get(path).header("X-Clone-To", &other.addr.to_string())).await;
    }
    ask(Request::get("/sectioned")).await;
    let seqs = home.got(2).await.iter().map(|copy| Mark::of(copy).seq).collect::<Vec<_>>();
    assert_eq!(seqs, [1, 2], "what a rule sends elsewhere is none of the session's copies");
    let targets = other.got(2).await.iter().map(|copy| copy.target.clone()).collect::<Vec<_>>();
    assert_eq!(targets, ["/sectioned", "/elsewhere"]);
    assert!(other.requests().iter().all(|copy| Mark::of(copy).seq == 0));
    running.shutdown(Duration::from_secs(1)).await;
    assert_eq!((home.requests().len(), other.requests().len()), (2, 2), "each request is copied once");
}

/// Writes down what it hears of copies.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Vec<Heard>>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    path: String,
    server: Option<SocketAddr>,
    seq: Option<u64>,
    how: Option<How>,
    dropped: Option<DropReason>,
}

#[derive(Clone)]
struct Path(String);

impl Listener {
    fn note(&self, clone: &CloneEvent<'_>) -> RuleResult {
        assert_eq!(clone.pool().as_str(), CLONES);
        assert_eq!(clone.session_number().is_some(), clone.seq().is_some());
        self.0.lock().push(Heard {
            path: clone.get::<Path>().map(|path| path.0.clone()).unwrap_or_default(),
            server: clone.server(),
            seq: clone.seq(),
            how: clone.how(),
            dropped: clone.drop_reason(),
        });
        Ok(())
    }

    /// What was heard last.
    fn last(&self) -> Option<Heard> {
        self.0.lock().last().cloned()
    }
}

#[async_trait]
impl Rule for Listener {
    async fn http_request(&self, request: &mut prelude::Request<'_>) -> RuleResult {
        let path = request.path().to_owned();
        request.insert(Path(path));
        Ok(())
    }

    fn clone_selected(&self, clone: &mut CloneEvent<'_>) -> RuleResult {
        assert_eq!(clone.drop_reason(), None);
        self.note(clone)
    }

    fn clone_dropped(&self, clone: &mut CloneEvent<'_>) -> RuleResult {
        assert!(clone.drop_reason().is_some());
        self.note(clone)
    }
}

#[tokio::test]
async fn rules_hear_which_member_a_session_has_and_when_it_moves_and_when_there_is_none() {
    let app = Origin::start("app").await;
    let members = [Origin::start("c0").await, Origin::start("c1").await];
    let listener = Listener::default();
    let site = example("listener", &app).clone_to(&members.each_ref()).monitored(CLONES, "tcp");
    let builder = server::Homing::builder().rule("listener", listener.clone());
    let running = run_here(&site, builder).await;
    let ask = async |path: &str| {
        let request = Request::get(path).cookie("SID=1");
        assert_eq!(request.send(site.addr).await.status, 200);
        listener.last()
    };
    let mut heard = None;
    eventually("a member is up", async || {
        heard = ask("/first").await;
        heard.as_ref().is_some_and(|heard| heard.how == Some(How::New))
    })
    .await;
    let first = heard.clone().expect("it was heard");
    assert_eq!((first.path.as_str(), first.seq, first.dropped), ("/first", Some(1), None));
    let kept = ask("/second").await.expect("it is heard");
    let expected = Heard { path: "/second".to_owned(), seq: Some(2), how: Some(How::Kept), ..first.clone() };
    assert_eq!(kept, expected);

    let home = members.iter().position(|member| Some(member.addr) == first.server).expect("a member");
    members[home].down().await;
    eventually("the session moves", async || {
        heard = ask("/third").await;
        heard.as_ref().is_some_and(|heard| heard.how == Some(How::Moved))
    })
    .await;
    assert_eq!(heard.clone().and_then(|heard| heard.server), Some(members[1 - home].addr));
    members[1 - home].down().await;
    eventually("no member is left", async || {
        heard = ask("/fourth").await;
        heard.as_ref().is_some_and(|heard| heard.dropped == Some(DropReason::NoServer))
    })
    .await;
    let nobody = Heard {
        path: "/fourth".to_owned(),
        server: None,
        seq: None,
        how: None,
        dropped: Some(DropReason::NoServer),
    };
    assert_eq!(heard, Some(nobody));
    running.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn rules_hear_of_copies_that_are_dropped_while_a_body_comes() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let listener = Listener::default();
    let site = example("listener", &app).clone_to(&[&clone]).clone_section("max_buffered_bytes", "10KB");
    let builder = server::Homing::builder().rule("listener", listener.clone());
    let running = run_here(&site, builder).await;
    let dropped = |path: &str, reason| {
        let heard = listener.0.lock();
        heard.iter().filter(|heard| heard.path == path && heard.dropped == Some(reason)).count()
    };
    let large = Request::post("/large", vec![b'x'; 20_000]);
    assert_eq!(large.send(site.addr).await.status, 200);
    assert_eq!(dropped("/large", DropReason::Budget), 1);

    let mut client = Connection::open(site.addr).await;
    client.send(&Request::new("POST", "/aborted").header("Content-Length", "9")).await.expect("it is read");
    client.wire.write("half").await.expect("the body is read");
    eventually("half has come", async || app.started().last().is_some_and(|it| it.body_len == 4)).await;
    drop(client);
    eventually("the abort is heard of", async || dropped("/aborted", DropReason::ClientAborted) == 1).await;

    app.down().await;
    let status = Request::post("/unserved", "body").send(site.addr).await.status;
    assert!((502..=503).contains(&status), "{status}");
    eventually("its copy is given up", async || dropped("/unserved", DropReason::Unfinished) == 1).await;
    let selected = listener.0.lock().iter().filter(|heard| heard.dropped.is_none()).count();
    assert_eq!(selected, 3, "a dropped copy was selected before");
    running.shutdown(Duration::from_secs(1)).await;
}
