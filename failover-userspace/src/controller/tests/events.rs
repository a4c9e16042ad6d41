//! What the journal says of what happens, and who can read it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::shell::{Fake, Running, sources, start_with};
use crate::control::Socket;
use crate::controller::testing::{Bench, example, link, reference};
use crate::controller::{Command, Ended};
use crate::dataplane::Generation;
use crate::health::{Carrier, Failure};
use crate::journal::{Entry, Filter, Journal, Kind, News, Reader, Recorder, Severity};
use crate::protocol::{Reply, Request};
use crate::rights::Access;

const PATIENCE: Duration = Duration::from_secs(30);
const ALL_UP: &str = "web-a+ web-b+ web-c+ wan1+ wan2+";

/// An entry in few words.
fn line(news: &News) -> String {
    let News {
        subject,
        severity,
        from,
        to,
        reason,
        old,
        new,
        generation,
        ..
    } = news;
    let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "-".to_owned());
    let mut line = format!("{subject} {}>{} {severity}", word(from), word(to));
    if new.is_some() {
        let generation = generation.map_or(0, |generation| generation.0);
        line += &format!(" {old:?}>{new:?} in {generation}").replace("Some", "");
    }
    if let Some(reason) = reason {
        line += &format!(": {reason}");
    }
    line
}

/// Feeds a core, and has everything published; what the journal has of that.
fn told(bench: &mut Bench, inputs: &str) -> Vec<String> {
    bench.feed(inputs);
    let mut lines = Vec::new();
    for command in bench.core.settle(bench.now) {
        match command {
            Command::PublishAll(_) | Command::Publish(_) => {
                bench
                    .core
                    .published(Generation(bench.core.generation.0 + 1));
            }
            Command::Log(event) => {
                let generation = match event {
                    crate::controller::Event::Service { id, .. } => bench.core.brought_by(id),
                    _ => None,
                };
                let news = event.news(&bench.model, generation);
                lines.extend(news.iter().map(line));
            }
            Command::Save(record) => bench.kept.apply(record),
            _ => {}
        }
    }
    lines
}

#[test]
fn what_is_as_it_should_be_is_no_news_at_the_start() {
    let mut bench = Bench::new(reference());
    assert_eq!(told(&mut bench, ALL_UP), [""; 0]);

    let mut bench = Bench::new(reference());
    assert_eq!(
        told(&mut bench, "web-a- web-b- web-c- wan1- wan2+"),
        [
            "www/web-a unknown>down warning: tcp:192.168.10.10:80: timed out",
            "www/web-b unknown>down warning: tcp:192.168.10.11:80: timed out",
            "www/web-c unknown>down warning: tcp:192.0.2.200:80: timed out",
            "wan/wan1 unknown>down warning: 0 of 3 targets up, 1 needed; icmp:198.51.100.129: timed out",
            "service/www ->none error None>([198.51.100.134, 203.0.113.70]) in 1: \
             no candidate: primary, as if everything were up",
        ]
    );
    // What was so before a restart, and still is, has its entry from then; what is answered has
    // to be published anew.
    let mut again = Bench::restarted(reference(), bench.kept);
    assert_eq!(
        told(&mut again, "web-a-"),
        [
            "service/www ->none error None>([198.51.100.134, 203.0.113.70]) in 1: \
             no candidate: primary, as if everything were up",
        ]
    );
}

#[test]
fn changes_say_why() {
    let mut model = reference();
    model.wans[0].interface = Some("eth1".to_owned());
    let mut bench = Bench::new(model);
    told(&mut bench, &format!("{ALL_UP} eth1=2"));
    for (inputs, want) in [
        ("web-a- web-a-", &[][..]),
        (
            "web-a- web-b- web-b- web-b-",
            &[
                "www/web-a up>down warning: tcp:192.168.10.10:80: timed out",
                "www/web-b up>down warning: tcp:192.168.10.11:80: timed out",
                "service/www primary>backup2 info ([198.51.100.134, 203.0.113.70])>([192.0.2.200]) in 2: \
                 backup2 is the highest tier with a candidate",
            ],
        ),
        (
            "web-a+ web-a+",
            &[
                "www/web-a down>up info: checks pass",
                "service/www backup2>primary info ([192.0.2.200])>([198.51.100.134, 203.0.113.70]) in 3: \
                 primary is the highest tier with a candidate",
            ],
        ),
        (
            "eth1~2",
            &[
                "wan/wan1 up>down warning: no carrier",
                "service/www primary>primary info ([198.51.100.134, 203.0.113.70])>([203.0.113.70]) in 4: \
                 primary is the highest tier with a candidate",
            ],
        ),
        (
            "eth1=2",
            &[
                "wan/wan1 down>up info: carrier, 3 of 3 targets up, 1 needed",
                "service/www primary>primary info ([203.0.113.70])>([198.51.100.134, 203.0.113.70]) in 5: \
                 primary is the highest tier with a candidate",
            ],
        ),
        (
            "web-a:drain",
            &[
                "www/web-a auto>drain info",
                "www/web-a up>drain info: drain, says the operator; by its checks up: checks pass",
                "service/www primary>backup2 info ([198.51.100.134, 203.0.113.70])>([192.0.2.200]) in 6: \
                 backup2 is the highest tier with a candidate",
            ],
        ),
        (
            "web-a- web-a- web-a-",
            &[
                "www/web-a drain>drain info: drain, says the operator; by its checks down: \
                 tcp:192.168.10.10:80: timed out",
            ],
        ),
        (
            "wan2:maint",
            &[
                "wan/wan2 auto>maint info",
                "wan/wan2 up>maint info: maint, says the operator",
            ],
        ),
        (
            "web-c:down",
            &[
                "www/web-c auto>down info",
                "www/web-c up>down warning: down, says the operator; by its checks up: checks pass",
                // wan2 is in maintenance, web-a drained.
                "service/www backup2>none error ([192.0.2.200])>([198.51.100.134]) in 7: \
                 no candidate: backup, as if everything were up",
            ],
        ),
    ] {
        assert_eq!(told(&mut bench, inputs), want, "{inputs}");
    }
}

#[test]
fn an_interface_that_refuses_is_news_once() {
    let mut model = reference();
    model.settings.interfaces = vec!["eth0".to_owned()];
    let mut bench = Bench::new(model);
    told(&mut bench, &format!("{ALL_UP} eth0=3"));
    let refuses = |bench: &mut Bench| bench.core.not_attached("eth0", bench.now);
    assert_eq!([refuses(&mut bench), refuses(&mut bench)], [true, false]);
    // It may be another one now.
    told(&mut bench, "eth0=4");
    assert_eq!([refuses(&mut bench), refuses(&mut bench)], [true, false]);
}

fn kept(reader: &Reader) -> Vec<Arc<Entry>> {
    let all = Filter::default().matcher().unwrap();
    reader.read(&all, None).unwrap().entries
}

/// Waits until the journal has so many entries.
pub(super) async fn wait(reader: &Reader, count: usize) -> Vec<Arc<Entry>> {
    let begun = Instant::now();
    loop {
        let entries = kept(reader);
        if entries.len() >= count {
            return entries;
        }
        assert!(begun.elapsed() < PATIENCE, "{entries:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn lines(entries: &[Arc<Entry>]) -> Vec<String> {
    entries.iter().map(|entry| line(&entry.news)).collect()
}

async fn stop(running: Running) -> Reader {
    let Running {
        stop,
        done,
        recorder,
        ..
    } = running;
    stop.send(()).unwrap();
    assert_eq!(done.await.unwrap().unwrap(), Ended::Stopped);
    let reader = recorder.reader().clone();
    recorder.stop(PATIENCE);
    reader
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let running = start_with(dir.path(), &Fake::refusing(3), reference());
    running.first_round().await;
    for name in ["web-b", "web-a"] {
        for _ in 0..3 {
            running.report(name, Err(Failure::Refused)).await;
        }
    }
    // Refused three times, and then published.
    running.status_at(2).await;
    running
        .links
        .send(link("eth0", Carrier::Down, None))
        .await
        .unwrap();
    wait(running.recorder.reader(), 10).await;
    let reader = stop(running).await;
    let entries = kept(&reader);
    let refused = "map fake: unexpected refusal";
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        lines(&entries),
        [
            format!(
                "daemon ->started info: version {version}: 1 service, 3 servers, 2 WAN links"
            ),
            "interface/eth0 ->attached info: native XDP, index 4".to_owned(),
            "daemon started>ready info: first publication".to_owned(),
            "www/web-b up>down warning: tcp:192.168.10.11:80: connection refused".to_owned(),
            "www/web-a up>down warning: tcp:192.168.10.10:80: connection refused".to_owned(),
            "service/www primary>backup2 info ([198.51.100.134, 203.0.113.70])>([192.0.2.200]) in 0: \
             backup2 is the highest tier with a candidate"
                .to_owned(),
            format!("daemon ->refused error: 1 answer: {refused}"),
            "daemon refused>published info".to_owned(),
            "interface/eth0 attached>gone warning".to_owned(),
            "interface/eth0 ->missing warning: no such interface: attached when it appears".to_owned(),
            "daemon ->stopped info: told to stop".to_owned(),
        ]
    );
}

/// A model of many services on one link.
fn many(count: usize) -> crate::model::Model {
    let services = (0..count).map(|n| {
        format!(
            "[[service]]\nname = \"s{n}\"\nport = 80\nfqdn = [\"s{n}.example.com\"]\n\
             wan = [{{ link = \"wan1\", address = \"198.51.100.134\" }}]\n\
             [[service.server]]\nname = \"a\"\naddress = \"192.168.10.10\"\n"
        )
    });
    example(&format!("\n{}", services.collect::<String>()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_at_once_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let running = start_with(dir.path(), &Fake::default(), many(1500));
    running.first_round().await;
    let before = wait(running.recorder.reader(), 3).await.len();
    for _ in 0..3 {
        running.report("wan1", Err(Failure::TimedOut)).await;
    }
    // The link, 999 of 1501 services, and one entry for the rest.
    let entries = wait(running.recorder.reader(), before + 1001).await;
    let news = &entries[before].news;
    assert_eq!((news.kind, &*news.subject), (Kind::Wan, "wan/wan1"));
    let last = &entries[before + 1000].news;
    assert_eq!(last.kind, Kind::Lost);
    let reason = "502 more, too many at once: 502 service";
    assert_eq!(last.reason.as_deref(), Some(reason));
    let reader = stop(running).await;
    assert_eq!(reader.counts().1, 502);
}

/// A control socket in front of a journal.
struct Served {
    recorder: Recorder,
    path: std::path::PathBuf,
    stop: watch::Sender<()>,
    done: JoinHandle<std::io::Result<()>>,
    _queries: tokio::sync::mpsc::Receiver<crate::controller::Asked>,
}

impl Served {
    fn start(dir: &Path) -> Self {
        let recorder = Recorder::start(dir, Box::new(|_| {})).unwrap();
        let path = dir.join("control.sock");
        let socket = Socket::bind(&path, &Access::default()).unwrap();
        let (queries, receiver) = tokio::sync::mpsc::channel(1);
        let (stop, stops) = watch::channel(());
        let (_, models) = watch::channel(Arc::new(reference()));
        let sources = sources(recorder.reader());
        Self {
            recorder,
            path,
            stop,
            done: tokio::spawn(socket.serve(models, queries, sources, stops)),
            _queries: receiver,
        }
    }

    fn journal(&self) -> &Journal {
        self.recorder.journal()
    }

    async fn record(&self, subject: &str) {
        let before = self.recorder.reader().counts().0;
        let news = News::new(Kind::Server, subject, Severity::Info);
        self.journal().record(Timestamp::UNIX_EPOCH, news);
        let begun = Instant::now();
        while self.recorder.reader().counts().0 == before {
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn client(&self, filter: Filter, last: Option<usize>, follow: bool) -> Client {
        let mut stream = BufReader::new(UnixStream::connect(&self.path).await.unwrap());
        let request = Request::Events {
            filter,
            last,
            follow,
        };
        let mut text = serde_json::to_vec(&request).unwrap();
        text.push(b'\n');
        stream.get_mut().write_all(&text).await.unwrap();
        Client(stream)
    }
}

struct Client(BufReader<UnixStream>);

impl Client {
    /// The next reply; `None`: the daemon has hung up.
    async fn next(&mut self) -> Option<Reply> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.0.read_line(&mut line));
        let read = read.await.unwrap().unwrap();
        (read > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    /// Subjects of entries until there is something else, and that.
    async fn entries(&mut self) -> (Vec<String>, Option<Reply>) {
        let mut subjects = Vec::new();
        loop {
            match self.next().await {
                Some(Reply::Event(entry)) => subjects.push(entry.news.subject),
                other => return (subjects, other),
            }
        }
    }
}

fn about(service: &str) -> Filter {
    Filter {
        service: Some(service.to_owned()),
        ..Filter::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_get_what_they_ask_for() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path());
    for subject in ["www/web-a", "mail/mx", "www/web-b", "www/web-a"] {
        served.record(subject).await;
    }
    for (filter, last, want) in [
        (
            Filter::default(),
            None,
            &["www/web-a", "mail/mx", "www/web-b", "www/web-a"][..],
        ),
        (about("www"), Some(2), &["www/web-b", "www/web-a"]),
        (about("mail"), Some(5), &["mail/mx"]),
        (about("ftp"), None, &[]),
    ] {
        let mut client = served.client(filter, last, false).await;
        let (subjects, end) = client.entries().await;
        assert_eq!(subjects, want);
        assert_eq!(end, Some(Reply::UpToDate {}));
        // The connection is good for more.
        client.0.get_mut().write_all(b"{}\n").await.unwrap();
        assert!(matches!(client.next().await, Some(Reply::Error(_))));
    }
    let broken = Filter {
        subject: Some("[".to_owned()),
        ..Filter::default()
    };
    let mut client = served.client(broken, None, true).await;
    let error = client.next().await;
    assert!(
        matches!(&error, Some(Reply::Error(why)) if why.starts_with("subject: ")),
        "{error:?}"
    );

    // From what there was without a gap to what comes, until the daemon stops.
    let mut client = served.client(about("www"), Some(1), true).await;
    let (subjects, end) = client.entries().await;
    assert_eq!(
        (&*subjects, end),
        (&["www/web-a".to_owned()][..], Some(Reply::UpToDate {}))
    );
    for subject in ["www/new", "mail/new", "www/newer"] {
        served.record(subject).await;
    }
    for want in ["www/new", "www/newer"] {
        let Some(Reply::Event(entry)) = client.next().await else {
            panic!()
        };
        assert_eq!(entry.news.subject, want);
    }
    served.record("www/last").await;
    served.stop.send(()).unwrap();
    let (subjects, end) = client.entries().await;
    assert_eq!(subjects, ["www/last"]);
    assert_eq!(end, Some(Reply::Error("the daemon has stopped".to_owned())));
    assert_eq!(client.next().await, None);
    served.done.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path());
    let mut client = served.client(Filter::default(), None, true).await;
    assert_eq!(client.next().await, Some(Reply::UpToDate {}));
    // More than the socket and the listener's room take together.
    let reader = served.recorder.reader();
    for n in 1..=20 {
        for _ in 0..1000 {
            let news = News::new(Kind::Server, "www/web-a", Severity::Info);
            let news = news.because("x".repeat(1000));
            served.journal().record(Timestamp::UNIX_EPOCH, news);
        }
        let begun = Instant::now();
        while reader.counts().0 < n * 1000 {
            assert!(begun.elapsed() < PATIENCE, "{:?}", reader.counts());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let (subjects, end) = client.entries().await;
    assert!(subjects.len() < 20_000);
    assert!(
        matches!(&end, Some(Reply::Error(why)) if why.starts_with("too slow: ")),
        "{end:?}"
    );
    assert_eq!(client.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_leave_room_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path());
    let mut followers = Vec::new();
    for _ in 0..32 {
        let mut client = served.client(Filter::default(), None, true).await;
        assert_eq!(client.next().await, Some(Reply::UpToDate {}));
        followers.push(client);
    }
    let mut one_more = served.client(Filter::default(), None, true).await;
    let error = one_more.next().await;
    assert!(
        matches!(&error, Some(Reply::Error(why)) if why.starts_with("32 others")),
        "{error:?}"
    );
    let mut other = served.client(Filter::default(), None, false).await;
    assert_eq!(other.next().await, Some(Reply::UpToDate {}));
    // One that hangs up makes room.
    followers.pop();
    let begun = Instant::now();
    loop {
        let mut client = served.client(Filter::default(), None, true).await;
        if client.next().await == Some(Reply::UpToDate {}) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE);
    }
}
