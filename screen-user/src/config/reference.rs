//! The reference of all keys, made from their table.

use std::fmt::Write;

use super::keys::{Default, KEYS, Key};

/// A complete configuration file: every key with its default, its meaning above it. Loaded as it is, it changes nothing.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "# mxscreen's configuration: every key with its default. A key that is left out has its default.\n\
         # Durations are written \"250ms\", \"6s\", \"5m\", \"2h\", \"30d\", \"1w\"; actions are \"ignore\" (log only), \"enforce\" (reject every\n\
         # recipient) and \"drop\" (reply and disconnect).\n",
    );
    let mut section = "";
    for key in KEYS {
        let (own, name) = split(key);
        if own != section {
            section = own;
            // Writing to a String can't fail.
            let _ = write!(out, "\n[{own}]\n");
        }
        out.push('\n');
        for line in wrap(key.doc, 110) {
            let _ = writeln!(out, "# {line}");
        }
        let _ = match key.default {
            Default::Value(value) => writeln!(out, "{name} = {value}"),
            Default::Depends(example, rule) => {
                for line in wrap(&format!("Default: {rule}. For example:"), 110) {
                    let _ = writeln!(out, "# {line}");
                }
                writeln!(out, "#{name} = {example}")
            }
        };
    }
    out
}

/// The page `docs/configuration.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         <!-- Made by screen_user::config::markdown from the table of keys; a test compares. -->\n\n\
         `mxscreen run` and `mxscreen check` read `/etc/mxscreen/mxscreen.toml`, or the file of `--config`. The language is\n\
         [TOML](https://toml.io/). A key that is left out has its default, so an empty file is a complete configuration. `--set KEY=VALUE`\n\
         overrides one dotted key: `--set pregreet.wait=4s --set 'ports=[25, 587]'`.\n\n\
         Unknown keys are errors. `mxscreen check` lists everything that is wrong, each with file and line, and exits with 64.\n\n\
         Durations are written `\"250ms\"`, `\"6s\"`, `\"5m\"`, `\"2h\"`, `\"30d\"`, `\"1w\"`. Actions are `\"ignore\"` (log only), `\"enforce\"`\n\
         (reject every recipient) and `\"drop\"` (reply and disconnect). In greetings `$hostname` stands for the key of that name.\n\n\
         What `access.list` holds is described in [access-lists.md](access-lists.md).\n",
    );
    let mut section = None;
    for key in KEYS {
        let (own, name) = split(key);
        if section != Some(own) {
            section = Some(own);
            let title = if own.is_empty() { "General".to_owned() } else { format!("[{own}]") };
            let _ = write!(out, "\n## {title}\n\n| key | takes | default | meaning |\n| --- | --- | --- | --- |\n");
        }
        let default = match key.default {
            Default::Value(value) => format!("`{value}`"),
            Default::Depends(_, rule) => rule.to_owned(),
        };
        let cells = [format!("`{name}`"), key.kind.describe(), default, key.doc.to_owned()];
        let _ = writeln!(out, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    out
}

/// The section and the name within it; what is nested deeper stays in the name.
fn split(key: &Key) -> (&'static str, &'static str) {
    key.path.split_once('.').unwrap_or(("", key.path))
}

/// Lines of at most `width` characters, unless a word is longer.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
