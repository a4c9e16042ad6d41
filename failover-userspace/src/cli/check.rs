//! `failover check`.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::{Check, DEFAULT_CONFIG, print};
use crate::config::{self, Diagnostic};

pub(super) fn check(args: &Check) -> Result<ExitCode> {
    let file = args.file.as_deref().or(args.config.as_deref());
    let file = file.unwrap_or(Path::new(DEFAULT_CONFIG));
    match config::load(file) {
        Ok(loaded) => {
            let mut text = String::new();
            for warning in &loaded.warnings {
                writeln!(text, "{}", shown(warning))?;
            }
            let model = &loaded.model;
            let names: usize = model
                .services
                .iter()
                .map(|service| service.fqdn.len())
                .sum();
            writeln!(
                text,
                "{}: ok ({}, {}, {})",
                file.display(),
                count(model.services.len(), "service"),
                count(names, "name"),
                count(model.servers.len(), "server"),
            )?;
            print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            print(&format!("{errors}\n"))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// A warning, told apart from errors.
fn shown(warning: &Diagnostic) -> Diagnostic {
    Diagnostic {
        message: format!("warning: {}", warning.message),
        ..warning.clone()
    }
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
