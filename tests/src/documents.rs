//! The documents as a reader and a test see them: headings, links, examples.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A page of the documents.
#[derive(Debug)]
pub struct Page {
    /// Its path from the workspace's folder.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// An example in a page: what stands between two fences.
#[derive(Debug, PartialEq, Eq)]
pub struct Example {
    /// The word behind the first fence: `toml`, `sh`, or nothing.
    pub language: String,
    /// The line of the first fence.
    pub line: usize,
    /// The lines in between, without the indentation of the fence.
    pub text: String,
}

/// The folder of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Every document: in the workspace's folder, in `docs` and below it, in the order of their names.
///
/// # Panics
///
/// When they can't be read.
#[must_use]
pub fn pages() -> Vec<Page> {
    let mut paths = Vec::new();
    for folder in ["", "docs", "docs/reference"] {
        let entries = fs::read_dir(workspace().join(folder)).expect("a folder with documents").flatten();
        let names = entries.map(|entry| Path::new(folder).join(entry.file_name()));
        paths.extend(names.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    }
    paths.sort();
    paths.into_iter().map(Page::read).collect()
}

impl Page {
    /// The page at `path`, which is relative to the workspace's folder.
    ///
    /// # Panics
    ///
    /// When it can't be read.
    #[must_use]
    pub fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text = fs::read_to_string(workspace().join(&path)).expect("a page");
        Self { path, text }
    }

    /// Its examples, in order.
    #[must_use]
    pub fn examples(&self) -> Vec<Example> {
        let mut examples = Vec::new();
        let mut lines = self.text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let Some((indentation, language)) = fence(line) else { continue };
            let within = lines.by_ref().map(|(_, line)| line).take_while(|line| fence(line).is_none());
            let text = within.map(|line| line.get(indentation..).unwrap_or_default()).collect::<Vec<_>>().join("\n");
            examples.push(Example { language: language.to_owned(), line: number + 1, text: text + "\n" });
        }
        examples
    }

    /// Its lines that are no examples, with their numbers.
    #[must_use]
    pub fn prose(&self) -> Vec<(usize, &str)> {
        let mut within = false;
        let outside = |(_, line): &(usize, &str)| {
            let is_fence = fence(line).is_some();
            within ^= is_fence;
            !within && !is_fence
        };
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(outside).collect()
    }

    /// What is set as code within its lines, with the numbers of the lines.
    #[must_use]
    pub fn code(&self) -> Vec<(usize, &str)> {
        self.prose().into_iter().flat_map(|(number, line)| spans(line).map(move |span| (number, span))).collect()
    }

    /// Where its links go, with the numbers of their lines.
    #[must_use]
    pub fn links(&self) -> Vec<(usize, &str)> {
        self.prose().into_iter().flat_map(|(number, line)| targets(line).map(move |target| (number, target))).collect()
    }

    /// The names by which a link finds its headings, as GitHub makes them.
    #[must_use]
    pub fn anchors(&self) -> Vec<String> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let headings = self.prose().into_iter().filter_map(|(_, line)| {
            let title = line.trim_start_matches('#');
            (title.len() < line.len()).then(|| title.strip_prefix(' ')).flatten()
        });
        let anchor = |title: &str| {
            let kept = title.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
            let name = kept.collect::<String>().to_lowercase().replace(' ', "-");
            let before = seen.entry(name.clone()).or_default();
            *before += 1;
            if *before == 1 { name } else { format!("{name}-{}", *before - 1) }
        };
        headings.map(anchor).collect()
    }
}

/// What stands between backticks.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Where the links of a line go.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}

/// The indentation of a fence and the word behind it, if the line is one.
fn fence(line: &str) -> Option<(usize, &str)> {
    let rest = line.trim_start();
    rest.strip_prefix("```").map(|language| (line.len() - rest.len(), language.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page { path: "page.md".into(), text: text.to_owned() }
    }

    #[test]
    fn examples_are_found_with_their_language_and_without_their_indentation() {
        let page = page("one\n```toml\na = 1\n\nb = 2\n```\n- item\n\n  ```sh\n  run\n  ```\nend\n");
        let example = |language: &str, line, text: &str| Example { language: language.into(), line, text: text.into() };
        assert_eq!(page.examples(), [example("toml", 2, "a = 1\n\nb = 2\n"), example("sh", 9, "run\n")]);
        assert_eq!(page.prose(), [(1, "one"), (7, "- item"), (8, ""), (12, "end")]);
    }

    #[test]
    fn links_code_and_anchors_are_found() {
        let page =
            page("# Two words, `code`\n[a](b.md#c) and `x y`, [d](#e)\n## Two words, code\n```\n# no heading\n```\n");
        assert_eq!(page.links(), [(2, "b.md#c"), (2, "#e")]);
        assert_eq!(page.code(), [(1, "code"), (2, "x y")]);
        assert_eq!(page.anchors(), ["two-words-code", "two-words-code-1"]);
    }
}
