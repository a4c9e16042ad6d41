//! What users get beside the daemon fits it.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

use super::Meters;
use super::testing::Scrape;
use crate::controller::testing::{Bench, reference};
use crate::webhook::Webhooks;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The metrics that a text mentions.
fn mentioned(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("failover_")).collect()
}

/// All that a scrape of the reference case has.
fn known() -> HashSet<String> {
    let bench = Bench::new(reference());
    let hits = |_| Ok::<_, std::convert::Infallible>(Default::default());
    let Ok(part) = bench.core.metrics(0, hits);
    let sample = super::sample::Sample {
        overview: bench.core.overview(Default::default(), Vec::new()),
        services: part.services,
        servers: part.servers,
        model: part.model,
    };
    let scrape = Scrape::of(
        &Meters::new(Timestamp::UNIX_EPOCH, Webhooks::new()),
        Some(sample),
    );
    let series = scrape.values.into_keys().map(|series| series.name);
    // Those that have no series here, and histograms as a whole.
    series.chain(scrape.types.into_keys()).collect()
}

#[test]
fn only_metrics_that_exist_are_spoken_of() {
    let known = known();
    for (file, least) in [
        ("contrib/grafana/failover.json", 30),
        ("contrib/prometheus/failover.rules.yml", 14),
        ("contrib/prometheus/failover.rules.test.yml", 14),
        ("README.md", 20),
    ] {
        let text = read(file);
        // Of the README, its section.
        let section = text.split_once("\n## Metrics\n");
        let section = section.and_then(|(_, section)| section.split("\n## ").next());
        let text = section.unwrap_or(&text);
        let mentioned = mentioned(text);
        assert!(mentioned.len() >= least, "{file}: {mentioned:?}");
        for name in mentioned {
            assert!(known.contains(name), "{file}: there is no metric {name}");
        }
    }
}

#[test]
fn the_dashboard_is_laid_out_for_any_data_source() {
    let dashboard: Value = serde_json::from_str(&read("contrib/grafana/failover.json")).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let named = |name: &str| variables.iter().find(|variable| variable["name"] == name);
    assert_eq!(named("datasource").unwrap()["type"], "datasource");
    assert_eq!(named("instance").unwrap()["type"], "query");
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = HashSet::new();
    let mut taken = HashSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{title} lies over another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for source in targets.iter().chain([panel]) {
            assert_eq!(source["datasource"]["uid"], "${datasource}", "{title}");
        }
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            // Of all of its metrics, the chosen instances alone.
            let metrics = query.matches("failover_").count();
            let chosen = query.matches("{instance=~\"$instance\"").count();
            assert_eq!(metrics, chosen, "{title}: {query}");
        }
    }
}
