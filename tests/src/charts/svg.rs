//! Where everything of a picture stands, drawn by plotters.
//!
//! There are no fonts here to measure text with: widths are estimates, on the large side.

use std::ops::Range;

use anyhow::{Result, ensure};
use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext, LabelAreaPosition};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordi32;
use plotters::drawing::{DrawingArea, IntoDrawingArea as _};
use plotters::element::{Circle, PathElement, Rectangle};
use plotters::prelude::IntoLogRange as _;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, FontDesc, FontFamily, FontStyle, RGBColor, TextStyle, WHITE};

use super::Scale;
use super::picture::{Bars, Colour, Picture, Shown};
use super::words::{number, wrap};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// All lengths are in pixels. As wide as a page of a repository.
const WIDTH: i32 = 840;
const MARGIN: i32 = 16;
/// Between bars and text.
const GAP: i32 = 8;
const TITLE: i32 = 18;
const TEXT: i32 = 13;
const SMALL: i32 = 11;
/// From line to line, in parts of the size of the letters.
const LINE: f64 = 1.5;
/// Of a letter, in parts of its size: enough for DejaVu Sans, the widest of the usual fonts.
const LETTER: f64 = 0.62;
const BOLD_LETTER: f64 = 0.70;
/// The height of a bar where a row has one, and where it has several.
const SINGLE_BAR: i32 = 16;
const SEVERAL_BARS: i32 = 12;
/// Before a row, and after the last one of a section.
const BETWEEN: i32 = 8;
/// Below the bars, for the labels and the name of the axis.
const AXIS: i32 = 44;
/// Labels of the axis at most.
const AXIS_LABELS: usize = 8;

const INK: Colour = (0x1f, 0x23, 0x28);
const FAINT_INK: Colour = (0x59, 0x63, 0x6e);
const GRID: Colour = (0xe3, 0xe7, 0xeb);

/// The picture as an SVG document.
pub(super) fn draw(picture: &Picture) -> Result<String> {
    let places = Places::new(picture);
    ensure!(
        places.labels + places.values <= WIDTH / 3 * 2,
        "its labels leave no room for bars"
    );
    let mut document = String::new();
    {
        let size = (WIDTH as u32, places.height as u32);
        let page = SVGBackend::with_string(&mut document, size).into_drawing_area();
        // A page may be dark; what is on it is not.
        page.fill(&WHITE)?;
        words(&page, picture, &places)?;
        let plot = page.margin(
            places.bars.start,
            places.height - places.bars.end - AXIS,
            places.labels,
            places.values,
        );
        let mut builder = ChartBuilder::on(&plot);
        builder.set_label_area_size(LabelAreaPosition::Bottom, AXIS);
        let range = picture.axis.range.clone();
        match picture.axis.scale {
            Scale::Linear => bars(&page, builder, range, picture, &places)?,
            Scale::Logarithmic => bars(&page, builder, range.log_scale(), picture, &places)?,
        }
        page.present()?;
    }
    Ok(document)
}

/// What has to be known before anything can be drawn.
struct Places {
    subtitle: Vec<String>,
    footer: Vec<String>,
    legend: i32,
    /// From top to bottom.
    bars: Range<i32>,
    /// The width left of the bars.
    labels: i32,
    /// The width right of them, for the figure of the longest.
    values: i32,
    height: i32,
}

impl Places {
    fn new(picture: &Picture) -> Self {
        let most = (f64::from(WIDTH - 2 * MARGIN) / (f64::from(SMALL) * LETTER)) as usize;
        let (subtitle, footer) = (wrap(&picture.subtitle, most), wrap(&picture.footer, most));
        let rows = || picture.sections.iter().flat_map(|section| &section.rows);
        let labels = rows().map(|row| width(&row.label, TEXT, row.stands_out));
        let values = rows().flat_map(|row| &row.bars);
        let values = values.map(|bar| width(&bar.text, SMALL, false));

        let legend = MARGIN + line(TITLE) + subtitle.len() as i32 * line(SMALL) + GAP / 2;
        let legend_height = if picture.legend.is_empty() {
            0
        } else {
            line(TEXT)
        };
        let top = legend + legend_height + GAP;
        let sections = picture.sections.iter().map(|section| {
            let rows = section.rows.iter().map(row_height).sum::<i32>();
            rows + section.heading.as_ref().map_or(0, |_| heading_height()) + BETWEEN
        });
        let bottom = top + sections.sum::<i32>();
        Self {
            legend,
            labels: MARGIN + labels.max().unwrap_or(0) + GAP,
            values: GAP + values.max().unwrap_or(0) + MARGIN,
            height: bottom + AXIS + GAP + footer.len() as i32 * line(SMALL) + MARGIN / 2,
            bars: top..bottom,
            subtitle,
            footer,
        }
    }
}

fn line(size: i32) -> i32 {
    (f64::from(size) * LINE).round() as i32
}

fn width(text: &str, size: i32, bold: bool) -> i32 {
    let letter = if bold { BOLD_LETTER } else { LETTER };
    (text.chars().count() as f64 * f64::from(size) * letter).ceil() as i32
}

fn bar_height(row: &Bars) -> i32 {
    match row.bars.len() {
        1 => SINGLE_BAR,
        _ => SEVERAL_BARS,
    }
}

fn row_height(row: &Bars) -> i32 {
    BETWEEN + bar_height(row) * row.bars.len() as i32
}

fn heading_height() -> i32 {
    BETWEEN / 2 + line(TEXT)
}

/// All words around the bars.
fn words(page: &Area<'_>, picture: &Picture, places: &Places) -> Result<()> {
    let mut at = MARGIN + line(TITLE) / 2;
    write(page, &picture.title, (MARGIN, at), &bold(TITLE))?;
    at = MARGIN + line(TITLE) + line(SMALL) / 2;
    for text in &places.subtitle {
        write(page, text, (MARGIN, at), &faint(HPos::Left))?;
        at += line(SMALL);
    }
    let (mut x, y) = (MARGIN, places.legend + line(TEXT) / 2);
    for (name, colour) in &picture.legend {
        let dot = Circle::new((x + 6, y), 6, rgb(*colour).filled());
        page.draw(&dot)?;
        write(page, name, (x + 12 + GAP, y), &text(TEXT, HPos::Left))?;
        x += 12 + GAP + width(name, TEXT, false) + 2 * GAP;
    }
    at = places.bars.end + AXIS + GAP + line(SMALL) / 2;
    for text in &places.footer {
        write(page, text, (MARGIN, at), &faint(HPos::Left))?;
        at += line(SMALL);
    }
    Ok(())
}

/// The axis, and all bars with their labels.
fn bars<'a, X>(
    page: &Area<'a>,
    mut builder: ChartBuilder<'_, '_, SVGBackend<'a>>,
    range: X,
    picture: &Picture,
    places: &Places,
) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    // Downwards, as on the page.
    let (top, bottom) = (places.bars.start, places.bars.end);
    let mut plot = builder.build_cartesian_2d(range, bottom..top)?;
    plot.configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(AXIS_LABELS)
        .x_max_light_lines(1)
        .x_label_formatter(&|figure| number(*figure))
        .x_label_style(faint(HPos::Center).pos(Pos::new(HPos::Center, VPos::Top)))
        .x_desc(&picture.axis.name)
        .axis_desc_style(faint(HPos::Center))
        .bold_line_style(rgb(GRID))
        .light_line_style(rgb(GRID))
        .axis_style(rgb(GRID))
        .draw()?;
    let mut at = top;
    for section in &picture.sections {
        if let Some(heading) = &section.heading {
            // The grid stays behind.
            let strip = [(0, at), (WIDTH, at + heading_height())];
            let strip = Rectangle::new(strip, WHITE.filled());
            page.draw(&strip)?;
            let y = at + heading_height() - line(TEXT) / 2;
            write(page, heading, (MARGIN, y), &bold(TEXT))?;
            at += heading_height();
        }
        let begin = at;
        for row in &section.rows {
            at += BETWEEN;
            let height = bar_height(row);
            let middle = at + height * row.bars.len() as i32 / 2;
            label(page, row, (places.labels - GAP, middle))?;
            for shown in &row.bars {
                bar(page, &plot, shown, picture.axis.from, at..at + height)?;
                at += height;
            }
        }
        // Where the bars begin; after them, so that it is not covered.
        at += BETWEEN;
        let ends = [begin, at].map(|y| plot.backend_coord(&(picture.axis.from, y)));
        let line = PathElement::new(ends.to_vec(), rgb(FAINT_INK));
        page.draw(&line)?;
    }
    Ok(())
}

fn label(page: &Area<'_>, row: &Bars, at: (i32, i32)) -> Result<()> {
    let weight = if row.stands_out {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    };
    let style = styled(TEXT, weight, INK, HPos::Right);
    write(page, &row.label, at, &style)
}

/// A bar, the middle half on it, and its figure.
fn bar<'a, X>(
    page: &Area<'a>,
    plot: &ChartContext<'_, SVGBackend<'a>, Cartesian2d<X, RangedCoordi32>>,
    shown: &Shown,
    from: f64,
    place: Range<i32>,
) -> Result<()>
where
    X: Ranged<ValueType = f64>,
{
    let centre = i32::midpoint(place.start, place.end);
    let x = |figure: f64| plot.backend_coord(&(figure, centre)).0;
    let mut end = x(from);
    if let Some(figure) = shown.figure {
        let (low, high) = (from.min(figure.value), from.max(figure.value));
        let corners = [(x(low), place.start), (x(high), place.end - 1)];
        let bar = Rectangle::new(corners, rgb(shown.colour).filled());
        page.draw(&bar)?;
        end = x(high);
        if let Some((p25, p75)) = figure.middle {
            // Of bars on a logarithmic scale it may begin before they do.
            let p25 = p25.max(plot.x_range().start);
            let middle = vec![(x(p25), centre), (x(p75), centre)];
            let middle = PathElement::new(middle, rgb(INK));
            page.draw(&middle)?;
            end = end.max(x(p75));
        }
    }
    let style = text(SMALL, HPos::Left);
    write(page, &shown.text, (end + GAP / 2, centre), &style)
}

fn write(page: &Area<'_>, text: &str, at: (i32, i32), style: &TextStyle<'_>) -> Result<()> {
    Ok(page.draw_text(text, style, at)?)
}

fn rgb((red, green, blue): Colour) -> RGBColor {
    RGBColor(red, green, blue)
}

fn text(size: i32, horizontal: HPos) -> TextStyle<'static> {
    styled(size, FontStyle::Normal, INK, horizontal)
}

fn faint(horizontal: HPos) -> TextStyle<'static> {
    styled(SMALL, FontStyle::Normal, FAINT_INK, horizontal)
}

fn bold(size: i32) -> TextStyle<'static> {
    styled(size, FontStyle::Bold, INK, HPos::Left)
}

fn styled(size: i32, style: FontStyle, colour: Colour, horizontal: HPos) -> TextStyle<'static> {
    // The backend divides by this to get at the size of the letters.
    let font = FontDesc::new(FontFamily::SansSerif, f64::from(size) * 1.24, style);
    font.color(&rgb(colour))
        .pos(Pos::new(horizontal, VPos::Center))
}
