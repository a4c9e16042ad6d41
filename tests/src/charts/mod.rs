//! Charts of what the benchmark measured, as SVG.
//!
//! A table says with a [`Chart`] which of its columns are shown as bars. The JSON of a part has
//! its charts beside the figures, so that what is there is enough to draw them, right after
//! measuring or later:
//!
//! ```text
//! JSON of a part ──► Picture: words, numbers, ──► svg: where all of it
//!                    colours of the bars          stands, by plotters
//! ```

mod picture;
mod svg;
mod words;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::figures::Machine;
use picture::Picture;
pub use words::Template;

/// The row of a table: its cells by the names of the columns.
pub(crate) type Row = Map<String, Value>;

/// Which columns of a table are shown as horizontal bars, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// The name of its file, without `.svg`.
    pub name: String,
    /// What is measured.
    pub title: String,
    /// How, and which way is better.
    pub subtitle: String,
    /// The heading that rows stand under which have it in common.
    pub section: Option<Template>,
    /// What stands beside the bars of a row. Rows that lack a figure of it, or of the section, are
    /// left out.
    pub label: Template,
    /// The bars of each row.
    pub bars: Vec<Bar>,
    /// Of all bars.
    pub unit: String,
    /// Of all bars.
    pub scale: Scale,
    /// The rows that are shown, by number; `None`: all.
    pub rows: Option<Vec<usize>>,
    /// What stands out: the bars of this name, or else the rows whose label begins with it.
    pub emphasis: Option<String>,
}

/// A column that is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// The column, of numbers or quartiles.
    pub column: String,
    /// What the legend calls it.
    pub name: String,
}

impl Bar {
    /// A column and what the legend calls it.
    #[must_use]
    pub fn new(column: &str, name: &str) -> Self {
        Self {
            column: column.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// How long the bar of a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// In proportion to the figure.
    Linear,
    /// In proportion to its logarithm, from a power of ten below the smallest.
    Logarithmic,
}

impl Chart {
    /// All columns that it takes figures or words from.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &str> {
        let templates = self.section.iter().chain([&self.label]);
        let columns = templates.flat_map(Template::columns);
        columns.chain(self.bars.iter().map(|bar| bar.column.as_str()))
    }

    /// The chart of these rows as SVG; `None` where no row has anything to show.
    fn draw(&self, rows: &[Row], machine: &Machine) -> Result<Option<String>> {
        let picture =
            Picture::new(self, rows, machine).with_context(|| format!("chart {:?}", self.name))?;
        let drawn = picture.as_ref().map(svg::draw).transpose();
        drawn.with_context(|| format!("chart {:?}", self.name))
    }
}

/// What a part's JSON file has, as far as it is drawn.
#[derive(Deserialize)]
struct Report {
    machine: Machine,
    tables: Vec<Tabulated>,
}

#[derive(Deserialize)]
struct Tabulated {
    rows: Vec<Row>,
    #[serde(default)]
    charts: Vec<Chart>,
}

impl Report {
    fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        serde_json::from_str(&text)
            .with_context(|| format!("{}: not figures of the benchmark", file.display()))
    }

    /// The names of all charts, and each as SVG.
    fn draw(&self) -> Result<Vec<(&str, Option<String>)>> {
        let tables = self.tables.iter();
        let charts = tables.flat_map(|table| table.charts.iter().map(move |chart| (table, chart)));
        charts
            .map(|(table, chart)| {
                let drawn = chart.draw(&table.rows, &self.machine)?;
                Ok((chart.name.as_str(), drawn))
            })
            .collect()
    }
}

/// Draws the charts of a part's JSON file into a directory, and returns the files. One that would
/// be empty is removed, as it would show what is measured no more.
///
/// # Errors
///
/// When the JSON is not as [`write_json`](crate::figures::write_json) writes it, or a file cannot
/// be written.
pub fn draw_file(json: &Path, directory: &Path) -> Result<Vec<PathBuf>> {
    let report = Report::read(json)?;
    let drawn = report.draw().with_context(|| json.display().to_string())?;
    let mut files = Vec::new();
    for (name, svg) in drawn {
        let file = directory.join(name).with_extension("svg");
        let done = match svg {
            Some(svg) => {
                let done = fs::write(&file, svg);
                files.push(file.clone());
                done
            }
            None => match fs::remove_file(&file) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                done => done,
            },
        };
        done.with_context(|| file.display().to_string())?;
    }
    Ok(files)
}

/// Draws the charts of all JSON files in a directory into another, and returns the files. What
/// they are drawn from is copied there, so that they can be drawn again.
///
/// # Errors
///
/// When there is no chart, and as [`draw_file`].
pub fn draw_directory(from: &Path, to: &Path) -> Result<Vec<PathBuf>> {
    let figures = json_files(from)?;
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    let is_same = from.canonicalize()? == to.canonicalize()?;
    let mut files = Vec::new();
    for json in figures {
        let drawn = draw_file(&json, to)?;
        if !is_same && !drawn.is_empty() {
            let name = json.file_name().context("a file has a name")?;
            fs::copy(&json, to.join(name)).with_context(|| json.display().to_string())?;
        }
        files.extend(drawn);
    }
    ensure!(
        !files.is_empty(),
        "{}: no figures with charts; `cargo xtask bench` writes them",
        from.display()
    );
    Ok(files)
}

fn json_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let files = entries.map(|entry| Ok(entry?.path()));
    let mut files = files.collect::<Result<Vec<_>>>()?;
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "json")
    });
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
