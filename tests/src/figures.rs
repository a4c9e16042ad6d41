//! Figures of the benchmark: quartiles, tables with aligned columns, JSON, and what a process
//! uses.
//!
//! A [`Table`] is what one part measured. It is printed as a table to read, which is also
//! Markdown, and written as JSON with the figures unrounded, beside which stands what
//! [`charts`](crate::charts) draws of them.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::charts::Chart;

/// Median, middle half, and extremes of some figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quartiles {
    /// The smallest.
    pub min: f64,
    /// A quarter is smaller.
    pub p25: f64,
    /// Half of them are smaller.
    pub median: f64,
    /// A quarter is larger.
    pub p75: f64,
    /// The largest.
    pub max: f64,
}

impl Quartiles {
    /// `None` where there are no figures.
    #[must_use]
    pub fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let last = figures.len().checked_sub(1)?;
        Some(Self {
            min: figures[0],
            p25: figures[last / 4],
            median: figures[last / 2],
            p75: figures[last - last / 4],
            max: figures[last],
        })
    }

    /// Half the spread of the middle half.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        (self.p75 - self.p25) / 2.0
    }
}

/// The value that `percent` of the sorted figures do not exceed.
#[must_use]
pub fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted
        .get((last as f64 * percent / 100.0).round() as usize)
        .copied()
}

/// One entry of a table.
#[derive(Clone, Debug)]
pub struct Cell {
    shown: String,
    value: Value,
}

impl Cell {
    /// Words.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        let shown = text.into();
        let value = Value::from(shown.clone());
        Self { shown, value }
    }

    /// Nothing that could be measured.
    #[must_use]
    pub fn none() -> Self {
        Self {
            shown: "–".to_owned(),
            value: Value::Null,
        }
    }

    /// A count.
    #[must_use]
    pub fn count(count: u64) -> Self {
        Self {
            shown: count.to_string(),
            value: count.into(),
        }
    }

    /// A figure, shown with so many digits after the point.
    #[must_use]
    pub fn figure(figure: impl Into<Option<f64>>, digits: usize) -> Self {
        figure.into().map_or_else(Self::none, |figure| Self {
            shown: format!("{figure:.digits$}"),
            value: figure.into(),
        })
    }

    /// The median, shown alone.
    #[must_use]
    pub fn median(quartiles: Option<Quartiles>, digits: usize) -> Self {
        quartiles.map_or_else(Self::none, |q| Self {
            shown: format!("{:.digits$}", q.median),
            value: json!(q),
        })
    }

    /// The median and half the spread of the middle half.
    #[must_use]
    pub fn spread(quartiles: Option<Quartiles>, digits: usize) -> Self {
        quartiles.map_or_else(Self::none, |q| Self {
            shown: format!("{:.digits$} ± {:.digits$}", q.median, q.deviation()),
            value: json!(q),
        })
    }
}

/// What one part of the benchmark measured.
#[derive(Clone, Debug)]
pub struct Table {
    title: String,
    columns: Vec<&'static str>,
    /// How many of them are printed: the first ones.
    printed: usize,
    rows: Vec<Vec<Cell>>,
    notes: Vec<String>,
    left_out: Vec<String>,
    charts: Vec<Chart>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.to_vec(),
            printed: columns.len(),
            rows: Vec::new(),
            notes: Vec::new(),
            left_out: Vec::new(),
            charts: Vec::new(),
        }
    }

    /// The same with more columns, which are only in the JSON.
    #[must_use]
    pub fn with_unprinted(mut self, columns: &[&'static str]) -> Self {
        self.columns.extend_from_slice(columns);
        self
    }

    /// What it is about.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Adds a row, as many cells as there are columns.
    ///
    /// # Panics
    ///
    /// When there are more or fewer.
    pub fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        let cells = cells.into();
        assert_eq!(cells.len(), self.columns.len(), "cells of {}", self.title);
        self.rows.push(cells);
    }

    /// Adds what a reader has to know.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds what was not measured, and why; once, however often it is told.
    pub fn leave_out(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.left_out.contains(&what) {
            self.left_out.push(what);
        }
    }

    /// Adds a chart.
    ///
    /// # Panics
    ///
    /// When it is of columns that there are not.
    pub fn chart(&mut self, chart: Chart) {
        for column in chart.columns() {
            assert!(
                self.columns.contains(&column),
                "{}: no column {column:?}",
                self.title
            );
        }
        self.charts.push(chart);
    }

    /// The table with its figures unrounded.
    #[must_use]
    pub fn json(&self) -> Value {
        let row = |cells: &Vec<Cell>| -> Value {
            let columns = self.columns.iter().map(|column| (*column).to_owned());
            let values = cells.iter().map(|cell| cell.value.clone());
            columns.zip(values).collect::<Map<_, _>>().into()
        };
        json!({
            "title": self.title,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "notes": self.notes,
            "left_out": self.left_out,
            "charts": self.charts,
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].shown.as_str());
            let head = std::iter::once(self.columns[column]);
            cells.chain(head).map(|text| text.chars().count()).max()
        };
        let widths: Vec<_> = (0..self.printed).filter_map(width).collect();
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            for (at, (text, width)) in cells.zip(&widths).enumerate() {
                // The first column says what is measured, the others how much.
                if at == 0 {
                    write!(f, "| {text:<width$} |")?;
                } else {
                    write!(f, " {text:>width$} |")?;
                }
            }
            writeln!(f)
        };
        if !self.rows.is_empty() {
            line(&mut self.columns.iter().copied())?;
            let mut rule = vec!["---"];
            rule.resize(self.printed, "--:");
            line(&mut rule.into_iter())?;
            for row in &self.rows {
                line(&mut row.iter().map(|cell| cell.shown.as_str()))?;
            }
            writeln!(f)?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        for what in &self.left_out {
            writeln!(f, "left out: {what}")?;
        }
        Ok(())
    }
}

/// Writes the tables of a part to a file, and makes its directory.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_json(path: &Path, machine: &Machine, tables: &[Table]) -> Result<()> {
    let tables: Vec<_> = tables.iter().map(Table::json).collect();
    let report = json!({ "machine": machine, "tables": tables });
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    let text = serde_json::to_string_pretty(&report)? + "\n";
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// What the figures were measured on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The model of its processor.
    pub cpu: String,
    /// How many of them the system has.
    pub cpus: usize,
    /// The kernel's version, without what its distribution calls it.
    pub kernel: String,
}

impl Machine {
    /// The one we are on.
    #[must_use]
    pub fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or_else(|| "unknown CPU".to_owned(), |(_, name)| name.to_owned());
        Self {
            cpu,
            // Not what this thread may use: it may be bound to one.
            cpus: cpuinfo
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            kernel: version(&read("/proc/sys/kernel/osrelease")).to_owned(),
        }
    }
}

/// The numbers of a kernel's release, such as 6.18.44.
fn version(release: &str) -> &str {
    release
        .trim()
        .split_once('-')
        .map_or(release.trim(), |(version, _)| version)
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cpus, kernel } = self;
        write!(f, "{cpu}, {cpus} CPUs, Linux {kernel}")
    }
}

/// CPU time of a process, all its threads and kernel threads' own included.
///
/// # Errors
///
/// When there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // Exact, unlike the clock ticks of `stat`. A thread that ends meanwhile is left out.
        let Ok(stat) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let field = stat.split_whitespace().next();
        nanoseconds += field.context("empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// A field of `/proc/PID/status` in octets: `VmRSS`, `VmHWM`, `RssAnon`.
///
/// # Errors
///
/// When there is no such process, or no such field.
pub fn memory(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value = value.with_context(|| format!("no {field} of process {pid}"))?;
    let kilobytes = value.trim().trim_end_matches(" kB").parse::<u64>()?;
    Ok(kilobytes * 1024)
}

/// Octets of kernel memory behind the BPF maps that a process holds.
///
/// # Errors
///
/// When there is no such process.
pub fn map_memory(pid: u32) -> Result<u64> {
    let mut maps = std::collections::BTreeMap::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // Others than maps have other fields.
        let info = fs::read_to_string(descriptor?.path()).unwrap_or_default();
        let field = |name: &str| -> Option<u64> {
            let mut lines = info.lines();
            lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        if let (Some(id), Some(octets)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, octets);
        }
    }
    Ok(maps.values().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_and_percentiles() {
        let figures: Vec<f64> = (0..=100).map(f64::from).collect();
        let quartiles = Quartiles::of(figures.clone()).expect("figures");
        assert_eq!(
            (quartiles.p25, quartiles.median, quartiles.p75),
            (25.0, 50.0, 75.0)
        );
        assert_eq!((quartiles.min, quartiles.max), (0.0, 100.0));
        assert_eq!(quartiles.deviation(), 25.0);
        assert_eq!(percentile(&figures, 99.0), Some(99.0));
        assert_eq!(percentile(&figures, 100.0), Some(100.0));
        assert_eq!(Quartiles::of(vec![]), None);
        assert_eq!(percentile(&[], 50.0), None);
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new("Title", &["what", "ms"]).with_unprinted(&["more"]);
        table.row([Cell::text("short"), Cell::figure(1.25, 1), Cell::count(7)]);
        table.row([Cell::text("much longer"), Cell::none(), Cell::count(8)]);
        table.leave_out("the rest: no time");
        let text = table.to_string();
        let want = "| what        |  ms |\n\
                    | ---         | --: |\n\
                    | short       | 1.2 |\n\
                    | much longer |   – |\n\n\
                    left out: the rest: no time\n";
        assert_eq!(text, want);
        let json = table.json();
        assert_eq!(json["rows"][0]["ms"], 1.25);
        assert_eq!(json["rows"][1]["more"], 8);
    }

    #[test]
    fn our_own_process() -> Result<()> {
        let own = std::process::id();
        assert!(cpu_time(own)? > Duration::ZERO);
        assert!(memory(own, "VmRSS")? > 0);
        assert_eq!(map_memory(own)?, 0);
        Ok(())
    }
}
