//! Scrapes taken apart.

use std::collections::BTreeMap;

use super::encode::write;
use super::format::{Format, Translator};
use super::meters::Meters;
use super::sample::Sample;

/// One series: its metric's name and its labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// A scrape in Prometheus' older format.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrape {
    pub(crate) values: BTreeMap<Series, f64>,
    /// The type of each metric that has one.
    pub(crate) types: BTreeMap<String, String>,
    /// The help text of each metric that has one.
    pub(crate) help: BTreeMap<String, String>,
}

impl Scrape {
    /// What the meters show.
    pub(crate) fn of_meters(meters: &Meters) -> Self {
        Self::of(meters, None)
    }

    /// What a client would get.
    pub(super) fn of(meters: &Meters, sample: Option<Sample>) -> Self {
        Self::parse(&text(meters, sample, Format::Text))
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect(line);
                let other = scrape.help.insert(name.to_owned(), help.to_owned());
                assert_eq!(other, None, "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect(line);
                let other = scrape.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(other, None, "{line}");
            } else {
                let (series, value) = series(line);
                let other = scrape.values.insert(series, value);
                assert_eq!(other, None, "{line}");
            }
        }
        scrape
    }

    /// The value of a series, as `name` or `name a=1 b=2` with labels in any order.
    #[track_caller]
    pub(crate) fn get(&self, series: &str) -> f64 {
        self.find(series)
            .unwrap_or_else(|| panic!("no {series} in {:#?}", self.values))
    }

    pub(crate) fn find(&self, series: &str) -> Option<f64> {
        let mut words = series.split(' ');
        let name = words.next().unwrap_or_default().to_owned();
        let label = |word: &str| {
            let (key, value) = word.split_once('=').expect("key=value");
            (key.to_owned(), value.to_owned())
        };
        let labels = words.map(label).collect();
        self.values.get(&Series { name, labels }).copied()
    }

    /// The values of a metric by one of its labels.
    pub(crate) fn by(&self, name: &str, label: &str) -> BTreeMap<&str, f64> {
        let values = self.values.iter().filter(|(series, _)| series.name == name);
        values
            .map(|(series, value)| (&*series.labels[label], *value))
            .collect()
    }
}

pub(super) fn text(meters: &Meters, sample: Option<Sample>, format: Format) -> String {
    let mut text = String::new();
    let sink = |part: String| {
        text += &part;
        Ok(())
    };
    write(meters, sample, Translator::new(format, 100, sink)).expect("the sink takes everything");
    text
}

/// As the format's description has it, white space between tokens excepted.
fn series(line: &str) -> (Series, f64) {
    let end = line.find(['{', ' ']).expect(line);
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, value) = rest.split_once("=\"").expect(line);
            let (value, after) = unquoted(value).expect(line);
            assert_eq!(labels.insert(key.to_owned(), value), None, "{line}");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').expect(line);
    let series = Series {
        name: name.to_owned(),
        labels,
    };
    (series, value.parse().expect(line))
}

/// Up to the closing quotation mark, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => value.push(match chars.next()?.1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            (_, other) => value.push(other),
        }
    }
}
