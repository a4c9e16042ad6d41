//! Publications as fast as they come, and replies that are each wholly of one of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use failover::dataplane::Change;
use failover::model::ServiceId;
use failover::policy::Answer;

use crate::lab::{
    Lab, PASS, Program, TX, add_service, any_addresses, change, equal, model, privileged,
};
use crate::packet::{Dns, Frame, check_reply};

/// How many replies are checked unless this variable says another number.
const REPLIES: &str = "FAILOVER_FLIP_REPLIES";
const DEFAULT_REPLIES: u64 = 1_000_000;
const READERS: u64 = 2;
/// Every how many replies one is checked in full, headers and all.
const IN_FULL: u64 = 64;

/// What is asked: services changed together, types of records.
const QUESTIONS: [Question; 4] = [
    Question {
        service: 0,
        qtype: 1,
    },
    Question {
        service: 1,
        qtype: 1,
    },
    Question {
        service: 0,
        qtype: 28,
    },
    Question {
        service: 1,
        qtype: 28,
    },
];

#[derive(Clone, Copy, Debug)]
struct Question {
    service: u32,
    qtype: u16,
}

/// How many addresses a generation has, of each family: now few, now many.
fn count(generation: u64) -> u64 {
    match generation % 4 {
        0 => 1 + generation / 4 % 4,
        1 => 9 + generation / 4 % 8,
        2 => 2,
        _ => 16,
    }
}

/// Address number `index` of a service in a generation: both can be read from it.
fn token(generation: u64, service: u32, index: u64) -> u32 {
    (generation as u32) << 6 | (index as u32) << 1 | service
}

fn answer(generation: u64, service: u32) -> Answer {
    let addresses = |of: fn(u32) -> IpAddr| {
        (0..count(generation)).map(move |index| of(token(generation, service, index)))
    };
    let v4 = addresses(|token| Ipv4Addr::from(token).into());
    let v6 = addresses(|token| Ipv6Addr::from(u128::from(token) | 0x2001 << 112).into());
    equal(&v4.chain(v6).collect::<Vec<_>>())
}

fn changes(lab: &Lab, generation: u64) -> Vec<Change> {
    let of = |service| change(&lab.model, ServiceId(service), &answer(generation, service));
    vec![of(0), of(1)]
}

/// The generation whose answer a reply to `question` is, exactly.
fn generation_of(question: Question, query_len: usize, reply: &[u8]) -> u64 {
    // Ethernet, IPv4, UDP; DNS header, "sN.example.com", type and class; a record up to its data.
    const MESSAGE: usize = 42;
    const RECORDS: usize = MESSAGE + 12 + 16 + 4;
    let record_len = if question.qtype == 1 { 16 } else { 28 };
    let records = usize::from(reply[MESSAGE + 7]);
    let tokens = (1..=records).map(|n| {
        let end = RECORDS + n * record_len;
        u32::from_be_bytes(reply[end - 4..end].try_into().expect("four octets"))
    });
    let first = tokens.clone().next().expect("an address");
    let generation = u64::from(first >> 6);
    let count = count(generation);
    assert_eq!(
        records as u64, count,
        "addresses of generation {generation}"
    );
    let turn = u64::from(first >> 1 & 31);
    for (token_seen, index) in tokens.zip(turn..) {
        let want = token(generation, question.service, index % count);
        assert_eq!(token_seen, want, "part of another generation");
    }
    // Two name servers of 18 octets and their addresses of 20; the question's own OPT.
    assert_eq!(
        reply.len(),
        query_len + records * record_len + 2 * 18 + 2 * 20,
        "length"
    );
    generation
}

/// Asks until `replies` were seen; returns how many queries passed.
fn read(program: &Program, replies: u64, published: &AtomicU64) -> u64 {
    let queries = QUESTIONS.map(|question| {
        let name = format!("s{}.example.com", question.service);
        Frame::v4(Dns::new(&name, question.qtype).bytes()).bytes()
    });
    let mut reply = vec![0; 2048];
    let mut seen = 0;
    let mut passed = 0;
    for number in 0..replies {
        let which = (number % QUESTIONS.len() as u64) as usize;
        let before = published.load(Ordering::Acquire);
        let (verdict, len) = program.run_into(&queries[which], &mut reply);
        if verdict == PASS {
            assert_eq!(reply[..len], queries[which]);
            passed += 1;
            continue;
        }
        assert_eq!(verdict, TX);
        let generation = generation_of(QUESTIONS[which], queries[which].len(), &reply[..len]);
        assert!(generation >= seen, "{generation} after {seen}");
        assert!(
            generation >= before,
            "{generation} when {before} was published"
        );
        seen = generation;
        if number % IN_FULL == 0 {
            check_reply(&queries[which], &reply[..len]);
        }
    }
    passed
}

/// How fast the writer publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// As fast as it can, so that no answer has a place beside its pointer.
    Flat,
    /// When nobody reads any more what it will write over, so that short answers all have.
    Readers,
}

#[test]
fn every_reply_is_of_one_generation_and_none_is_older_than_the_last() {
    if privileged() {
        flip(Pace::Flat, |replies| replies / 1000);
    }
}

#[test]
fn nor_is_one_of_those_that_are_written_over_in_their_place() {
    if privileged() {
        flip(Pace::Readers, |_| 8);
    }
}

/// Asks and publishes at the same time. Of so many replies there must be more generations than
/// `fewest` says.
fn flip(pace: Pace, fewest: impl Fn(u64) -> u64) {
    let replies = std::env::var(REPLIES).map_or(DEFAULT_REPLIES, |n| n.parse().expect("a number"));
    let mut model = model();
    for name in ["s0.example.com", "s1.example.com"] {
        let id = add_service(&mut model, name);
        model.services[id.index()].on_all_down = any_addresses(16);
    }
    let mut lab = Lab::new(model, &[answer(1, 0), answer(1, 1)]);
    let published = AtomicU64::new(1);
    let done = AtomicBool::new(false);
    let start = Instant::now();

    let passed = thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let program = Program::of(&mut lab.plane);
                let published = &published;
                scope.spawn(move || read(&program, replies / READERS, published))
            })
            .collect();
        let (lab, published, done) = (&mut lab, &published, &done);
        let writer = scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                if pace == Pace::Readers {
                    lab.plane.wait_for_readers();
                }
                let next = lab.plane.generation().next();
                let generation = lab
                    .plane
                    .publish(&changes(lab, next.0))
                    .expect("publication");
                assert_eq!(generation, next);
                published.store(generation.0, Ordering::Release);
                if pace == Pace::Readers {
                    // One address of each family, or two.
                    if matches!(count(generation.0), 1 | 2) {
                        assert_eq!(lab.plane.inline_answers(ServiceId(1)), 2);
                    }
                }
            }
        });
        let passed = readers.into_iter().map(|reader| reader.join());
        let passed: Vec<_> = passed.collect();
        done.store(true, Ordering::Relaxed);
        writer.join().expect("writer");
        passed
            .into_iter()
            .map(|passed| passed.expect("reader"))
            .sum::<u64>()
    });

    let generations = lab.plane.generation().0;
    println!(
        "{pace:?}: {replies} replies, {generations} generations, {passed} overtaken, {:.1} s",
        start.elapsed().as_secs_f64()
    );
    let counters = lab.counters();
    assert_eq!(passed, counters.passed_overtaken, "{:?}", lab.reasons());
    assert!(passed <= replies / 1000, "{passed} overtaken");
    assert!(
        generations > fewest(replies),
        "{generations} generations only"
    );
}
