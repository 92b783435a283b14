//! The manual page mxscreen(8), made from the command line's description.

use clap::{Arg, Command};
use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, italic, roman},
};

/// What the exit statuses mean.
const STATUSES: [(&str, &str); 5] = [
    ("0", "Done."),
    ("64", "The command line or the configuration is wrong: every problem is listed, nothing was started or changed."),
    ("69", "Something that is needed is not there: the message says what."),
    ("70", "An error of the program itself: please report it."),
    ("77", "A privilege is missing: the message says which."),
];
/// Where things stand.
const FILES: [(&str, &str); 4] = [
    ("/etc/mxscreen/mxscreen.toml", "The configuration: mxscreen.toml(5)."),
    ("/run/mxscreen/control.sock", "The control socket of the running gate."),
    ("/var/lib/mxscreen", "What the gate has learnt of clients."),
    ("/sys/fs/bpf/mxscreen", "Maps and links of the kernel's programs."),
];

/// The page, in the language of man(7).
pub(super) fn command(description: Command) -> String {
    let mut description = description.name("mxscreen");
    description.build();
    let man = Man::new(description.clone()).section("8").manual("mxscreen");
    let mut head = Vec::new();
    // Writing to memory can't fail.
    let _ = man.render_title(&mut head).and_then(|()| man.render_name_section(&mut head));
    let mut page = Roff::new();
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("mxscreen"), roman(" "), italic("COMMAND"), roman(" ["), italic("OPTIONS"), roman("]")]);
    page.control("SH", ["OPTIONS"]);
    options(&mut page, description.get_arguments());
    page.control("SH", ["COMMANDS"]);
    for command in description.get_subcommands().filter(|command| command.get_name() != "help") {
        subcommand(&mut page, command, "");
    }
    listed(&mut page, "EXIT STATUS", &STATUSES);
    listed(&mut page, "FILES", &FILES);
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("mxscreen.toml"), roman("(5)")]);
    String::from_utf8_lossy(&head).into_owned() + &page.render()
}

/// A command with its arguments, or those below it with theirs.
fn subcommand(page: &mut Roff, command: &Command, above: &str) {
    if command.is_hide_set() {
        return;
    }
    let name = format!("{above}{}", command.get_name());
    let below: Vec<&Command> = command.get_subcommands().filter(|command| command.get_name() != "help").collect();
    if !below.is_empty() {
        below.into_iter().for_each(|command| subcommand(page, command, &format!("{name} ")));
        return;
    }
    let mut title = name;
    for argument in command.get_positionals() {
        let value = argument
            .get_value_names()
            .into_iter()
            .flatten()
            .map(clap::builder::Str::as_str)
            .collect::<Vec<_>>()
            .join(" ");
        title.push_str(&if argument.is_required_set() { format!(" {value}") } else { format!(" [{value}]") });
    }
    page.control("SS", [title.as_str()]);
    page.text([roman(format!("{}.", command.get_about().map(ToString::to_string).unwrap_or_default()))]);
    // What every command takes stands above.
    options(page, command.get_arguments().filter(|argument| !argument.is_global_set()));
}

fn options<'a>(page: &mut Roff, arguments: impl Iterator<Item = &'a Arg>) {
    for argument in arguments.filter(|argument| !argument.is_hide_set() && !is_usual(argument)) {
        let values = argument.get_value_names().into_iter().flatten().map(clap::builder::Str::as_str);
        let values: Vec<&str> = values.filter(|_| argument.get_action().takes_values()).collect();
        let mut head = Vec::<Inline>::new();
        if let Some(long) = argument.get_long() {
            head.push(bold(format!("--{long}")));
            head.push(roman(if values.is_empty() { "" } else { " " }));
        }
        head.push(italic(values.join(" ")));
        page.control("TP", []);
        page.text(head);
        let mut text =
            format!("{}.", argument.get_help().map(ToString::to_string).unwrap_or_default().trim_end_matches('.'));
        let words: Vec<String> = argument
            .get_possible_values()
            .iter()
            .filter(|_| argument.get_action().takes_values())
            .map(|value| value.get_name().to_owned())
            .collect();
        if !words.is_empty() {
            text.push_str(&format!(" One of: {}.", words.join(", ")));
        }
        let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if argument.get_action().takes_values() && !defaults.concat().is_empty() {
            text.push_str(&format!(" Default: {}", defaults.join(", ")));
        }
        page.text([roman(text)]);
    }
}

/// What every program has, and no page need explain again and again.
fn is_usual(argument: &Arg) -> bool {
    ["help", "version"].contains(&argument.get_id().as_str())
}

fn listed(page: &mut Roff, title: &str, entries: &[(&str, &str)]) {
    page.control("SH", [title]);
    for (name, text) in entries {
        page.control("TP", []);
        page.text([bold(*name)]);
        page.text([roman(*text)]);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::cli::Cli, *};

    #[test]
    fn the_page_has_every_command_with_its_options() {
        let page = command(Cli::description());
        for part in [".TH mxscreen 8", ".SS run", ".SS \"blocklist import", "\\-\\-detach", "\\-\\-for", "EXIT STATUS"]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("screener\"") && !page.contains("\\-\\-heir"), "{page}");
    }
}
