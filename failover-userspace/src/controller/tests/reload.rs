//! Reloads through the shell, with a fake data plane and a fake loader.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::events::wait;
use super::shell::{Fake, Job, Next, Running, Told, start};
use crate::controller::testing::{edited, link, probes};
use crate::controller::{Asked, Candidate, Ended, Loaded, Others, Query, Reload, Set, WhenBusy};
use crate::dataplane::Generation;
use crate::health::{AdminState, Carrier, Failure, Order, Pace};
use crate::journal::Kind;
use crate::metrics::testing::Scrape;
use crate::model::{Model, compare};
use crate::probe::{Begin, ProbeKey};
use crate::protocol::Reloaded;

const SOON: Duration = Duration::from_secs(10);
const NEW: &str = "[[service]]\nname = \"new\"\nfqdn = [\"new.example.com\"]\nport = 80\n\
    [[service.server]]\nname = \"n\"\naddress = \"192.0.2.201\"\noffsite = true\n\
    priority = \"primary\"\n\n[[service]]\nname = \"www\"";
const ADDED: (&str, &str) = ("[[service]]\nname = \"www\"", NEW);
const ETH0: (&str, &str) = ("interfaces = []", "interfaces = [\"eth0\"]");
/// The first key that the reference case has not used.
const FIRST_NEW: ProbeKey = ProbeKey(7);

type Replied = oneshot::Receiver<Result<Reloaded, Vec<String>>>;

impl Running {
    async fn reload(&self, when_busy: WhenBusy) -> Replied {
        let (reply, replied) = oneshot::channel();
        let reload = Reload {
            when_busy,
            by: "alice".into(),
            reply,
        };
        self.ask(Query::Reload(reload)).await;
        replied
    }

    async fn job(&mut self) -> Job {
        let job = timeout(SOON, self.jobs.recv()).await;
        job.expect("nothing is loaded").unwrap()
    }

    async fn next_told(&mut self) -> Told {
        let told = timeout(SOON, self.told.recv()).await;
        told.expect("nothing is told").unwrap()
    }

    /// The first round has begun.
    async fn round_begins(&mut self) {
        while !matches!(self.next_told().await, Told::Watch(_)) {}
    }

    async fn log_has(&self, line: &str) -> Vec<String> {
        for _ in 0..5000 {
            let log = self.log();
            if log.iter().any(|other| other == line) {
                return log;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("no {line:?} in {:?}", self.log());
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        let ended = timeout(SOON, self.done).await.unwrap();
        assert_eq!(ended.unwrap().unwrap(), Ended::Stopped);
    }
}

async fn replied(replied: Replied) -> Result<Reloaded, Vec<String>> {
    timeout(SOON, replied).await.expect("no reply").unwrap()
}

/// What a loader makes of the reference case with these edits.
fn other((basis, reply): Job, fake: &Fake, edits: &[(&str, &str)]) -> Arc<Model> {
    let model = Arc::new(edited(edits));
    let (difference, succession) = compare(&basis.model, &model);
    let candidate = Candidate {
        model: Arc::clone(&model),
        difference,
        succession,
        warnings: vec!["look".to_owned()],
        tasks: HashMap::new(),
        next: Next(Arc::clone(&fake.log)),
        others: Others::new({
            let log = Arc::clone(&fake.log);
            move |model| {
                let services = model.services.len();
                log.lock().unwrap().push(format!("others: {services}"));
            }
        }),
    };
    let sent = reply.send(Loaded::Other(Box::new(candidate)));
    assert!(sent.is_ok());
    model
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn live(dir: &Path, fake: &Fake) -> Running {
    let mut running = start(dir, fake);
    running.first_round().await;
    assert_eq!(running.log_has("attach eth0 4").await.len(), 2);
    assert!(running.told.try_recv().is_err());
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::default();
    let mut running = live(dir.path(), &fake).await;
    let errors = vec!["a:1:2: this".to_owned(), "b:3:4: that".to_owned()];
    // (what loading comes to, the reply)
    for (loaded, want) in [
        (Loaded::Refused(errors.clone()), Err(errors)),
        (
            Loaded::Unchanged(vec!["look".to_owned()]),
            Ok((Generation(1), vec!["look".to_owned()])),
        ),
    ] {
        let reply = running.reload(WhenBusy::Refuse).await;
        let (basis, sender) = running.job().await;
        assert!(Arc::ptr_eq(&basis.model, &running.model));
        assert_eq!(basis.generation, Generation(1));
        assert_eq!(basis.attached.len(), 1);
        assert!(sender.send(loaded).is_ok());
        let reply = replied(reply).await;
        assert_eq!(
            reply.as_ref().is_ok_and(|r| r.difference.is_empty()),
            reply.is_ok()
        );
        assert_eq!(reply.map(|r| (r.generation, r.warnings)), want);
    }
    // The loader is gone.
    let reply = running.reload(WhenBusy::Refuse).await;
    drop(running.job().await);
    assert_eq!(replied(reply).await.unwrap_err().len(), 1);

    assert_eq!(running.log(), ["publish all 1", "attach eth0 4"]);
    assert!(running.told.try_recv().is_err());
    assert_eq!(running.status().await.generation, Generation(1));

    // It is counted, and remembered.
    let counted = Scrape::of_meters(&running.meters);
    for (series, want) in [
        ("failover_reloads_total result=refused", 2.0),
        ("failover_reloads_total result=applied", 1.0),
        ("failover_config_last_reload_successful", 0.0),
        ("failover_events_total kind=reload", 3.0),
    ] {
        assert_eq!(counted.get(series), want, "{series}");
    }
    // It has started, has the program on an interface, was ready, and has reloaded three times.
    let entries = wait(running.recorder.reader(), 6).await;
    let news = entries.iter().map(|entry| &entry.news);
    let reloads: Vec<_> = news
        .filter(|news| news.kind == Kind::Reload)
        .map(|news| {
            let [by, to, why] = [&news.by, &news.to, &news.reason].map(Option::as_deref);
            (by.unwrap(), to.unwrap(), why.unwrap())
        })
        .collect();
    assert_eq!(
        reloads,
        [
            ("alice", "refused", "a:1:2: this (the first of 2 errors)"),
            ("alice", "applied", "nothing has changed"),
            ("alice", "refused", "the loader has ended"),
        ]
    );
    running.end().await;
}

/// A client learns that what it has set is on the wire when a reload brings it there.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_is_published_by_the_switch() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::default();
    let mut running = live(dir.path(), &fake).await;
    let reply = running.reload(WhenBusy::Refuse).await;
    let job = running.job().await;
    fake.failures.store(usize::MAX, SeqCst);
    let (sender, mut set) = oneshot::channel();
    let order = Set {
        targets: vec!["www/web-a".to_owned(), "www/web-b".to_owned()],
        order: Order::new(AdminState::Drain, None, None).unwrap(),
        by: "alice".into(),
    };
    running.ask(Query::Set(order, sender)).await;
    running.log_has("refused").await;
    assert!(set.try_recv().is_err());
    other(job, &fake, &[ETH0, ADDED]);
    running.round_begins().await;
    running.report_key(FIRST_NEW, Ok(())).await;
    let reloaded = replied(reply).await.unwrap();
    let (result, _) = timeout(SOON, set).await.unwrap().unwrap().unwrap();
    assert!(result.published, "{result:?}");
    assert_eq!(result.generation, reloaded.generation);
    let www = &running.status().await.services[1];
    assert_eq!(www.servers[0].admin.state, AdminState::Drain);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_switch_is_one_publication() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::default();
    let mut running = live(dir.path(), &fake).await;
    // In doubt.
    running.report("web-b", Err(Failure::Refused)).await;
    let web_b = ProbeKey(probes(&running.model, "web-b")[0].0);
    assert_eq!(running.next_told().await, Told::Pace(web_b, Pace::Fast));
    let before = running.status().await;

    let reply = running.reload(WhenBusy::Refuse).await;
    let edits = [ETH0, ADDED, ("192.168.10.10", "192.168.10.99")];
    let model = other(running.job().await, &fake, &edits);
    let Told::Add(added, Begin::AtOnce) = running.next_told().await else {
        panic!("no probes begin");
    };
    let added: Vec<_> = added.into_iter().map(|(key, _)| key).collect();
    assert_eq!(added, [FIRST_NEW, ProbeKey(8)]);
    assert_eq!(running.next_told().await, Told::Watch(names(&["eth0"])));
    // Nothing has changed yet.
    let now = running.status().await;
    assert_eq!((now.generation, now.services.len()), (Generation(1), 1));
    assert_eq!(running.log().len(), 2);

    let old = Arc::clone(&running.models.borrow());
    for key in added {
        running.report_key(key, Ok(())).await;
    }
    let reloaded = replied(reply).await.unwrap();
    assert_eq!(
        running.log(),
        [
            "publish all 1",
            "attach eth0 4",
            "switch: new 1, www 2",
            "others: 2",
            "settle"
        ]
    );
    assert_eq!(reloaded.generation, Generation(2));
    assert_eq!(reloaded.difference.services.added, ["new"]);
    assert_eq!(reloaded.warnings, ["look", "beware"]);
    assert!(Arc::ptr_eq(&running.models.borrow(), &model));

    let after = running.status().await;
    assert_eq!(after.generation, Generation(2));
    let [new, www] = &after.services[..] else {
        panic!("{after:?}");
    };
    let was = &before.services[0];
    assert_eq!(
        (new.generation, www.generation),
        (Generation(2), Generation(1))
    );
    assert_eq!(www.since, was.since);
    assert_eq!(www.servers[1..], was.servers[1..]);
    assert_eq!(www.servers[0].address.to_string(), "192.168.10.99");
    assert_eq!(after.wans, before.wans);
    assert_eq!(after.interfaces, before.interfaces);

    // The probe of the old web-a is gone, the others have the paces that they had.
    let web_a = ProbeKey(probes(&running.model, "web-a")[0].0);
    let told: Vec<_> = std::iter::from_fn(|| running.told.try_recv().ok()).collect();
    assert_eq!(told[0], Told::Remove(vec![web_a]));
    assert!(told.contains(&Told::Pace(web_b, Pace::Fast)), "{told:?}");
    let paces = told.iter().filter(|told| matches!(told, Told::Pace(..)));
    assert_eq!(paces.count(), model.probes.len());
    assert!(!told.contains(&Told::Pace(web_a, Pace::Normal)));

    // Reports are of the probes by their keys, not by their place.
    for _ in 0..3 {
        running.report_key(web_a, Err(Failure::Refused)).await;
        running.report_key(FIRST_NEW, Err(Failure::Refused)).await;
    }
    for _ in 0..3 {
        running.report_key(ProbeKey(8), Err(Failure::Refused)).await;
    }
    for _ in 0..2 {
        running.report_key(web_b, Err(Failure::Refused)).await;
    }
    running.log_has("publish 1").await;
    // A query by the old model is not answered.
    let (sender, receiver) = oneshot::channel();
    let query = Query::Status(0, sender);
    running.queries.send(Asked::of(&old, query)).await.unwrap();
    assert!(timeout(SOON, receiver).await.unwrap().is_err());
    running.end().await;

    // The next start knows the new model\'s servers.
    let saved = std::fs::read_to_string(dir.path().join("state.json")).unwrap();
    assert!(saved.contains("\"new/n\""), "{saved}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_does_not_wait_for_the_first_round() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::default();
    let mut running = live(dir.path(), &fake).await;
    let reply = running.reload(WhenBusy::Refuse).await;
    let job = running.job().await;
    // While it is loaded, and during the first round.
    for _ in 0..3 {
        running.report("web-a", Err(Failure::Refused)).await;
    }
    while running.status().await.services[0].servers[0]
        .last_error
        .is_none()
    {}
    // Without news it takes its time.
    let slow = ("timeout = \"500ms\"", "timeout = \"1s\"");
    other(job, &fake, &[ETH0, ADDED, slow]);
    running.round_begins().await;
    for _ in 0..3 {
        running.report("web-b", Err(Failure::Refused)).await;
    }
    let log = running.log_has("publish 1").await;
    assert_eq!(log, ["publish all 1", "attach eth0 4", "publish 1"]);
    // Nothing is ever heard of it: the switch comes all the same.
    let reloaded = replied(reply).await.unwrap();
    assert_eq!(reloaded.generation, Generation(3));
    assert_eq!(
        running.log()[3..],
        ["switch: new 1, www 1", "others: 2", "settle"]
    );
    let www = &running.status().await.services[1];
    assert_eq!(
        www.answer,
        ["192.0.2.200".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(www.generation, Generation(2));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refuses_refuses_all() {
    for (refuses, want) in [
        ("open", "map fake: unexpected refusal"),
        (
            "eth1",
            "interface eth1 refuses the program: map fake: unexpected refusal",
        ),
        ("switch", "map fake: unexpected refusal"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake {
            refuses,
            ..Fake::default()
        };
        let mut running = live(dir.path(), &fake).await;
        let reply = running.reload(WhenBusy::Refuse).await;
        let eth1 = ("interfaces = []", "interfaces = [\"eth0\", \"eth1\"]");
        let edits = [if refuses == "eth1" { eth1 } else { ETH0 }, ADDED];
        other(running.job().await, &fake, &edits);
        if refuses != "open" {
            running.round_begins().await;
            running.report_key(FIRST_NEW, Ok(())).await;
            running
                .links
                .send(link("eth1", Carrier::Up, Some(5)))
                .await
                .unwrap();
        }
        assert_eq!(replied(reply).await.unwrap_err(), [want]);
        assert_eq!(
            running.log(),
            ["publish all 1", "attach eth0 4", "next is gone"]
        );
        if refuses != "open" {
            assert_eq!(running.next_told().await, Told::Remove(vec![FIRST_NEW]));
        }
        assert!(running.told.try_recv().is_err());
        // It goes on as if nothing had been.
        running.report_key(FIRST_NEW, Err(Failure::Refused)).await;
        for name in ["web-a", "web-b"] {
            for _ in 0..3 {
                running.report(name, Err(Failure::Refused)).await;
            }
        }
        let status = running.status_at(2).await;
        assert_eq!(
            (status.generation, status.services.len()),
            (Generation(2), 1)
        );
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interfaces_come_before_the_switch() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::default();
    let mut running = live(dir.path(), &fake).await;
    let reply = running.reload(WhenBusy::Refuse).await;
    let more = ("interfaces = []", "interfaces = [\"eth1\", \"eth2\"]");
    other(running.job().await, &fake, &[more]);
    assert_eq!(running.next_told().await, Told::Add(vec![], Begin::AtOnce));
    assert_eq!(
        running.next_told().await,
        Told::Watch(names(&["eth1", "eth2"]))
    );
    // The one is there, the other is not.
    running
        .links
        .send(link("eth1", Carrier::Up, Some(5)))
        .await
        .unwrap();
    running
        .links
        .send(link("eth2", Carrier::Down, None))
        .await
        .unwrap();
    let reloaded = replied(reply).await.unwrap();
    assert!(
        reloaded
            .difference
            .settings
            .contains(&"interfaces".to_owned())
    );
    assert_eq!(
        running.log()[2..],
        ["attach next eth1 5", "switch: www 2", "others: 1", "settle"]
    );
    let interfaces = running.status().await.interfaces;
    assert_eq!(
        serde_json::to_value(interfaces).unwrap(),
        serde_json::json!([
            {"name": "eth1", "xdp": "generic"},
            {"name": "eth2", "xdp": "detached"},
        ])
    );
    running
        .links
        .send(link("eth2", Carrier::Up, Some(6)))
        .await
        .unwrap();
    running.log_has("attach eth2 6").await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_that_loses_its_program_gets_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake {
        refuses: "take over",
        ..Fake::default()
    };
    let mut running = live(dir.path(), &fake).await;
    let reply = running.reload(WhenBusy::Refuse).await;
    other(running.job().await, &fake, &[ETH0]);
    let reloaded = replied(reply).await.unwrap();
    assert!(
        reloaded.warnings[2].starts_with("interface eth0: "),
        "{reloaded:?}"
    );
    running.log_has("settle").await;
    for _ in 0..5000 {
        if running.log()[2..]
            .iter()
            .filter(|line| *line == "attach eth0 4")
            .count()
            == 1
        {
            return running.end().await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("not attached again: {:?}", running.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::default();
    // Not before the first publication.
    let mut running = start(dir.path(), &fake);
    let first = running.reload(WhenBusy::Refuse).await;
    running.status().await;
    assert!(running.jobs.try_recv().is_err());
    running.first_round().await;
    let (_, sender) = running.job().await;

    let second = running.reload(WhenBusy::Refuse).await;
    let refused = replied(second).await.unwrap_err();
    assert!(
        refused[0].starts_with("a reload is under way"),
        "{refused:?}"
    );
    // One waits, and no more than one.
    let third = running.reload(WhenBusy::Wait).await;
    let fourth = running.reload(WhenBusy::Wait).await;
    assert!(replied(fourth).await.is_err());
    running.status().await;
    assert!(running.jobs.try_recv().is_err());
    assert!(sender.send(Loaded::Unchanged(Vec::new())).is_ok());
    assert!(replied(first).await.is_ok());
    let (_, sender) = running.job().await;
    assert!(sender.send(Loaded::Unchanged(Vec::new())).is_ok());
    assert!(replied(third).await.is_ok());
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_a_reload() {
    // During the loading, and during the first round.
    for is_loaded in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::default();
        let mut running = live(dir.path(), &fake).await;
        let reply = running.reload(WhenBusy::Refuse).await;
        let job = running.job().await;
        let mut want = vec!["publish all 1", "attach eth0 4"];
        let held = if is_loaded {
            let slow = ("timeout = \"500ms\"", "timeout = \"1s\"");
            other(job, &fake, &[ETH0, ADDED, slow]);
            running.round_begins().await;
            want.push("next is gone");
            None
        } else {
            Some(job)
        };
        running.end().await;
        want.push("detach eth0");
        assert_eq!(*fake.log.lock().unwrap(), want);
        assert!(reply.await.is_err());
        drop(held);
    }
}
