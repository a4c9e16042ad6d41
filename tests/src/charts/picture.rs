//! From figures to what is shown: words, numbers and colours, not yet where they stand.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::words::{Figure, number};
use super::{Chart, Row, Scale};
use crate::figures::Machine;

/// Red, green, blue.
pub(super) type Colour = (u8, u8, u8);

/// What stands out.
pub(super) const STRONG: Colour = (0x0b, 0x62, 0xb5);
/// What it stands out from.
pub(super) const PALE: [Colour; 3] = [(0xc9, 0xd1, 0xd9), (0x9a, 0xa5, 0xb1), (0x5f, 0x6b, 0x78)];
/// Bars that are equals; told apart by the colour-blind, too.
pub(super) const EQUAL: [Colour; 4] = [
    STRONG,
    (0xe6, 0x9f, 0x00),
    (0x00, 0x9e, 0x73),
    (0xcc, 0x79, 0xa7),
];

/// All that a chart shows.
#[derive(Debug)]
pub(super) struct Picture {
    pub title: String,
    pub subtitle: String,
    /// Names of the bars; nothing where there is but one.
    pub legend: Vec<(String, Colour)>,
    pub axis: Axis,
    pub sections: Vec<Section>,
    pub footer: String,
}

/// The axis of the figures.
#[derive(Debug)]
pub(super) struct Axis {
    pub name: String,
    pub scale: Scale,
    /// Where bars begin.
    pub from: f64,
    /// From the smallest to the largest that is shown.
    pub range: std::ops::Range<f64>,
}

/// Rows under one heading.
#[derive(Debug)]
pub(super) struct Section {
    pub heading: Option<String>,
    pub rows: Vec<Bars>,
}

/// The bars of one row.
#[derive(Debug)]
pub(super) struct Bars {
    pub label: String,
    pub stands_out: bool,
    pub bars: Vec<Shown>,
}

/// One bar.
#[derive(Debug)]
pub(super) struct Shown {
    pub colour: Colour,
    /// `None`: there is no bar.
    pub figure: Option<Figure>,
    /// The figure to read, or that it was not measured.
    pub text: String,
}

impl Picture {
    /// `None` where there is nothing to show.
    pub(super) fn new(chart: &Chart, rows: &[Row], machine: &Machine) -> Result<Option<Self>> {
        let colours = Colours::new(chart);
        let sections = sections(chart, rows, &colours)?;
        let bars = sections.iter().flat_map(|section| &section.rows);
        let figures = bars.flat_map(|row| row.bars.iter().filter_map(|bar| bar.figure));
        let figures: Vec<Figure> = figures.collect();
        let Some(axis) = Axis::new(chart, &figures) else {
            return Ok(None);
        };
        let has_middle = figures.iter().any(|figure| figure.middle.is_some());
        let middle = if has_middle {
            "Thin lines: the middle half of the measurements. "
        } else {
            ""
        };
        Ok(Some(Self {
            title: chart.title.clone(),
            subtitle: chart.subtitle.clone(),
            legend: match &chart.bars[..] {
                [_] => vec![],
                bars => (0..)
                    .zip(bars)
                    .map(|(at, bar)| (bar.name.clone(), colours.of(at, false)))
                    .collect(),
            },
            axis,
            sections,
            footer: format!("{middle}Measured on: {machine}"),
        }))
    }
}

/// The rows that are shown, under their headings.
fn sections(chart: &Chart, rows: &[Row], colours: &Colours) -> Result<Vec<Section>> {
    let is_shown = |at: &usize| chart.rows.as_ref().is_none_or(|shown| shown.contains(at));
    let mut sections: Vec<Section> = Vec::new();
    for (at, row) in rows.iter().enumerate().filter(|(at, _)| is_shown(at)) {
        for column in chart.columns() {
            ensure!(
                row.contains_key(column),
                "row {at} has no column {column:?}"
            );
        }
        let heading = match &chart.section {
            Some(section) => match section.fill(row) {
                None => continue,
                heading => heading,
            },
            None => None,
        };
        let Some(label) = chart.label.fill(row) else {
            continue;
        };
        let bars = bars(chart, row, label, colours);
        match sections.iter_mut().find(|known| known.heading == heading) {
            Some(section) => section.rows.push(bars),
            None => sections.push(Section {
                heading,
                rows: vec![bars],
            }),
        }
    }
    Ok(sections)
}

fn bars(chart: &Chart, row: &Row, label: String, colours: &Colours) -> Bars {
    let emphasis = chart.emphasis.as_deref();
    let stands_out = emphasis.is_some_and(|emphasis| label.starts_with(emphasis));
    let bar = |(at, bar): (usize, &super::Bar)| {
        let cell = row.get(&bar.column).unwrap_or(&Value::Null);
        let figure = Figure::read(cell);
        Shown {
            colour: colours.of(at, stands_out),
            text: figure.map_or_else(|| "–".to_owned(), |figure| number(figure.value)),
            // A logarithm is of what is more than nothing.
            figure: figure.filter(|figure| chart.scale == Scale::Linear || figure.value > 0.0),
        }
    };
    Bars {
        stands_out,
        bars: chart.bars.iter().enumerate().map(bar).collect(),
        label,
    }
}

/// Which bar has which colour.
enum Colours {
    /// The bar of this number stands out.
    OneBar(usize),
    /// There is one bar in each row; those of some rows stand out.
    SomeRows,
    Equal,
}

impl Colours {
    fn new(chart: &Chart) -> Self {
        let Some(emphasis) = &chart.emphasis else {
            return Self::Equal;
        };
        match chart.bars.iter().position(|bar| bar.name == *emphasis) {
            Some(at) => Self::OneBar(at),
            None if chart.bars.len() == 1 => Self::SomeRows,
            None => Self::Equal,
        }
    }

    fn of(&self, bar: usize, row_stands_out: bool) -> Colour {
        match self {
            Self::OneBar(at) if bar == *at => STRONG,
            Self::OneBar(at) => PALE[(bar - usize::from(bar > *at)) % PALE.len()],
            Self::SomeRows if row_stands_out => STRONG,
            Self::SomeRows => PALE[1],
            Self::Equal => EQUAL[bar % EQUAL.len()],
        }
    }
}

impl Axis {
    /// `None` where there are no figures.
    fn new(chart: &Chart, figures: &[Figure]) -> Option<Self> {
        let ends = figures.iter().flat_map(|figure| {
            let (low, high) = figure.middle.unwrap_or((figure.value, figure.value));
            [low, figure.value, high]
        });
        let largest = ends.clone().max_by(f64::total_cmp)?;
        let smallest = ends.min_by(f64::total_cmp)?;
        let (from, range, name) = match chart.scale {
            Scale::Linear => {
                let range = smallest.min(0.0)..largest.max(0.0);
                (0.0, range, chart.unit.clone())
            }
            Scale::Logarithmic => {
                let values = figures.iter().map(|figure| figure.value);
                let least = values.min_by(f64::total_cmp)?;
                // Half of it, so that the smallest has a bar as well.
                let from = 10_f64.powf((least / 2.0).log10().floor());
                let name = format!("{}, logarithmic scale", chart.unit);
                (from, from..largest, name)
            }
        };
        // Nothing but zeros.
        let range = if range.is_empty() { 0.0..1.0 } else { range };
        Some(Self {
            name,
            scale: chart.scale,
            from,
            range,
        })
    }
}
