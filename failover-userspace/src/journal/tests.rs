use std::fs;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Instant;

use tokio::sync::broadcast::error::TryRecvError;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn news(kind: Kind, subject: &str) -> News {
    News::new(kind, subject, Severity::Info)
        .from("up")
        .to("down")
}

fn record(journal: &Journal, subject: &str) {
    journal.record(Timestamp::UNIX_EPOCH, news(Kind::Server, subject));
}

fn start(dir: &Path) -> Recorder {
    Recorder::start(dir, Box::new(|_| {})).unwrap()
}

fn subjects(entries: &[Arc<Entry>]) -> Vec<(u64, &str)> {
    let subjects = entries.iter();
    subjects
        .map(|entry| (entry.seq, &*entry.news.subject))
        .collect()
}

fn kept(reader: &Reader, last: Option<usize>) -> Vec<Arc<Entry>> {
    let all = Filter::default().matcher().unwrap();
    reader.read(&all, last).unwrap().entries
}

/// Waits until so many entries have been recorded since the start.
#[track_caller]
fn wait(reader: &Reader, count: u64) {
    let begun = Instant::now();
    while reader.counts().0 < count {
        assert!(begun.elapsed() < PATIENCE, "{:?}", reader.counts());
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn numbers_go_on_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    for (run, want) in [
        (1, vec![(1, "a1"), (2, "b1")]),
        (2, vec![(1, "a1"), (2, "b1"), (3, "a2"), (4, "b2")]),
    ] {
        let recorder = start(dir.path());
        let reader = recorder.reader().clone();
        record(recorder.journal(), &format!("a{run}"));
        record(recorder.journal(), &format!("b{run}"));
        recorder.stop(PATIENCE);
        assert_eq!(subjects(&kept(&reader, None)), want);
        assert_eq!(subjects(&kept(&reader, Some(1))), want[want.len() - 1..]);
    }
    // As after a crash in the middle of a line.
    let file = dir.path().join("events.jsonl");
    let mut text = fs::read(&file).unwrap();
    text.truncate(text.len() - 3);
    fs::write(&file, text).unwrap();
    let recorder = start(dir.path());
    let reader = recorder.reader().clone();
    record(recorder.journal(), "a3");
    recorder.stop(PATIENCE);
    let want = [(1, "a1"), (2, "b1"), (3, "a2"), (4, "a3")];
    assert_eq!(subjects(&kept(&reader, None)), want);
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 4);
}

#[test]
fn what_is_not_in_memory_is_read_from_both_files() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 200_000;
    let recorder = Recorder::start_with(dir.path(), limit, Box::new(|_| {})).unwrap();
    let reader = recorder.reader().clone();
    let count = RING as u64 + 500;
    for n in 1..=count {
        record(recorder.journal(), "www/web-a");
        if n % 1000 == 0 {
            wait(&reader, n);
        }
    }
    recorder.stop(PATIENCE);
    assert_eq!(reader.counts(), (count, 0));
    let files = ["events.jsonl", "events.jsonl.1"].map(|name| {
        let text = fs::read(dir.path().join(name)).unwrap();
        assert!(text.len() as u64 <= limit);
        text.split(|octet| *octet == b'\n').count() as u64 - 1
    });
    // Less than in memory: the older ones are gone, and memory has what it has.
    assert!(files[0] + files[1] < RING as u64);
    let numbers = |last| -> Vec<u64> {
        let kept = kept(&reader, last);
        kept.iter().map(|entry| entry.seq).collect()
    };
    let newest = |n: u64| -> Vec<u64> { (count - n + 1..=count).collect() };
    assert_eq!(numbers(None), newest(RING as u64));
    assert_eq!(numbers(Some(3)), newest(3));

    // The next one has in memory what the files have; so has one with less memory.
    let recorder = start(dir.path());
    let reader = recorder.reader().clone();
    let in_files = files[0] + files[1];
    let all = || {
        let kept = kept(&reader, None);
        let numbers: Vec<u64> = kept.iter().map(|entry| entry.seq).collect();
        numbers
    };
    assert_eq!(all(), newest(in_files));
    reader.forget(10);
    assert_eq!(all(), newest(in_files));
    recorder.stop(PATIENCE);
}

#[test]
fn the_end_of_a_daemon_that_said_nothing_is_noticed() {
    let daemon = |to: &str| News::new(Kind::Daemon, "daemon", Severity::Info).to(to);
    let dir = tempfile::tempdir().unwrap();
    // (what it says, what the next one finds at its end)
    for (says, want) in [
        (&["started", "ready", "stopped"][..], "stopped"),
        (&["started", "ready"], "died"),
        // It is said once.
        (&[], "died"),
        (&["started"], "died"),
    ] {
        let recorder = start(dir.path());
        for to in says {
            recorder.journal().record(Timestamp::now(), daemon(to));
        }
        recorder.stop(PATIENCE);
        let recorder = start(dir.path());
        let reader = recorder.reader().clone();
        recorder.stop(PATIENCE);
        let last = kept(&reader, Some(1)).pop().unwrap();
        assert_eq!(last.news.to.as_deref(), Some(want), "{says:?}");
        if want == "died" && !says.is_empty() {
            assert_eq!(last.news.from.as_deref(), says.last().copied());
        }
    }
    let text = fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
    assert_eq!(text.matches("\"died\"").count(), 2, "{text}");
}

/// A million at once, while nothing can be written: nobody waits, the room is bounded, and an
/// entry says what is missing.
#[test]
fn a_million_events_neither_wait_nor_pile_up() {
    let dir = tempfile::tempdir().unwrap();
    let (open, gate) = mpsc::channel::<()>();
    let told: Arc<Mutex<Vec<Arc<Entry>>>> = Arc::default();
    let sink = Arc::clone(&told);
    let sink = Box::new(move |entry: &Arc<Entry>| {
        // Closed: the gate is open.
        let _ = gate.recv();
        sink.lock().unwrap().push(Arc::clone(entry));
    });
    let recorder = Recorder::start(dir.path(), sink).unwrap();
    let reader = recorder.reader().clone();
    // With a thread that does not move this would not end, if it waited.
    for n in 0..1_000_000 {
        let kind = [Kind::Server, Kind::Service][n % 2];
        let news = News::new(kind, "www/web-a", Severity::Info);
        recorder.journal().record(Timestamp::UNIX_EPOCH, news);
    }
    drop(open);
    recorder.stop(PATIENCE);
    let (recorded, lost) = reader.counts();
    let told = told.lock().unwrap();
    assert_eq!(told.len() as u64, recorded);
    let says: Vec<&str> = told
        .iter()
        .filter(|entry| entry.news.kind == Kind::Lost)
        .filter_map(|entry| entry.news.reason.as_deref())
        .collect();
    assert_eq!(recorded - says.len() as u64 + lost, 1_000_000);
    // What waited, and what had been taken out before the thread stood still.
    assert!(recorded < 3 * (ROOM as u64), "{recorded}");
    let of = |word: &str| -> u64 {
        let count = says.iter().filter_map(|says| {
            let parts: Vec<&str> = says.split([' ', ',']).collect();
            let at = parts.iter().position(|part| *part == word)?;
            parts[at - 1].parse::<u64>().ok()
        });
        count.sum()
    };
    assert_eq!(of("more"), lost, "{says:?}");
    assert_eq!(of("server") + of("service"), lost, "{says:?}");
    assert!(of("server") > 100_000, "{says:?}");
}

#[test]
fn listeners_miss_nothing_or_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = start(dir.path());
    let reader = recorder.reader().clone();
    record(recorder.journal(), "before");
    wait(&reader, 1);
    let all = Filter::default().matcher().unwrap();
    let Kept { entries, mut live } = reader.read(&all, None).unwrap();
    assert_eq!(subjects(&entries), [(1, "before")]);
    record(recorder.journal(), "after");
    wait(&reader, 2);
    assert_eq!(live.try_recv().unwrap().seq, 2);
    assert_eq!(live.try_recv(), Err(TryRecvError::Empty));

    for n in 1..=5 {
        for _ in 0..1000 {
            record(recorder.journal(), "flood");
        }
        wait(&reader, 2 + n * 1000);
    }
    assert!(matches!(live.try_recv(), Err(TryRecvError::Lagged(missed)) if missed >= 900));
    recorder.stop(PATIENCE);
}

#[test]
fn a_disk_without_room_is_no_reason_to_forget() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let recorder = start(&missing);
    let reader = recorder.reader().clone();
    for n in 1..=3 {
        record(recorder.journal(), "www/web-a");
        wait(&reader, n);
    }
    assert_eq!(kept(&reader, None).len(), 3);
    // As soon as there is room, what is still known is written.
    fs::create_dir(&missing).unwrap();
    record(recorder.journal(), "www/web-b");
    recorder.stop(PATIENCE);
    let text = fs::read_to_string(missing.join("events.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 4);
}
