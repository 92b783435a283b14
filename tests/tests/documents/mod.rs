//! The documents are true where a program can tell: their links lead somewhere, their configurations are right, their commands run, and
//! no line of the log is missing.

mod examples;
mod findings;
mod log_lines;
mod sources;

use std::path::{Component, Path, PathBuf};

use clap::error::ErrorKind;
use screen_tests::documents::{Page, pages, workspace};
use screen_user::operate::cli::Cli;

/// `path` without `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |plain, part| match part {
        Component::ParentDir => plain.parent().unwrap().to_owned(),
        part => plain.join(part),
    })
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut dead = Vec::new();
    let mut followed = 0;
    for page in pages() {
        for (line, target) in page.links() {
            if target.contains("://") {
                continue;
            }
            followed += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => page.path.clone(),
                file => plain(&page.path.with_file_name(file)),
            };
            let there = workspace().join(&path).exists()
                && (anchor.is_empty() || Page::read(&path).anchors().iter().any(|known| known == anchor));
            if !there {
                dead.push(format!("{}:{line}: {target}", page.path.display()));
            }
        }
    }
    assert!(followed > 50, "{followed} links");
    assert_eq!(dead, [""; 0]);
}

#[test]
fn the_readme_names_every_page() {
    let readme = Page::read("README.md");
    let linked: Vec<PathBuf> =
        readme.links().into_iter().map(|(_, target)| target.split('#').next().unwrap().into()).collect();
    let missing: Vec<PathBuf> = pages()
        .into_iter()
        .map(|page| page.path)
        .filter(|path| path.as_path() != Path::new("README.md") && !linked.contains(path))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// What stands for something else in a command, and something that it may stand for.
const STANDS_FOR: [(&str, &str); 7] = [
    ("ADDRESS|CIDR", "192.0.2.1"),
    ("ADDRESS", "192.0.2.1"),
    ("NETWORK", "192.0.2.0/24"),
    ("DURATION", "1h"),
    ("SHELL", "bash"),
    ("KEY=VALUE", "pregreet.wait=2s"),
    ("KEY", "pregreet.wait"),
];

/// The words of a command up to what the shell makes of it.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for letter in command.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, '|' | '>' | '<' | ';' | '#' | '…' | '&') if words.last().is_some_and(String::is_empty) => break,
            (None, ' ') => words.push(String::new()),
            _ => words.last_mut().unwrap().push(letter),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What the command line has against a command of a document, if anything: what is left out there is none of it.
fn complaint(command: &str) -> Option<String> {
    let known = |word: String| {
        let found = STANDS_FOR.into_iter().find(|(name, _)| *name == word);
        found.map_or(word, |(_, value)| value.to_owned())
    };
    let error = Cli::read(words(command).into_iter().map(known).map(Into::into)).err()?;
    match error.kind() {
        ErrorKind::InvalidSubcommand
        | ErrorKind::UnknownArgument
        | ErrorKind::InvalidValue
        | ErrorKind::ValueValidation
        | ErrorKind::ArgumentConflict
        | ErrorKind::TooManyValues => Some(error.to_string()),
        _ => None,
    }
}

#[test]
fn commands_in_the_documents_are_known() {
    let mut wrong = Vec::new();
    let mut read = 0;
    for page in pages() {
        let in_lines = page.code().into_iter().map(|(line, code)| (line, code.to_owned()));
        let examples = page.examples();
        let of_examples =
            examples.iter().filter(|example| example.language != "text").flat_map(|example| {
                // A command has a prompt in a console, where what stands without one is what a command prints.
                let typed = |text: &str| example.language != "console" || text.starts_with(['$', '#']);
                example.text.lines().enumerate().filter(move |(_, text)| typed(text)).map(|(index, text)| {
                    (example.line + index + 1, text.trim_start_matches(['$', '#', ' ']).to_owned())
                })
            });
        for (line, command) in in_lines.chain(of_examples).filter(|(_, command)| command.starts_with("mxscreen ")) {
            read += 1;
            wrong.extend(complaint(&command).map(|why| format!("{}:{line}: {command}: {why}", page.path.display())));
        }
    }
    assert!(read > 50, "{read} commands");
    assert_eq!(wrong, [""; 0]);
    assert!(
        complaint("mxscreen stauts").is_some() && complaint("mxscreen deny 192.0.2.1/24").is_some(),
        "it complains"
    );
}
