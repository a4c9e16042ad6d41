//! When messages are sent, on a clock that does not wait; and what they are, over the loopback.

use std::sync::Mutex;

use domain::rdata::AllRecordData;

use super::*;
use crate::authority::{Authority, Published, Snapshot};
use crate::model::{Generation, ZoneId};

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";

/// Two zones; that of the first row is told to these.
fn model(notify: &str) -> Model {
    let directory = tempfile::tempdir().unwrap();
    let zone = "$TTL 60\n@ SOA ns.example.net. h 1 2 3 4 5\n@ NS ns.example.net.\n";
    std::fs::write(directory.path().join("zone"), zone).unwrap();
    let file = directory.path().join("failover.toml");
    let toml = format!(
        "[server]\nlisten = [\"{ONE}\", \"2001:db8::1\", \"{TWO}\"]\n\
         [[zone]]\nname = \"example.com\"\nfile = \"zone\"\nallow_transfer = [\"::/0\"]\nnotify = [{notify}]\n\
         [[zone]]\nname = \"example.org\"\nfile = \"zone\"\n"
    );
    std::fs::write(&file, toml).unwrap();
    let loaded = crate::config::load(&file);
    loaded.unwrap_or_else(|errors| panic!("{errors}")).model
}

/// A target that is known by these of our addresses.
fn target(sources: &[&str]) -> Target {
    Target {
        sources: sources.iter().map(|text| text.parse().unwrap()).collect(),
        ..Target::clone(&targets(&model("\"192.0.2.53\""))[0])
    }
}

/// When a message was sent, in ms; its serial number; the last octet of where it came from.
type Sent = (u64, u32, u8);

/// A target that responds as told, after 50 ms, and says nothing when told no more.
#[derive(Clone)]
struct Script {
    start: Instant,
    responses: Arc<Mutex<VecDeque<Response>>>,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Script {
    fn new(responses: &[Response]) -> Self {
        Self {
            start: Instant::now(),
            responses: Arc::new(Mutex::new(responses.iter().copied().collect())),
            sent: Arc::default(),
        }
    }
}

impl Exchange for Script {
    async fn exchange(
        &self,
        message: &[u8],
        from: Option<IpAddr>,
        _: SocketAddr,
        wait: Duration,
    ) -> Response {
        let at = self.start.elapsed().as_millis() as u64;
        let from = match from {
            Some(IpAddr::V4(from)) => from.octets()[3],
            Some(IpAddr::V6(_)) | None => 0,
        };
        let sent = (at, serial_in(message), from);
        self.sent.lock().unwrap().push(sent);
        let response = self.responses.lock().unwrap().pop_front();
        let response = response.unwrap_or(Response::Silence);
        tokio::time::sleep(match response {
            Response::Silence => wait,
            Response::Heard | Response::Error(_) => Duration::from_millis(50),
        })
        .await;
        response
    }
}

fn serial_in(message: &[u8]) -> u32 {
    soa_in(message).0
}

/// Serial number and TTL of negative answers.
fn soa_in(message: &[u8]) -> (u32, u32) {
    let message = Message::from_octets(message).unwrap();
    let record = message.answer().unwrap().next().unwrap().unwrap();
    let record = record.to_any_record::<AllRecordData<_, _>>().unwrap();
    match record.data() {
        AllRecordData::Soa(soa) => (soa.serial().into_int(), soa.minimum().as_secs()),
        other => panic!("{other:?}"),
    }
}

const LONG: Duration = Duration::from_secs(1000);

/// What is sent while serial numbers change at these times in ms.
async fn play(sources: &[&str], responses: &[Response], changes: &[(u64, u32)]) -> Vec<Sent> {
    let script = Script::new(responses);
    let target = Arc::new(target(sources));
    let (news, receiver) = watch::channel(News { target, serial: 1 });
    let task = tokio::spawn(follow(receiver, script.clone()));
    for (at, serial) in changes {
        sleep_until(script.start + Duration::from_millis(*at)).await;
        news.send_modify(|news| news.serial = *serial);
    }
    tokio::time::sleep(LONG).await;
    assert!(!task.is_finished());
    drop(news);
    task.await.unwrap();
    script.sent.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn until_a_response_comes() {
    /// Our addresses, the responses, and what is sent.
    type Row = (
        &'static [&'static str],
        &'static [Response],
        &'static [Sent],
    );
    use Response::{Error, Heard, Silence};
    const BOTH: &[&str] = &[ONE, TWO];
    const REFUSED: Response = Error(Rcode::REFUSED);
    let rows: &[Row] = &[
        (&[ONE], &[Heard], &[(0, 1, 1)]),
        (
            &[ONE],
            &[Silence, Silence, Heard],
            &[(0, 1, 1), (1000, 1, 1), (3000, 1, 1)],
        ),
        (
            &[ONE],
            &[],
            &[
                (0, 1, 1),
                (1000, 1, 1),
                (3000, 1, 1),
                (7000, 1, 1),
                (15_000, 1, 1),
            ],
        ),
        // From each of our addresses in turn.
        (
            BOTH,
            &[Silence, Silence, Heard],
            &[(0, 1, 1), (1000, 1, 2), (3000, 1, 1)],
        ),
        // An error is final for the address that got it.
        (&[ONE], &[REFUSED, Heard], &[(0, 1, 1)]),
        (BOTH, &[REFUSED, Heard], &[(0, 1, 1), (50, 1, 2)]),
        (BOTH, &[REFUSED, REFUSED, Heard], &[(0, 1, 1), (50, 1, 2)]),
        (
            BOTH,
            &[Silence, REFUSED, Silence, Heard],
            &[(0, 1, 1), (1000, 1, 2), (1050, 1, 1), (3050, 1, 1)],
        ),
        // The kernel chooses where we listen on no address of the family.
        (&[], &[Silence, Heard], &[(0, 1, 0), (1000, 1, 0)]),
    ];
    for (sources, responses, want) in rows {
        let found = play(sources, responses, &[]).await;
        assert_eq!(found, *want, "{sources:?} {responses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_number_takes_the_place_of_an_older_one() {
    /// The responses, the changes, and what is sent.
    type Row = (&'static [Response], &'static [(u64, u32)], &'static [Sent]);
    use Response::{Heard, Silence};
    let rows: &[Row] = &[
        // One after the other, each at once.
        (
            &[Heard, Heard, Heard],
            &[(5000, 2), (6000, 3)],
            &[(0, 1, 1), (5000, 2, 1), (6000, 3, 1)],
        ),
        // Instead of a further try.
        (&[Silence, Heard], &[(500, 2)], &[(0, 1, 1), (500, 2, 1)]),
        // A burst: the first at once, and of the others the last.
        (
            &[Heard, Heard, Heard],
            &[(5000, 2), (5010, 3), (5020, 4), (5100, 5)],
            &[(0, 1, 1), (5000, 2, 1), (5200, 5, 1)],
        ),
        (
            &[Silence, Silence, Heard, Heard, Heard],
            &[(5000, 2), (5010, 3), (5020, 4)],
            &[
                (0, 1, 1),
                (1000, 1, 1),
                (3000, 1, 1),
                (5000, 2, 1),
                (5200, 4, 1),
            ],
        ),
    ];
    for (responses, changes, want) in rows {
        let found = play(&[ONE], responses, changes).await;
        assert_eq!(found, *want, "{responses:?} {changes:?}");
    }
}

#[test]
fn targets_hear_from_addresses_of_their_family() {
    let model = model("\"192.0.2.53\", \"[2001:db8::53]:5300\"");
    let targets: Vec<_> = targets(&model)
        .iter()
        .map(|target| {
            (
                target.zone.name.to_string(),
                target.address.to_string(),
                target.sources.clone(),
            )
        })
        .collect();
    let v4 = [ONE, TWO].map(|text| text.parse().unwrap()).to_vec();
    let v6 = vec!["2001:db8::1".parse().unwrap()];
    assert_eq!(
        targets,
        [
            ("example.com".to_owned(), "192.0.2.53:53".to_owned(), v4),
            (
                "example.com".to_owned(),
                "[2001:db8::53]:5300".to_owned(),
                v6
            ),
        ]
    );
}

/// A socket that stands for a secondary, and the target that it is.
async fn secondary() -> (UdpSocket, Target) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = Target {
        address: socket.local_addr().unwrap(),
        sources: vec!["127.0.0.2".parse().unwrap()],
        ..target(&[])
    };
    (socket, target)
}

const SOON: Duration = Duration::from_secs(10);

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 512];
    let received = tokio::time::timeout(SOON, socket.recv_from(&mut buffer)).await;
    let (len, from) = received.expect("no NOTIFY").unwrap();
    (buffer[..len].to_vec(), from)
}

#[tokio::test]
async fn the_message_and_its_response() {
    let (socket, target) = secondary().await;
    for (rcode, want) in [
        (0, Response::Heard),
        (5, Response::Error(Rcode::REFUSED)),
        (9, Response::Error(Rcode::NOTAUTH)),
    ] {
        let asked = tokio::spawn({
            let target = target.clone();
            async move { tell(&target, 7, &Udp::default()).await }
        });
        let (query, from) = receive(&socket).await;
        assert_eq!(from.ip(), target.sources[0]);
        let message = Message::from_octets(&query).unwrap();
        let header = message.header();
        assert_eq!(
            (header.opcode(), header.qr(), header.aa(), header.rd()),
            (Opcode::NOTIFY, false, true, false)
        );
        let counts = message.header_counts();
        assert_eq!(
            (
                counts.qdcount(),
                counts.ancount(),
                counts.nscount(),
                counts.arcount()
            ),
            (1, 1, 0, 0)
        );
        let question = message.sole_question().unwrap();
        assert_eq!(question.qname().to_string(), "example.com");
        assert_eq!(question.qtype(), Rtype::SOA);
        assert_eq!(serial_in(&query), 7);

        // Not the response: somebody's, too short, another ID, no response, another opcode.
        let mut response = query.clone();
        response[2] |= 0x80;
        response[3] |= rcode;
        let stranger = UdpSocket::bind("127.0.0.3:0").await.unwrap();
        let mut refusal = response.clone();
        refusal[3] = 4;
        stranger.send_to(&refusal, from).await.unwrap();
        let mut other_id = refusal.clone();
        other_id[1] ^= 1;
        let mut other_opcode = refusal.clone();
        other_opcode[2] = 0x84;
        for wrong in [&refusal[..5], &other_id, &query, &other_opcode, &response] {
            socket.send_to(wrong, from).await.unwrap();
        }
        assert_eq!(asked.await.unwrap(), want, "{rcode}");
    }
}

#[tokio::test]
async fn a_closed_port_is_silence() {
    let (socket, target) = secondary().await;
    drop(socket);
    let message = message(1, &target.zone, 1).unwrap();
    let wait = Duration::from_millis(50);
    let start = Instant::now();
    let response = Udp::default()
        .exchange(&message, Some(target.sources[0]), target.address, wait)
        .await;
    assert_eq!(response, Response::Silence);
    assert!(start.elapsed() >= wait);
}

#[tokio::test]
async fn what_changes_a_serial_number_is_told() {
    let (socket, target) = secondary().await;
    let published = |snapshot| {
        Arc::new(Published {
            authority: Arc::new(Authority::new(&model("\"192.0.2.53\""))),
            snapshot,
        })
    };
    // The zone file's serial number is 1.
    let first = Snapshot::new(Generation(10), &[]);
    let (publisher, reader) = watch::channel(published(first.clone()));
    let (_targets, targets) = watch::channel(Targets::from([Arc::new(target)]));
    let task = tokio::spawn(run(targets, reader));
    let mut elsewhere = first;
    for (generation, zone, want) in [(10, None, 11), (12, Some(0), 13), (14, Some(0), 15)] {
        if let Some(zone) = zone {
            // A publication that changes another zone comes before.
            elsewhere = elsewhere.next(Generation(generation - 1), &[], &[ZoneId(1)]);
            publisher.send(published(elsewhere.clone())).unwrap();
            elsewhere = elsewhere.next(Generation(generation), &[], &[ZoneId(zone)]);
            publisher.send(published(elsewhere.clone())).unwrap();
        }
        let (mut message, from) = receive(&socket).await;
        assert_eq!(serial_in(&message), want);
        message[2] |= 0x80;
        socket.send_to(&message, from).await.unwrap();
    }
    assert!(!task.is_finished());
    drop(publisher);
    tokio::time::timeout(SOON, task).await.unwrap().unwrap();
}

/// A reload: some targets stay, some go and some come.
#[tokio::test]
async fn targets_follow_the_model() {
    let [(stays, kept), (goes, gone), (comes, new)] =
        [secondary().await, secondary().await, secondary().await];
    let [kept, gone, new] = [kept, gone, new].map(Arc::new);
    let snapshot = Snapshot::new(Generation(10), &[]);
    let published = |snapshot: &Snapshot| {
        Arc::new(Published {
            authority: Arc::new(Authority::new(&model("\"192.0.2.53\""))),
            snapshot: snapshot.clone(),
        })
    };
    let (publisher, reader) = watch::channel(published(&snapshot));
    let (targets, targets_reader) = watch::channel(Targets::from([Arc::clone(&kept), gone]));
    tokio::spawn(run(targets_reader, reader));
    let hears = async |socket: &UdpSocket| {
        let (mut message, from) = receive(socket).await;
        message[2] |= 0x80;
        socket.send_to(&message, from).await.unwrap();
        soa_in(&message)
    };
    let first = (11, 5);
    assert_eq!([hears(&stays).await, hears(&goes).await], [first, first]);

    // Who has heard this number is not told again; he hears the next one in the new words.
    let mut zone = Zone::clone(&kept.zone);
    zone.soa.minimum = 6;
    let kept = Arc::new(Target {
        zone: Arc::new(zone),
        ..Target::clone(&kept)
    });
    targets.send_replace(Targets::from([kept, new]));
    assert_eq!(hears(&comes).await, first);
    let snapshot = snapshot.next(Generation(11), &[], &[ZoneId(0)]);
    publisher.send_replace(published(&snapshot));
    assert_eq!(hears(&stays).await, (12, 6));
    assert_eq!(hears(&comes).await, (12, 5));
    for socket in [&stays, &goes, &comes] {
        let nothing = socket.try_recv(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }
}
