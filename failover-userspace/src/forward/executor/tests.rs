//! The executor with a kernel that is played, on a clock that is.

use std::future::Future;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::sleep;

use super::*;
use crate::controller::testing::example;
use crate::health::Effective;
use crate::policy::{self, View};

const WAN1: &str = "198.51.100.134:80";
const WEB_A: &str = "192.168.10.10:80";
const WEB_B: &str = "192.168.10.11:80";

/// A kernel that writes down what it is told.
#[derive(Default)]
struct State {
    log: Vec<String>,
    table: Option<Table>,
    handles: u64,
    /// How often nft fails from now on.
    failures: usize,
    /// How often connections cannot be ended from now on.
    stuck: usize,
    /// Tables are not for us to see.
    forbidden: bool,
    connections: Vec<(SocketAddr, SocketAddr)>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

impl Fake {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What has been done since it was asked the last time.
    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    fn connect(&self, to: &str, server: &str) {
        let connection = (to.parse().unwrap(), server.parse().unwrap());
        self.state().connections.push(connection);
    }
}

impl Kernel for Fake {
    async fn nft(&mut self, script: &str) -> Result<(), Error> {
        // It takes its time.
        sleep(Duration::from_millis(20)).await;
        let mut state = self.state();
        if state.failures > 0 {
            state.failures -= 1;
            state.log.push("failure".to_owned());
            return Err(Error::Refused("no".to_owned()));
        }
        let removes = script.starts_with("add table");
        if !removes && state.table.is_none() {
            state.log.push("no table".to_owned());
            return Err(Error::Refused("no such file".to_owned()));
        }
        if removes {
            state.table = None;
        }
        let what = if script.contains("\ntable ") {
            state.handles += 1;
            state.table = Some(Table {
                handle: state.handles,
                ours: true,
            });
            "replace"
        } else if removes {
            "remove"
        } else {
            "patch"
        };
        // The servers of the first slots of wan1.
        let slots = script.split("198.51.100.134 . 80 . ").filter_map(|part| {
            let (_, server) = part.split_once(" : ")?;
            server.split_once(" . ").map(|(server, _)| server)
        });
        let servers: Vec<&str> = slots
            .filter(|server| server.starts_with("192.168"))
            .collect();
        state
            .log
            .push(format!("{what} {}", servers.join(" ")).trim().to_owned());
        Ok(())
    }

    fn table(&mut self) -> Result<Option<Table>, Error> {
        let state = self.state();
        if state.forbidden {
            let error = std::io::ErrorKind::PermissionDenied.into();
            return Err(Error::Netfilter(error));
        }
        Ok(state.table)
    }

    fn end(
        &mut self,
        families: Families,
        stay: &dyn Fn(SocketAddr, SocketAddr) -> bool,
    ) -> Result<usize, Error> {
        let mut state = self.state();
        if state.stuck > 0 {
            state.stuck -= 1;
            return Err(Error::Connections(std::io::ErrorKind::Other.into()));
        }
        assert_eq!((families.v4, families.v6), (true, false));
        let (before, mut ended) = (state.connections.len(), Vec::new());
        state.connections.retain(|(to, server)| {
            let stays = stay(*to, *server);
            if !stays {
                ended.push(format!("end {to} to {server}"));
            }
            stays
        });
        state.log.extend(ended);
        Ok(before - state.connections.len())
    }
}

/// The executor's other side.
struct Bench {
    model: Arc<Model>,
    kernel: Fake,
    orders: UnboundedSender<Order>,
    progress: Arc<Progress>,
}

impl Bench {
    /// `u`, `d`, `r`, `m` for web-a, web-b.
    fn forwards(&self, states: &str) -> Vec<Forward> {
        let state = |letter| match letter {
            'u' => Effective::Up,
            'r' => Effective::Drain,
            'm' => Effective::Maint,
            _ => Effective::Down,
        };
        let servers: Vec<Effective> = states.chars().map(state).collect();
        let view = View {
            servers: &servers,
            wans: &[],
        };
        let services = self.model.services.iter();
        services
            .map(|service| policy::forward(service, &self.model, view))
            .collect()
    }

    fn order(&self, order: Order) {
        self.progress.order();
        self.orders.send(order).unwrap();
    }

    fn all(&self, states: &str) {
        let how = PortForward { snat: false };
        let forwards = self.forwards(states);
        self.order(Order::All(Arc::clone(&self.model), how, forwards));
    }

    fn some(&self, states: &str) {
        let forwards = self.forwards(states).into_iter();
        let changes = (0..).map(ServiceId).zip(forwards).collect();
        self.order(Order::Some(changes));
    }

    /// Until nothing more is to be expected but another look.
    async fn pass(&self) -> Vec<String> {
        sleep(LOOK / 2).await;
        self.kernel.log()
    }

    fn status(&self) -> (bool, bool, Option<String>, usize) {
        let status = self.progress.status();
        (status.enabled, status.applied, status.error, status.rules)
    }
}

/// Runs a test beside the executor, which ends after it.
async fn with<F: Future<Output = ()>>(kernel: Fake, test: impl FnOnce(Bench) -> F) {
    let (orders, receiver) = unbounded_channel();
    let progress = Arc::new(Progress::new(true));
    let executor = Executor::new(kernel.clone(), Arc::clone(&progress));
    let bench = Bench {
        model: Arc::new(example("")),
        kernel,
        orders,
        progress,
    };
    tokio::join!(executor.run(receiver), test(bench));
}

#[tokio::test(start_paused = true)]
async fn first_all_then_what_changes() {
    with(Fake::default(), async |bench| {
        assert_eq!(bench.pass().await, [""; 0]);
        bench.all("ud");
        assert_eq!(bench.status(), (true, false, None, 0));
        assert_eq!(bench.pass().await, ["replace 192.168.10.10"]);
        assert_eq!(bench.status(), (true, true, None, 2));
        bench.some("du");
        assert_eq!(bench.pass().await, ["patch 192.168.10.11"]);
        // The same again costs nothing.
        bench.some("du");
        bench.all("du");
        assert_eq!(bench.pass().await, [""; 0]);
        assert_eq!(bench.status(), (true, true, None, 2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn only_the_newest_rules_matter() {
    with(Fake::default(), async |bench| {
        for states in ["ud", "du", "uu", "du"] {
            bench.all(states);
        }
        bench.some("ud");
        bench.some("du");
        assert_eq!(bench.pass().await, ["replace 192.168.10.11"]);
        // Those that come while it works are one more step.
        bench.some("ud");
        sleep(Duration::from_millis(5)).await;
        for states in ["du", "ud", "du"] {
            bench.some(states);
        }
        let log = bench.pass().await;
        assert_eq!(log, ["patch 192.168.10.10", "patch 192.168.10.11"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again() {
    let kernel = Fake::default();
    kernel.state().failures = 3;
    with(kernel, async |bench| {
        bench.all("ud");
        let failure = "failure".to_owned();
        sleep(FIRST_RETRY / 2).await;
        assert_eq!(bench.kernel.log(), [&*failure]);
        let error = Some("nft: no".to_owned());
        assert_eq!(bench.status(), (true, false, error, 0));
        sleep(FIRST_RETRY * 10).await;
        let log = bench.kernel.log();
        assert_eq!(log, ["failure", "failure", "replace 192.168.10.10"]);
        assert_eq!(bench.status(), (true, true, None, 2));

        // A change that fails: all of it.
        bench.kernel.state().failures = 1;
        bench.some("du");
        assert_eq!(bench.pass().await, ["failure", "replace 192.168.10.11"]);

        // Later and later, but not for ever.
        bench.kernel.state().failures = 1000;
        bench.some("ud");
        sleep(LAST_RETRY * 10).await;
        let count = bench.kernel.log().len();
        assert!((10..=25).contains(&count), "{count}");
        // News are tried at once.
        bench.kernel.state().failures = 0;
        bench.some("du");
        assert_eq!(bench.pass().await, ["replace 192.168.10.11"]);
        assert_eq!(bench.status(), (true, true, None, 2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_lost_is_put_back() {
    with(Fake::default(), async |bench| {
        bench.all("ud");
        bench.pass().await;
        bench.kernel.state().table = None;
        sleep(LOOK * 2).await;
        assert_eq!(bench.kernel.log(), ["replace 192.168.10.10"]);
        // So is one that is another of the same name.
        bench.kernel.state().table = Some(Table {
            handle: 99,
            ours: true,
        });
        sleep(LOOK * 2).await;
        assert_eq!(bench.kernel.log(), ["replace 192.168.10.10"]);
        // Or by the next change.
        bench.kernel.state().table = None;
        bench.some("du");
        sleep(LOOK / 4).await;
        assert_eq!(bench.kernel.log(), ["no table", "replace 192.168.10.11"]);
        sleep(LOOK * 10).await;
        assert_eq!(bench.kernel.log(), [""; 0]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_table_of_others_is_left_alone() {
    let kernel = Fake::default();
    let foreign = Table {
        handle: 7,
        ours: false,
    };
    kernel.state().table = Some(foreign);
    with(kernel, async |bench| {
        bench.all("ud");
        assert_eq!(bench.pass().await, [""; 0]);
        let (_, applied, error, _) = bench.status();
        assert!(!applied && error.unwrap().contains("not ours"));
        bench.order(Order::Off);
        assert_eq!(bench.pass().await, [""; 0]);
        assert_eq!(bench.kernel.state().table, Some(foreign));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn connections_to_servers_that_are_gone_end() {
    let kernel = Fake::default();
    kernel.connect(WAN1, WEB_A);
    kernel.connect(WAN1, WEB_B);
    // Of an earlier configuration, and of somebody else.
    kernel.connect(WAN1, "192.168.10.99:80");
    kernel.connect("198.51.100.134:8080", "192.168.10.99:80");
    kernel.connect("192.0.2.1:80", "192.168.10.99:80");
    with(kernel, async |bench| {
        let end = |server| format!("end {WAN1} to {server}");
        bench.all("uu");
        let log = bench.pass().await;
        assert_eq!(log, ["replace 192.168.10.10", &end("192.168.10.99:80")]);
        // Drained: it may finish.
        bench.some("ru");
        assert_eq!(bench.pass().await, ["patch 192.168.10.11"]);
        // Down: not. The rules are what they were.
        bench.some("du");
        assert_eq!(bench.pass().await, [end(WEB_A)]);
        // It comes back, and the other one may finish.
        bench.some("uu");
        assert_eq!(bench.pass().await, ["patch 192.168.10.10"]);
        assert_eq!(bench.kernel.state().connections.len(), 3);

        // What cannot be ended is ended later, though the rules stay the same.
        bench.kernel.state().stuck = 1;
        bench.some("um");
        sleep(FIRST_RETRY / 2).await;
        assert_eq!(bench.kernel.log(), [""; 0]);
        let (_, applied, error, _) = bench.status();
        assert!(applied && error.unwrap().contains("have not been ended"));
        sleep(FIRST_RETRY * 2).await;
        assert_eq!(bench.kernel.log(), [end(WEB_B)]);
        assert_eq!(bench.status(), (true, true, None, 2));
    })
    .await;
}

/// A reload may take an address away.
#[tokio::test(start_paused = true)]
async fn connections_to_addresses_that_are_gone_end() {
    with(Fake::default(), async |mut bench| {
        bench.all("ud");
        bench.pass().await;
        bench.kernel.connect(WAN1, WEB_A);
        bench.kernel.connect("203.0.113.70:80", WEB_A);
        let mut model = example("");
        model.services[0].wan.remove(0);
        bench.model = Arc::new(model);
        bench.all("ud");
        let log = bench.pass().await;
        assert_eq!(log, ["patch", &format!("end {WAN1} to {WEB_A}")]);
        assert_eq!(bench.status(), (true, true, None, 1));
        assert_eq!(bench.kernel.state().connections.len(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn off_means_no_table() {
    let ours = Some(Table {
        handle: 3,
        ours: true,
    });
    let kernel = Fake::default();
    kernel.state().table = ours;
    with(kernel, async |bench| {
        bench.order(Order::Off);
        assert_eq!(bench.pass().await, ["remove"]);
        assert_eq!(bench.status(), (false, false, None, 0));
        bench.order(Order::Off);
        // Changes of a model that is not forwarded any more.
        bench.some("ud");
        assert_eq!(bench.pass().await, [""; 0]);
        assert!(!bench.progress.wait(Duration::ZERO));
        assert_eq!(bench.progress.state().tried, 3);

        // A reload turns it on, and a command removes it.
        bench.all("ud");
        assert_eq!(bench.pass().await, ["replace 192.168.10.10"]);
        for want in [Removed::Table, Removed::Nothing] {
            let (reply, removed) = std::sync::mpsc::channel();
            bench.order(Order::Remove(reply));
            bench.pass().await;
            assert_eq!(removed.try_recv().unwrap().unwrap(), want);
            assert_eq!(bench.status(), (false, false, None, 0));
        }
        sleep(LOOK * 3).await;
        assert_eq!(bench.kernel.state().table, None);
    })
    .await;
}

/// Who has no rights and wants nothing is not complained about.
#[tokio::test(start_paused = true)]
async fn rights_are_needed_to_forward_only() {
    let kernel = Fake::default();
    kernel.state().forbidden = true;
    with(kernel, async |bench| {
        bench.order(Order::Off);
        bench.pass().await;
        assert_eq!(bench.status(), (false, false, None, 0));
        bench.all("ud");
        assert_eq!(bench.pass().await, [""; 0]);
        let (_, applied, error, _) = bench.status();
        assert!(!applied && error.unwrap().starts_with("netfilter: "));
    })
    .await;
}

/// The daemon ends while something is still to be done.
#[tokio::test(start_paused = true)]
async fn what_was_ordered_last_is_done_at_the_end() {
    let kernel = Fake::default();
    with(kernel.clone(), async |bench| {
        bench.all("ud");
        bench.pass().await;
        bench.some("du");
    })
    .await;
    assert_eq!(kernel.log(), ["patch 192.168.10.11"]);
}
