//! The files: `events.jsonl`, and `events.jsonl.1`, what it was before.
//!
//! One entry on a line. The file is only ever appended to; when it has its size, it takes the
//! place of the older one. A line that is not whole, as after a crash, is no entry.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::Entry;

/// Octets of each file, at most.
pub(super) const FILE_LIMIT: u64 = 4 << 20;

/// Where the files are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    current: PathBuf,
    older: PathBuf,
}

/// What the files hold.
#[derive(Debug)]
pub(super) struct Found {
    /// The newest entries, the oldest of them first.
    pub(super) newest: Vec<Arc<Entry>>,
    /// The highest number; 0: there is no entry.
    pub(super) seq: u64,
}

impl Files {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            current: dir.join("events.jsonl"),
            older: dir.join("events.jsonl.1"),
        }
    }

    pub(super) fn current(&self) -> &Path {
        &self.current
    }

    /// Hands the lines of both files to `take`, the newest first, until it has enough.
    pub(super) fn newest_first(
        &self,
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        // In this order: if the one takes the other's place meanwhile, its lines come twice,
        // and none is missing.
        let files = [File::open(&self.current), File::open(&self.older)];
        for file in files {
            let mut text = Vec::new();
            match file {
                Ok(mut file) => file.read_to_end(&mut text)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let lines = text.rsplit(|octet| *octet == b'\n');
            // What follows the last line feed is not whole.
            for line in lines.skip(1) {
                if !line.is_empty() && take(line).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The newest entries, at most `limit`.
    pub(super) fn find(&self, limit: usize) -> io::Result<Found> {
        /// Of an entry of any version.
        #[derive(Deserialize)]
        struct Numbered {
            seq: u64,
        }
        let mut found = Found {
            newest: Vec::new(),
            seq: 0,
        };
        self.newest_first(|line| {
            if let Ok(Numbered { seq }) = serde_json::from_slice(line) {
                found.seq = found.seq.max(seq);
            }
            found.newest.extend(parse(line).map(Arc::new));
            if found.newest.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        found.newest.reverse();
        Ok(found)
    }
}

/// The entry on a line, if there is one that this version understands.
pub(super) fn parse(line: &[u8]) -> Option<Entry> {
    serde_json::from_slice(line).ok()
}

/// Appends to the files.
#[derive(Debug)]
pub(super) struct Appender {
    files: Files,
    limit: u64,
    /// The current file, and how long it is; `None`: it has to be opened.
    open: Option<(File, u64)>,
}

impl Appender {
    pub(super) const fn new(files: Files, limit: u64) -> Self {
        Self {
            files,
            limit,
            open: None,
        }
    }

    /// The current file.
    pub(super) fn file(&self) -> &Path {
        self.files.current()
    }

    /// Appends entries, in order; says how many of them have been written.
    pub(super) fn append<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a Arc<Entry>>,
    ) -> (usize, io::Result<()>) {
        let mut written = 0;
        let done = self.try_append(entries, &mut written);
        if done.is_err()
            && let Some((file, len)) = self.open.take()
        {
            // What a write that failed has left behind; else it is cut at the next one.
            let _ = file.set_len(len);
        }
        (written, done)
    }

    fn try_append<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a Arc<Entry>>,
        written: &mut usize,
    ) -> io::Result<()> {
        let mut text = Vec::new();
        let mut waiting = 0;
        for entry in entries {
            let before = text.len();
            serde_json::to_writer(&mut text, &**entry)?;
            text.push(b'\n');
            if self.len()? + text.len() as u64 > self.limit {
                self.write(&text[..before])?;
                *written += std::mem::take(&mut waiting);
                text.drain(..before);
                self.rotate()?;
            }
            waiting += 1;
        }
        self.write(&text)?;
        *written += waiting;
        // Whoever is told of an event may rely on finding it.
        self.open()?.0.sync_data()
    }

    fn len(&mut self) -> io::Result<u64> {
        Ok(self.open()?.1)
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let (file, len) = self.open()?;
        file.write_all(text)?;
        *len += text.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.len()? > 0 {
            self.open = None;
            fs::rename(&self.files.current, &self.files.older)?;
        }
        Ok(())
    }

    /// The current file, at the end of its last whole line.
    fn open(&mut self) -> io::Result<&mut (File, u64)> {
        let gone = |(file, _): &(File, u64)| file.metadata().is_ok_and(|file| file.nlink() == 0);
        if self.open.as_ref().is_none_or(gone) {
            let path = &self.files.current;
            let mut file = File::options()
                .read(true)
                .append(true)
                .create(true)
                .open(path)?;
            let len = whole_lines(&mut file)?;
            file.set_len(len)?;
            self.open = Some((file, len));
        }
        self.open
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// How long a file is without the line that is not whole at its end.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut end = file.seek(SeekFrom::End(0))?;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let mut part = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.take(end - start).read_to_end(&mut part)?;
        if let Some(at) = part.iter().rposition(|octet| *octet == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Kind, News, Severity};
    use jiff::Timestamp;

    fn entries(numbers: std::ops::Range<u64>) -> Vec<Arc<Entry>> {
        let entry = |seq| Entry {
            seq,
            time: Timestamp::UNIX_EPOCH,
            news: News::new(Kind::Daemon, "daemon", Severity::Info).to("started"),
        };
        numbers.map(|seq| Arc::new(entry(seq))).collect()
    }

    /// Octets of an entry whose number has one digit.
    fn one() -> u64 {
        serde_json::to_vec(&*entries(1..2)[0]).unwrap().len() as u64 + 1
    }

    fn found(files: &Files, limit: usize) -> (Vec<u64>, u64) {
        let found = files.find(limit).unwrap();
        (
            found.newest.iter().map(|entry| entry.seq).collect(),
            found.seq,
        )
    }

    #[test]
    fn the_older_file_goes_and_the_size_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path());
        assert_eq!(found(&files, 10), (vec![], 0));
        let limit = 3 * one() + 1;
        let mut appender = Appender::new(files.clone(), limit);
        // (appended up to, what is found)
        for (numbers, want) in [
            (1..3, 1..3),
            (3..4, 1..4),
            (4..5, 1..5),
            // Several rotations within one call.
            (5..9, 4..9),
        ] {
            let all = entries(numbers.clone());
            let (written, done) = appender.append(&all);
            done.unwrap();
            assert_eq!(written, all.len());
            let last = numbers.end - 1;
            assert_eq!(found(&files, 10), (want.collect(), last), "{numbers:?}");
            for file in [&files.current, &files.older] {
                let len = fs::metadata(file).map_or(0, |file| file.len());
                assert!(len <= limit, "{len} octets");
            }
        }
        assert_eq!(found(&files, 4), (vec![5, 6, 7, 8], 8));
        // Another process goes on where this one was.
        let (_, done) = Appender::new(files.clone(), limit).append(&entries(9..10));
        done.unwrap();
        assert_eq!(found(&files, 10), ((4..10).collect(), 9));
    }

    #[test]
    fn one_entry_that_is_too_long_is_written_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path());
        let mut appender = Appender::new(files.clone(), 10);
        for n in 1..4 {
            appender.append(&entries(n..n + 1)).1.unwrap();
        }
        assert_eq!(found(&files, 10), (vec![2, 3], 3));
    }

    #[test]
    fn torn_lines_are_no_entries() {
        let whole: Vec<u8> = entries(1..3)
            .iter()
            .flat_map(|entry| [serde_json::to_vec(&**entry).unwrap(), vec![b'\n']].concat())
            .collect();
        let newer = b"{\"seq\":9,\"kind\":\"of another version\"}\n";
        // (what follows the two, the number that is found)
        for (tail, want) in [
            (&whole[..0], 2),
            (&whole[..1], 2),
            (&whole[..whole.len() / 2 - 1], 2),
            (b"\n\n", 2),
            (b"not JSON\n", 2),
            (b"\xff\xfe", 2),
            (&[0; 100_000], 2),
            (newer, 9),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let files = Files::new(dir.path());
            fs::write(&files.current, [&whole, tail].concat()).unwrap();
            let shown = String::from_utf8_lossy(tail);
            assert_eq!(found(&files, 10), (vec![1, 2], want), "{shown:?}");
            let mut appender = Appender::new(files.clone(), FILE_LIMIT);
            appender.append(&entries(10..11)).1.unwrap();
            assert_eq!(found(&files, 10), (vec![1, 2, 10], 10), "{shown:?}");
        }
    }

    #[test]
    fn a_file_that_was_removed_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path());
        let mut appender = Appender::new(files.clone(), FILE_LIMIT);
        appender.append(&entries(1..2)).1.unwrap();
        fs::remove_file(&files.current).unwrap();
        appender.append(&entries(2..3)).1.unwrap();
        assert_eq!(found(&files, 10), (vec![2], 2));
    }

    /// A small file system, mounted on a directory.
    struct Small(tempfile::TempDir);

    impl Small {
        /// `None`, and a word about it, where this user may not.
        fn new(octets: u64) -> Option<Self> {
            let dir = tempfile::tempdir().unwrap();
            let mounted = std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={octets}"), "tmpfs"])
                .arg(dir.path())
                .output()
                .is_ok_and(|output| output.status.success());
            if !mounted {
                eprintln!("skipped: needs root");
                return None;
            }
            Some(Self(dir))
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            let mut unmount = std::process::Command::new("umount");
            let _ = unmount.arg("--lazy").arg(self.0.path()).output();
        }
    }

    #[test]
    fn a_full_disk_leaves_whole_lines() {
        let Some(small) = Small::new(64 * 1024) else {
            return;
        };
        let files = Files::new(small.0.path());
        let mut appender = Appender::new(files.clone(), FILE_LIMIT);
        let ballast = small.0.path().join("ballast");
        fs::write(&ballast, vec![0; 40 * 1024]).unwrap();
        let all = entries(1..1000);
        let (written, done) = appender.append(&all[..10]);
        done.unwrap();
        assert_eq!(written, 10);
        // Too much for what is left.
        let (written, done) = appender.append(&all[10..]);
        assert_eq!(done.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(written, 0);
        assert_eq!(found(&files, 2000), ((1..11).collect(), 10));
        fs::remove_file(&ballast).unwrap();
        let (written, done) = appender.append(&all[10..200]);
        done.unwrap();
        assert_eq!(written, 190);
        assert_eq!(found(&files, 2000), ((1..201).collect(), 200));
    }

    #[test]
    fn what_could_not_be_written_can_be_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(&dir.path().join("missing"));
        let mut appender = Appender::new(files.clone(), FILE_LIMIT);
        let all = entries(1..4);
        let (written, done) = appender.append(&all);
        assert_eq!((written, done.is_err()), (0, true));
        fs::create_dir(dir.path().join("missing")).unwrap();
        let (written, done) = appender.append(&all);
        done.unwrap();
        assert_eq!(written, 3);
        assert_eq!(found(&files, 10), (vec![1, 2, 3], 3));
    }
}
