//! Deliveries to a receiver that follows a script, on a clock that jumps.

use std::collections::VecDeque;
use std::sync::Mutex;

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::health::{Failure, HttpFailure};
use crate::journal::{Entry, Kind, News, Severity};
use crate::webhook::queue::Pushed;

/// What the receiver does with one request.
#[derive(Clone, Copy, Debug)]
enum Does {
    Takes,
    /// A refusal that another try may change.
    Fails,
    /// One that it does not.
    Refuses,
    /// Says nothing for so many seconds, and then takes it.
    Hangs(u64),
}
use Does::{Fails, Hangs, Refuses, Takes};

/// Requests: seconds since the beginning, number of the entry, entries missed before it.
type Seen = Arc<Mutex<Vec<(u64, u64, u64)>>>;

struct Script {
    does: VecDeque<Does>,
    /// When the script has come to its end.
    then: Does,
    begun: Instant,
    seen: Seen,
}

impl Post for Script {
    async fn post(&mut self, entry: &Entry, missed: u64) -> Result<(), Refusal> {
        let at = self.begun.elapsed().as_secs();
        self.seen.lock().unwrap().push((at, entry.seq, missed));
        let status = |code: u16, passing| {
            Err(Refusal {
                failure: Failure::Http(HttpFailure::Status(code)),
                says: String::new(),
                passing,
            })
        };
        match self.does.pop_front().unwrap_or(self.then) {
            Takes => Ok(()),
            Fails => status(503, true),
            Refuses => status(400, false),
            Hangs(seconds) => {
                sleep(Duration::from_secs(seconds)).await;
                Ok(())
            }
        }
    }
}

fn entry(seq: u64) -> Arc<Entry> {
    Arc::new(Entry {
        seq,
        time: Timestamp::UNIX_EPOCH,
        news: News::new(Kind::Daemon, "daemon", Severity::Info),
    })
}

struct Running {
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    seen: Seen,
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn start(does: &[Does], then: Does, room: usize) -> Running {
    let queue = Arc::new(Queue::new(room));
    let counters = Arc::new(Counters::default());
    let seen = Seen::default();
    let (stopping, stops) = watch::channel(false);
    let script = Script {
        does: does.iter().copied().collect(),
        then,
        begun: Instant::now(),
        seen: Arc::clone(&seen),
    };
    let delivery = Delivery::new(
        "hooks.example.net".to_owned(),
        Arc::clone(&queue),
        Arc::clone(&counters),
        script,
        Pace::default(),
        stops,
    );
    Running {
        task: tokio::spawn(delivery.run()),
        queue,
        counters,
        seen,
        stopping,
    }
}

impl Running {
    fn push(&self, numbers: std::ops::Range<u64>) {
        for seq in numbers {
            assert_eq!(self.queue.push(&entry(seq)), Pushed::Taken);
        }
    }

    fn seen(&self) -> Vec<(u64, u64, u64)> {
        self.seen.lock().unwrap().clone()
    }

    /// Sent, failed, dropped, retries.
    fn counts(&self) -> [u64; 4] {
        let Counters {
            sent,
            failed,
            dropped,
            retries,
            ..
        } = &*self.counters;
        [sent, failed, dropped, retries].map(|counter| counter.load(Ordering::Relaxed))
    }
}

async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[test]
fn waits_double_up_to_a_minute() {
    let pace = Pace::default();
    let waits: Vec<u64> = (1..10).map(|n| pace.wait(n).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(pace.wait(u32::MAX).as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn in_order_one_at_a_time_again_and_again() {
    let running = start(&[Takes, Fails, Fails, Hangs(5), Refuses, Fails], Takes, 10);
    running.push(1..5);
    pass(100).await;
    assert_eq!(
        running.seen(),
        [
            (0, 1, 0),
            // Twice in vain.
            (0, 2, 0),
            (1, 2, 0),
            (3, 2, 0),
            // For good, so that the next one is told.
            (8, 3, 0),
            (8, 4, 1),
            // The waits begin anew.
            (9, 4, 1),
        ]
    );
    assert_eq!(running.counts(), [3, 1, 0, 3]);
    running.push(5..6);
    pass(1).await;
    assert_eq!(running.seen().last(), Some(&(100, 5, 0)));
    running.queue.close();
    running.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_waits_too_long_is_given_up() {
    let running = start(&[], Fails, 10);
    running.push(1..3);
    pass(1800).await;
    // Half an hour later.
    running.push(3..4);
    pass(1800 + 60).await;
    assert_eq!(running.counts()[..3], [0, 2, 0]);
    let seen = running.seen();
    let last_of_first = seen.iter().rev().find(|(_, seq, _)| *seq == 1).unwrap();
    assert!((3500..3600).contains(&last_of_first.0), "{seen:?}");
    // The second was never tried: it had waited as long as the first.
    assert!(!seen.iter().any(|(_, seq, _)| *seq == 2), "{seen:?}");
    let first_of_third = seen.iter().find(|(_, seq, _)| *seq == 3).unwrap();
    assert!((3600..3660).contains(&first_of_third.0), "{seen:?}");
    assert_eq!(first_of_third.2, 2);
    // At most one try a minute.
    let minutes = seen.iter().filter(|(at, ..)| *at >= 63);
    assert!(minutes.count() <= 60, "{seen:?}");
    pass(1800).await;
    assert_eq!(running.counts()[..3], [0, 3, 0]);
    // With nothing to tell, nothing is tried.
    let tries = running.seen().len();
    pass(1000).await;
    assert_eq!(running.seen().len(), tries);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_makes_room() {
    let running = start(&[Fails, Fails], Takes, 3);
    running.push(1..2);
    tokio::task::yield_now().await;
    assert_eq!(running.seen(), [(0, 1, 0)]);
    running.push(2..5);
    for (seq, first) in [(5, true), (6, false)] {
        let pushed = running.queue.push(&entry(seq));
        assert_eq!(pushed, Pushed::OldestDropped { first });
    }
    pass(100).await;
    assert_eq!(
        running.seen()[1..],
        [(1, 1, 2), (3, 1, 2), (3, 4, 0), (3, 5, 0), (3, 6, 0)]
    );
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_goes_well_is_delivered() {
    let running = start(&[], Hangs(1), 10);
    running.push(1..4);
    tokio::task::yield_now().await;
    running.queue.close();
    running.stopping.send(true).unwrap();
    assert_eq!(running.queue.push(&entry(4)), Pushed::Taken);
    let begun = Instant::now();
    let Running { task, counters, .. } = running;
    task.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 3);
    assert_eq!(counters.sent.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_nothing_is_tried_twice() {
    for (does, tries) in [
        // While it waits for the next try, and while one is made.
        (&[Fails][..], 1),
        (&[Takes, Fails], 2),
    ] {
        let running = start(does, Fails, 10);
        running.push(1..4);
        if tries == 1 {
            tokio::task::yield_now().await;
        }
        running.queue.close();
        running.stopping.send(true).unwrap();
        let begun = Instant::now();
        let Running {
            task,
            counters,
            seen,
            ..
        } = running;
        task.await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 0);
        assert_eq!(seen.lock().unwrap().len(), tries);
        let delivered = tries as u64 - 1;
        assert_eq!(counters.sent.load(Ordering::Relaxed), delivered);
        assert_eq!(counters.dropped.load(Ordering::Relaxed), 3 - delivered);
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_end_nobody_waits_for_who_has_failed() {
    let running = start(&[Fails], Hangs(1000), 10);
    running.push(1..3);
    pass(5).await;
    assert_eq!(running.seen(), [(0, 1, 0), (1, 1, 0)]);
    running.queue.close();
    running.stopping.send(true).unwrap();
    let begun = Instant::now();
    let Running { task, counters, .. } = running;
    task.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 0);
    assert_eq!(counters.dropped.load(Ordering::Relaxed), 2);
}
