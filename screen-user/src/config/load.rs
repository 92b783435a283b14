//! From a file and the command line's overrides to a [`Config`].

use std::path::Path;

use super::{Config, Host, Problem, Problems, Settings, build, document::Document, problem::Place, values::Values};

/// A configuration that can be run.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What it says, key by key.
    pub settings: Settings,
    /// What an operator should mend; table lines that are skipped, above all.
    pub warnings: Vec<Problem>,
    /// What this version does in another way than the configuration (or its default) says.
    pub notices: Vec<String>,
}

impl Loaded {
    /// Warnings and notices, one a line.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        self.warnings.iter().map(|warning| format!("warning: {warning}")).chain(self.notices.iter().cloned()).collect()
    }
}

/// Reads a configuration and every file that it names, all from `host`. `overrides` are `KEY=VALUE` pairs of the command line; the last one counts.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(host: &Host, path: &Path, overrides: &[(String, String)]) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    let whole = |message: String| Problems(vec![Problem { place: Place::file(&name), message, suggestion: None }]);
    let bytes = host.read(path).map_err(|error| whole(format!("can't read the configuration: {error}")))?;
    match String::from_utf8(bytes) {
        Ok(text) => load_from(host, &text, path, overrides),
        Err(error) => {
            let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            let place = Place::line(&name, u32::try_from(line).unwrap_or(u32::MAX));
            Err(Problems(vec![Problem { place, message: "the text is not UTF-8".to_owned(), suggestion: None }]))
        }
    }
}

/// As [`load`], for this host, with the text of the file at hand; `path` is what it is called, and where relative names start from.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load_text(text: &str, path: &Path, overrides: &[(String, String)]) -> Result<Loaded, Problems> {
    load_from(&Host::here(), text, path, overrides)
}

fn load_from(host: &Host, text: &str, path: &Path, overrides: &[(String, String)]) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    let mut document = Document::parse(&name, text);
    for (key, value) in overrides {
        document.set(key, value);
    }
    let mut values = Values::new(&name, document, host);
    let config = build::config(&mut values, path.parent().unwrap_or(Path::new("")));
    let settings = Settings::of(&values);
    let Values { mut problems, mut warnings, notices, .. } = values;
    problems.sort();
    problems.dedup();
    warnings.sort();
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, settings, warnings, notices }),
        _ => Err(Problems(problems)),
    }
}
