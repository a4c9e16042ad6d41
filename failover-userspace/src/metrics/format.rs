//! The two text formats that Prometheus reads.
//!
//! The library writes [OpenMetrics]. Older clients and `promtool check metrics` want the [older
//! format], which Prometheus itself takes as well; it differs in lines about a metric alone.
//!
//! [OpenMetrics]: https://prometheus.io/docs/specs/om/open_metrics_spec/
//! [older format]: https://prometheus.io/docs/instrumenting/exposition_formats/

use std::fmt;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own, version 0.0.4.
    Text,
}

impl Format {
    /// What a client wants by its `Accept` header: OpenMetrics only if it says so.
    ///
    /// Preferences in it are not weighed: whoever takes OpenMetrics at all can read it.
    pub(super) fn accepted(accept: &str) -> Self {
        let mut types = accept.split(',').filter(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next() == Some("application/openmetrics-text")
                && parts.all(|parameter| !is_zero_weight(parameter))
        });
        types.next().map_or(Self::Text, |_| Self::OpenMetrics)
    }

    /// The `Content-Type`.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// `q=0`: not wanted (RFC 9110 section 12.4.2).
fn is_zero_weight(parameter: &str) -> bool {
    let weight = parameter.strip_prefix("q=");
    weight.and_then(|weight| weight.parse().ok()) == Some(0.0)
}

/// Takes OpenMetrics in pieces of any size and passes it on in the wanted format, in pieces of
/// about the wanted size, each of whole lines.
pub(super) struct Translator<S> {
    format: Format,
    size: usize,
    /// What has been taken.
    text: String,
    /// The last `# HELP` line, which comes before its `# TYPE`.
    help: String,
    sink: S,
}

/// Takes the pieces; says whether more are wanted.
pub(super) trait Sink: FnMut(String) -> fmt::Result {}
impl<F: FnMut(String) -> fmt::Result> Sink for F {}

impl<S: Sink> Translator<S> {
    pub(super) const fn new(format: Format, size: usize, sink: S) -> Self {
        Self {
            format,
            size,
            text: String::new(),
            help: String::new(),
            sink,
        }
    }

    /// Passes on what is left.
    pub(super) fn finish(mut self) -> fmt::Result {
        let rest = std::mem::take(&mut self.text);
        self.pass(rest)
    }

    fn pass(&mut self, lines: String) -> fmt::Result {
        let lines = match self.format {
            Format::OpenMetrics => lines,
            Format::Text => self.translate(&lines),
        };
        if lines.is_empty() {
            return Ok(());
        }
        (self.sink)(lines)
    }

    fn translate(&mut self, lines: &str) -> String {
        let mut text = String::with_capacity(lines.len() + lines.len() / 64);
        for line in lines.split_inclusive('\n') {
            if let Some(help) = line.strip_prefix("# HELP ") {
                help.clone_into(&mut self.help);
            } else if let Some(about) = line.strip_prefix("# TYPE ") {
                self.about(about.trim_end(), &mut text);
            } else if line != "# EOF\n" {
                text.push_str(line);
            }
        }
        text
    }

    /// In the older format HELP and TYPE have the name of the series: with the suffix of a
    /// counter. Info is not known to it.
    fn about(&mut self, about: &str, text: &mut String) {
        let (name, kind) = about.split_once(' ').unwrap_or((about, "untyped"));
        let (suffix, kind) = match kind {
            "counter" => ("_total", kind),
            "info" => ("_info", "gauge"),
            "unknown" => ("", "untyped"),
            _ => ("", kind),
        };
        if let Some((of, help)) = self.help.split_once(' ')
            && of == name
        {
            text.extend(["# HELP ", name, suffix, " ", help]);
        }
        text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
    }
}

impl<S: Sink> fmt::Write for Translator<S> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.push_str(text);
        if self.text.len() < self.size || !text.ends_with('\n') {
            return Ok(());
        }
        let lines = std::mem::replace(&mut self.text, String::with_capacity(self.size));
        self.pass(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    #[test]
    fn the_client_chooses() {
        for (accept, want) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            // Prometheus 2.42.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            // Prometheus 3, protobuf preferred.
            (
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6, application/openmetrics-text; version=1.0.0;q=0.5,text/plain;q=0.2",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text;q=0, text/plain", Format::Text),
            ("application/openmetrics-text; q=0.000", Format::Text),
            ("application/openmetrics-text; q=0.001", Format::OpenMetrics),
            ("application/openmetrics-texts", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), want, "{accept}");
        }
    }

    const OPEN_METRICS: &str = "\
# HELP up Up.
# TYPE up gauge
up{a=\"# TYPE x counter\"} 1
# HELP queries Queries of all.
# TYPE queries counter
queries_total{a=\"1\"} 1
queries_total{a=\"2\"} 2
# HELP build Version.
# TYPE build info
build_info{version=\"1\"} 1
# TYPE took histogram
took_bucket{le=\"+Inf\"} 1
# EOF
";

    const TEXT: &str = "\
# HELP up Up.
# TYPE up gauge
up{a=\"# TYPE x counter\"} 1
# HELP queries_total Queries of all.
# TYPE queries_total counter
queries_total{a=\"1\"} 1
queries_total{a=\"2\"} 2
# HELP build_info Version.
# TYPE build_info gauge
build_info{version=\"1\"} 1
# TYPE took histogram
took_bucket{le=\"+Inf\"} 1
";

    #[test]
    fn formats_differ_in_what_is_about_a_metric() {
        for (format, want) in [(Format::OpenMetrics, OPEN_METRICS), (Format::Text, TEXT)] {
            for piece in [1, 2, 7, 1000] {
                for size in [1, 30, 10_000] {
                    let mut got = String::new();
                    let mut parts = 0;
                    let mut translator = Translator::new(format, size, |part: String| {
                        assert!(part.ends_with('\n'), "{part:?}");
                        parts += 1;
                        got += &part;
                        Ok(())
                    });
                    for piece in OPEN_METRICS.as_bytes().chunks(piece) {
                        let piece = std::str::from_utf8(piece).unwrap();
                        translator.write_str(piece).unwrap();
                    }
                    translator.finish().unwrap();
                    assert_eq!(got, want);
                    assert_eq!(parts > 1, size < 100 && piece < 1000, "{piece} {size}");
                }
            }
        }
    }

    #[test]
    fn who_has_enough_gets_no_more() {
        let mut parts = 0;
        let mut translator = Translator::new(Format::Text, 1, |_| {
            parts += 1;
            Err(fmt::Error)
        });
        assert!(translator.write_str("up 1\n").is_err());
        assert!(translator.write_str("up 2\n").is_err());
        assert_eq!(parts, 2);
    }
}
