//! What the program says, as far as its sources tell.

use std::{fs, path::Path};

use regex::Regex;
use screen_tests::documents::workspace;

/// The sources without their tests.
pub(super) fn sources() -> Vec<(String, String)> {
    fn gather(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = path.file_name().unwrap().to_str().unwrap();
            // What `import-postfix` warns of is told to whoever runs it.
            if path.is_dir() && name != "tests" && name != "import_postfix" {
                gather(&path, found);
            } else if name.ends_with(".rs") && !name.contains("test") && name != "simulation.rs" {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
                found.push((path.display().to_string(), text));
            }
        }
    }
    let mut found = Vec::new();
    gather(&workspace().join("screen-user/src"), &mut found);
    found
}

/// The longest piece of a text that is the same whatever its placeholders stand for.
fn constant(text: &str) -> String {
    // A line of the source that ends with a backslash goes on behind the next one's indentation.
    let text = Regex::new(r"\\\n\s*").unwrap().replace_all(text, "");
    let text = text.replace("\\\"", "\"");
    let pieces = Regex::new(r"\{[^}]*\}").unwrap();
    let longest = pieces.split(&text).max_by_key(|piece| piece.len()).unwrap_or_default();
    longest.trim().trim_start_matches("warning: ").to_owned()
}

/// What is constant of the texts that follow `pattern` in a source.
pub(super) fn texts(pattern: &str, source: &str) -> Vec<String> {
    let texts = Regex::new(&format!(r#"{pattern}"((?:[^"\\]|\\.|\\\n)*)""#)).unwrap();
    let all = texts.captures_iter(source).map(|captures| constant(&captures[1]));
    // Nothing but placeholders and punctuation: what is put together there stands elsewhere.
    all.filter(|text| text.len() >= 4).collect()
}
