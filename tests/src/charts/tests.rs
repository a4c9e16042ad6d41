//! Charts are drawn from tables, and read back.

use std::fs;

use anyhow::{Context as _, Result};
use roxmltree::{Document, Node};
use tempfile::TempDir;

use super::picture::{Colour, EQUAL, PALE, STRONG};
use super::words::{number, wrap};
use super::{Bar, Chart, Row, Scale, Template, draw_directory, draw_file};
use crate::figures::{Cell, Machine, Quartiles, Table, write_json};

/// A chart of the columns `who`, `how`, `a` and `b`.
fn chart() -> Chart {
    Chart {
        name: "chart".to_owned(),
        title: "What is <measured> & drawn".to_owned(),
        subtitle: "\"how\", and which way is better".to_owned(),
        section: None,
        label: "{who}".into(),
        bars: vec![Bar::new("a", "first"), Bar::new("b", "second")],
        unit: "µs".to_owned(),
        scale: Scale::Linear,
        rows: None,
        emphasis: None,
    }
}

fn only_a() -> Chart {
    Chart {
        bars: vec![Bar::new("a", "first")],
        ..chart()
    }
}

fn table(chart: Chart, rows: Vec<[Cell; 4]>) -> Table {
    let mut table = Table::new("Table", &["who", "how", "a"]).with_unprinted(&["b"]);
    table.chart(chart);
    for row in rows {
        table.row(row);
    }
    table
}

/// Rows without quartiles.
fn rows<const N: usize>(rows: [(&str, &str, f64, f64); N]) -> Vec<[Cell; 4]> {
    let rows = rows.into_iter();
    rows.map(|(who, how, a, b)| {
        let (who, how) = (Cell::text(who), Cell::text(how));
        [who, how, Cell::figure(a, 0), Cell::figure(b, 0)]
    })
    .collect()
}

fn machine() -> Machine {
    Machine {
        cpu: "A <fast> processor".to_owned(),
        cpus: 2,
        kernel: "6.18".to_owned(),
    }
}

/// The document of a table's chart, by way of its JSON file.
fn drawn(chart: Chart, rows: Vec<[Cell; 4]>) -> Result<String> {
    let directory = TempDir::new()?;
    let json = directory.path().join("part.json");
    write_json(&json, &machine(), &[table(chart, rows)])?;
    let files = draw_file(&json, directory.path())?;
    let [file] = &files[..] else {
        anyhow::bail!("drawn: {files:?}")
    };
    assert_eq!(*file, directory.path().join("chart.svg"));
    Ok(fs::read_to_string(file)?)
}

fn number_of(node: &Node<'_, '_>, attribute: &str) -> f64 {
    let value = node.attribute(attribute).expect("an attribute");
    value.parse().expect("a number")
}

/// Left and right end of all bars of a colour, downwards.
fn bars(document: &Document<'_>, (red, green, blue): Colour) -> Vec<(f64, f64)> {
    let fill = format!("#{red:02X}{green:02X}{blue:02X}");
    let all = document
        .descendants()
        .filter(|node| node.has_tag_name("rect"));
    all.filter(|node| node.attribute("fill") == Some(&fill))
        .map(|node| {
            let left = number_of(&node, "x");
            (left, left + number_of(&node, "width"))
        })
        .collect()
}

fn lengths(document: &Document<'_>, colour: Colour) -> Vec<f64> {
    let bars = bars(document, colour);
    bars.iter().map(|(left, right)| right - left).collect()
}

fn texts(document: &Document<'_>) -> Vec<String> {
    let all = document
        .descendants()
        .filter(|node| node.has_tag_name("text"));
    all.map(|node| node.text().unwrap_or_default().trim().to_owned())
        .collect()
}

#[track_caller]
fn assert_near(lengths: &[f64], want: &[f64]) {
    assert_eq!(lengths.len(), want.len(), "{lengths:?}");
    // Ends are whole pixels.
    let near = |(length, want): (&f64, &f64)| (length - want).abs() <= 1.0;
    assert!(
        lengths.iter().zip(want).all(near),
        "{lengths:?}, not {want:?}"
    );
}

#[test]
fn bars_are_in_proportion() -> Result<()> {
    let rows = rows([
        ("x", "", 100.0, 400.0),
        ("y", "", 50.0, 20.0),
        ("z", "", 0.0, 200.0),
    ]);
    let svg = drawn(chart(), rows)?;
    let document = Document::parse(&svg)?;
    let (first, second) = (lengths(&document, EQUAL[0]), lengths(&document, EQUAL[1]));
    let longest = second[0];
    assert!(longest > 400.0, "{longest}");
    assert_near(&first, &[longest / 4.0, longest / 8.0, 0.0]);
    assert_near(&second, &[longest, longest / 20.0, longest / 2.0]);
    Ok(())
}

#[test]
fn each_power_of_ten_adds_as_much() -> Result<()> {
    let logarithmic = Chart {
        scale: Scale::Logarithmic,
        ..only_a()
    };
    let rows = rows([
        ("x", "", 10.0, 0.0),
        ("y", "", 100.0, 0.0),
        ("z", "", 1_000.0, 0.0),
        ("nothing has no logarithm", "", 0.0, 0.0),
    ]);
    let svg = drawn(logarithmic, rows)?;
    let document = Document::parse(&svg)?;
    let lengths = lengths(&document, EQUAL[0]);
    let longest = lengths[2];
    assert_near(&lengths, &[longest / 3.0, longest * 2.0 / 3.0, longest]);
    let texts = texts(&document);
    assert!(
        texts.contains(&"µs, logarithmic scale".to_owned()),
        "{texts:?}"
    );
    assert!(
        texts.contains(&"0".to_owned()),
        "no bar, but a figure: {texts:?}"
    );
    Ok(())
}

#[test]
fn less_than_nothing_goes_the_other_way() -> Result<()> {
    let svg = drawn(
        only_a(),
        rows([("x", "", -10.0, 0.0), ("y", "", 30.0, 0.0)]),
    )?;
    let document = Document::parse(&svg)?;
    let [less, more] = bars(&document, EQUAL[0])[..] else {
        anyhow::bail!("two bars")
    };
    assert_eq!(less.1, more.0, "where both begin");
    assert_near(&[less.1 - less.0], &[(more.1 - more.0) / 3.0]);
    assert!(texts(&document).contains(&"−10".to_owned()));
    Ok(())
}

#[test]
fn all_words_are_there() -> Result<()> {
    let chart = Chart {
        section: Some("asked <by> {how}".into()),
        label: "{who} & friends".into(),
        ..chart()
    };
    let rows = rows([
        ("<x>", "one", 1_234_567.0, 5.25),
        ("\"y\"", "two", 2.0, 3.0),
        ("'z'", "one", 4.0, 6.0),
    ]);
    let svg = drawn(chart, rows)?;
    let texts = texts(&Document::parse(&svg)?);
    let want = [
        "What is <measured> & drawn",
        "\"how\", and which way is better",
        "first",
        "second",
        "asked <by> one",
        "<x> & friends",
        "1\u{a0}234\u{a0}567",
        "5.25",
        "'z' & friends",
        "asked <by> two",
        "\"y\" & friends",
        "µs",
        "Measured on: A <fast> processor, 2 CPUs, Linux 6.18",
    ];
    for want in want {
        let found = texts.iter().filter(|text| *text == want).count();
        assert_eq!(found, 1, "{want:?} in {texts:?}");
    }
    let at = |text| texts.iter().position(|found| found == text);
    assert!(
        at("'z' & friends") < at("asked <by> two"),
        "rows of one section stand together: {texts:?}"
    );
    Ok(())
}

#[test]
fn what_is_not_there_is_not_drawn() -> Result<()> {
    let chart = Chart {
        section: Some("{how}".into()),
        rows: Some(vec![0, 1, 2]),
        ..chart()
    };
    let mut rows = rows([
        ("x", "", 1.0, 1.0),
        ("y", "", 1.0, 1.0),
        ("z", "", 1.0, 1.0),
        ("not to be shown", "", 1.0, 1.0),
    ]);
    rows[0][2] = Cell::none();
    // No section: the row is none of the chart's.
    rows[1][1] = Cell::none();
    let svg = drawn(chart, rows)?;
    let document = Document::parse(&svg)?;
    let texts = texts(&document);
    assert_eq!(texts.iter().filter(|text| *text == "–").count(), 1);
    assert!(
        !texts
            .iter()
            .any(|text| text == "y" || text == "not to be shown")
    );
    assert_eq!(bars(&document, EQUAL[0]).len(), 1);
    assert_eq!(bars(&document, EQUAL[1]).len(), 2);
    Ok(())
}

#[test]
fn what_is_ours_stands_out() -> Result<()> {
    let emphasis = |chart, ours: &str| Chart {
        emphasis: Some(ours.to_owned()),
        ..chart
    };
    let rows = rows([("ours (a)", "", 3.0, 4.0), ("theirs", "", 1.0, 2.0)]);
    let is_bold = |document: &Document<'_>, text: &str| {
        let mut nodes = document.descendants();
        let node = nodes.find(|node| node.text().is_some_and(|found| found.trim() == text));
        node.is_some_and(|node| node.attribute("font-weight") == Some("bold"))
    };

    let svg = drawn(emphasis(only_a(), "ours"), rows.clone())?;
    let document = Document::parse(&svg)?;
    let (ours, theirs) = (lengths(&document, STRONG), lengths(&document, PALE[1]));
    assert_near(&theirs, &[ours[0] / 3.0]);
    assert!(is_bold(&document, "ours (a)") && !is_bold(&document, "theirs"));

    let svg = drawn(emphasis(chart(), "second"), rows)?;
    let document = Document::parse(&svg)?;
    let (first, second) = (lengths(&document, PALE[0]), lengths(&document, STRONG));
    let longest = second[0];
    assert_near(&first, &[longest * 3.0 / 4.0, longest / 4.0]);
    assert_near(&second, &[longest, longest / 2.0]);
    Ok(())
}

/// A text's place as it is estimated: left, right, top, bottom.
fn text_box(node: &Node<'_, '_>) -> [f64; 4] {
    let text = node.text().unwrap_or_default().trim();
    let size = number_of(node, "font-size");
    let width = text.chars().count() as f64 * size * 0.6;
    let (x, y) = (number_of(node, "x"), number_of(node, "y"));
    let left = match node.attribute("text-anchor") {
        Some("start") => x,
        Some("middle") => x - width / 2.0,
        _ => x - width,
    };
    [left, left + width, y - size / 2.0, y + size / 2.0]
}

#[test]
fn words_have_room() -> Result<()> {
    let middle_half = |median: f64| {
        let figures = [0.2, 0.6, 1.0, 1.4, 9.0].map(|part| median * part);
        Cell::spread(Quartiles::of(figures.to_vec()), 0)
    };
    let row = |who: &str, how: &str, median: f64| {
        let figures = [middle_half(median), Cell::figure(median, 0)];
        let [a, b] = figures;
        [Cell::text(who), Cell::text(how), a, b]
    };
    let words = "many words that are to be read about how this was measured, and with what ";
    for scale in [Scale::Linear, Scale::Logarithmic] {
        let chart = Chart {
            subtitle: words.repeat(5).trim().to_owned(),
            section: Some("that are asked by {how}".into()),
            scale,
            emphasis: Some("a name".to_owned()),
            ..chart()
        };
        let rows = vec![
            row(
                "a name as long as names in tables are",
                "somebody",
                1_234_567.0,
            ),
            row("short", "somebody", 1.5),
            row("another", "somebody else", 1_234_566.0),
        ];
        let svg = drawn(chart, rows)?;
        let document = Document::parse(&svg)?;
        let root = document.root_element();
        let (width, height) = (number_of(&root, "width"), number_of(&root, "height"));
        let all = document
            .descendants()
            .filter(|node| node.has_tag_name("text"));
        let boxes: Vec<_> = all.map(|node| (node.text(), text_box(&node))).collect();
        assert!(boxes.len() > 15, "{boxes:?}");
        for (at, (text, [left, right, top, bottom])) in boxes.iter().enumerate() {
            let is_inside = *left >= 0.0 && *right <= width && *top >= 0.0 && *bottom <= height;
            assert!(
                is_inside,
                "{text:?} is outside: {left} to {right}, {top} to {bottom}"
            );
            for (other, [l, r, t, b]) in &boxes[at + 1..] {
                let is_apart = r <= left || l >= right || b <= top || t >= bottom;
                assert!(is_apart, "{text:?} and {other:?}");
            }
        }
        let background = document
            .descendants()
            .find(|node| node.has_tag_name("rect"));
        let background = background.context("no background")?;
        assert_eq!(background.attribute("fill"), Some("#FFFFFF"));
        assert!(number_of(&background, "width") >= width - 1.0);
        assert!(number_of(&background, "height") >= height - 1.0);
    }
    Ok(())
}

#[test]
fn labels_leave_room_for_bars() {
    let long = "a label that is much longer than it is good ".repeat(2);
    let error = drawn(chart(), rows([(&long, "", 1.0, 2.0)])).expect_err("too long");
    let error = format!("{error:#}");
    assert!(error.contains("chart \"chart\": its labels"), "{error}");
}

#[test]
fn templates() {
    let row: Row = [
        ("who", "somebody".into()),
        ("q/s", 20_000.into()),
        ("nothing", serde_json::Value::Null),
    ]
    .map(|(column, value)| (column.to_owned(), value))
    .into_iter()
    .collect();
    let cases = [
        ("no column", Some("no column"), &[][..]),
        ("{who}", Some("somebody"), &["who"]),
        (
            "by {who}, {q/s} a second",
            Some("by somebody, 20\u{a0}000 a second"),
            &["who", "q/s"],
        ),
        ("by {nothing}", None, &["nothing"]),
        ("by {unknown}", None, &["unknown"]),
        ("} is text", Some("} is text"), &[]),
    ];
    for (text, want, columns) in cases {
        let template = Template::from(text);
        assert_eq!(template.fill(&row).as_deref(), want, "{text}");
        assert_eq!(template.columns().collect::<Vec<_>>(), columns, "{text}");
    }
}

#[test]
fn numbers() {
    let cases = [
        (0.0, "0"),
        (0.1, "0.1"),
        (0.1036, "0.104"),
        (0.0004, "0"),
        (1.25, "1.25"),
        (9.128, "9.13"),
        (-12.34, "−12.3"),
        (93.04, "93"),
        (871.4, "871"),
        (1_364.2, "1\u{a0}364"),
        (1_156_502.0, "1\u{a0}156\u{a0}502"),
    ];
    for (figure, want) in cases {
        assert_eq!(number(figure), want);
    }
}

#[test]
fn lines() {
    assert_eq!(wrap("a bc def", 4), ["a bc", "def"]);
    assert_eq!(wrap("longer than that", 4), ["longer", "than", "that"]);
    assert_eq!(wrap("3\u{a0}ms it is", 5), ["3\u{a0}ms", "it is"]);
}

#[test]
fn drawn_again_from_what_was_copied() -> Result<()> {
    let (from, to) = (TempDir::new()?, TempDir::new()?);
    let (json, svg) = ("part.json", "chart.svg");
    let empty = draw_directory(from.path(), to.path()).expect_err("nothing to draw");
    assert!(
        empty.to_string().contains("no figures with charts"),
        "{empty}"
    );

    let rows = rows([("x", "", 1.0, 2.0)]);
    let tables = [table(chart(), rows)];
    write_json(&from.path().join(json), &machine(), &tables)?;
    write_json(&from.path().join("none.json"), &machine(), &[])?;
    let drawn = draw_directory(from.path(), to.path())?;
    assert_eq!(drawn, [to.path().join(svg)]);
    let first = fs::read(to.path().join(svg))?;
    assert!(!to.path().join("none.json").exists(), "it has no chart");

    fs::remove_file(to.path().join(svg))?;
    draw_directory(to.path(), to.path())?;
    assert_eq!(fs::read(to.path().join(svg))?, first);

    // What measures nothing any more shows nothing any more.
    let nothing = [table(chart(), vec![])];
    write_json(&to.path().join(json), &machine(), &nothing)?;
    assert!(draw_file(&to.path().join(json), to.path())?.is_empty());
    assert!(!to.path().join(svg).exists());
    Ok(())
}

#[test]
fn other_json_is_refused() -> Result<()> {
    let directory = TempDir::new()?;
    let json = directory.path().join("other.json");
    fs::write(&json, "[]")?;
    let error = draw_file(&json, directory.path()).expect_err("no figures");
    assert!(
        error.to_string().contains("other.json: not figures"),
        "{error}"
    );
    Ok(())
}

#[test]
#[should_panic(expected = "no column \"c\"")]
fn a_chart_is_of_columns_that_there_are() {
    let bars = vec![Bar::new("c", "third")];
    table(Chart { bars, ..chart() }, vec![]);
}

/// `docs/figures`: what its JSON gives, and what the README shows.
#[test]
fn charts_of_the_documentation() -> Result<()> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("");
    let kept = root.join("docs/figures");
    let readme = fs::read_to_string(root.join("README.md"))?;
    let again = TempDir::new()?;
    let drawn = draw_directory(&kept, again.path())?;
    for file in &drawn {
        let name = file.file_name().context("a name")?;
        let want = fs::read_to_string(file)?;
        let found = fs::read_to_string(kept.join(name)).with_context(|| format!("{name:?}"))?;
        assert!(
            found == want,
            "{name:?} is not as its figures: `cargo xtask bench --charts-from docs/figures`"
        );
        let link = format!("(docs/figures/{})", name.display());
        assert!(readme.contains(&link), "README.md does not show {name:?}");
    }
    let svg = fs::read_dir(&kept)?.filter_map(|entry| Some(entry.ok()?.path()));
    let svg = svg.filter(|file| file.extension().is_some_and(|extension| extension == "svg"));
    assert_eq!(svg.count(), drawn.len(), "charts without their figures");
    Ok(())
}
