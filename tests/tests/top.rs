//! `mxscreen top` in a real terminal: who comes is seen, explained and denied, and the terminal is given back.

use std::process::Command;

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    privilege::mxscreen,
    smtp::Client,
    tmux::Terminal,
};

fn command(settings: &Settings) -> String {
    format!("{} top --interval 200ms --control {}; echo ended $?", mxscreen().display(), settings.control().display())
}

#[test]
fn a_client_is_seen_explained_and_denied() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net).text("pregreet.wait", "6s"));
    let terminal = Terminal::start(net.directory(), 80, 24);
    terminal.line(&command(gate.settings()));
    terminal.wait("the gate's name", |screen| screen.contains("on mx.example.test") && screen.contains("CLIENT"));

    let address = "198.18.1.7".parse().unwrap();
    let client = Client::connect(net.client(), address);
    terminal.wait("the client", |screen| screen.contains("> 198.18.1.7"));
    terminal.keys(&["Enter"]);
    terminal.wait("what is known of it", |screen| screen.contains("Explain") && screen.contains("is screened"));
    terminal.keys(&["Escape"]);
    terminal.wait("the table again", |screen| !screen.contains("Explain:"));

    terminal.keys(&["d"]);
    terminal.wait("a question", |screen| screen.contains("Deny 198.18.1.7/32 for an hour?"));
    assert!(gate.ask(&["list", "deny"]).as_array().is_some_and(Vec::is_empty), "nothing is done without a yes");
    terminal.keys(&["y"]);
    terminal.wait("what the gate says", |screen| screen.contains("198.18.1.7/32 is denied for 3600 s"));
    gate.wait_denied(address);
    drop(client);
    terminal.keys(&["2"]);
    terminal.wait("its network", |screen| screen.contains("> 198.18.1.0/24"));

    terminal.resize(39, 24);
    terminal.wait("that this is too small", |screen| screen.contains("too small"));
    terminal.resize(120, 30);
    terminal.wait("more columns", |screen| screen.contains("LAST"));
    terminal.keys(&["q"]);
    terminal.wait("the shell", |screen| screen.contains("ended 0"));
}

#[test]
fn a_gate_that_goes_away_and_comes_back_is_waited_for() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let gate = Gate::start(&net, Settings::in_place(&net));
    let settings = gate.settings().clone();
    let terminal = Terminal::start(net.directory(), 80, 24);
    terminal.line(&command(&settings));
    terminal.wait("the gate's name", |screen| screen.contains("on mx.example.test"));
    gate.stop();
    terminal.wait("that it is gone", |screen| screen.contains("NO ANSWER") && screen.contains("on mx.example.test"));
    let _gate = Gate::start(&net, settings);
    terminal.wait("that it is back", |screen| screen.contains("on mx.example.test") && !screen.contains("NO ANSWER"));
}

/// A line that has a shell start `mxscreen top`, by `starter` if there is one, and say how that ended. Its process is noted for [`pid`].
fn noted(net: &Net, settings: &Settings, starter: &str, end: &str) -> String {
    let start = format!("exec {starter} {} top --control {}", mxscreen().display(), settings.control().display());
    format!("sh -c 'echo $$ > {}/pid; {start}'; echo ended {end} $?", net.directory().display())
}

fn pid(net: &Net) -> String {
    std::fs::read_to_string(net.directory().join("pid")).unwrap().trim().to_owned()
}

#[track_caller]
fn assert_given_back(terminal: &Terminal, end: &str) {
    assert!(!terminal.is_taken(), "{end}");
    terminal.line("clear; stty -a | grep -o -w -e '-*icanon' -e '-*echo'; echo stat''ed");
    let screen = terminal.wait("the terminal's modes", |screen| screen.contains("stated"));
    assert!(screen.contains("icanon\n") && screen.contains("echo\n"), "{end}: {screen}");
    assert!(!screen.contains("-icanon") && !screen.contains("-echo"), "{end}: {screen}");
    terminal.line("clear");
    terminal.wait("nothing", |screen| !screen.contains("stated"));
}

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    let Some(net) = Net::new() else { return };
    let gate = Gate::start(&net, Settings::in_place(&net));
    let terminal = Terminal::start(net.directory(), 80, 24);
    for end in ["q", "C-c", "TERM", "INT", "HUP"] {
        terminal.line(&noted(&net, gate.settings(), "", end));
        terminal.wait("the gate's name", |screen| screen.contains("on mx.example.test"));
        assert!(terminal.is_taken());
        if matches!(end, "q" | "C-c") {
            terminal.keys(&[end]);
        } else {
            assert!(Command::new("kill").args(["-s", end, &pid(&net)]).status().unwrap().success());
        }
        terminal.wait("the shell", |screen| screen.contains(&format!("ended {end} 0")));
        assert_given_back(&terminal, end);
    }
}

#[test]
fn the_terminal_is_given_back_when_it_dies_of_a_panic() {
    let Some(net) = Net::new() else { return };
    let gate = Gate::start(&net, Settings::in_place(&net).text("pregreet.wait", "60s"));
    let _client = Client::connect(net.client(), "198.18.1.7".parse().unwrap());
    let terminal = Terminal::start(net.directory(), 80, 24);
    // Somebody whom nobody else is: its four threads wait for the gate, keys, signals and each other, and there can't be a fifth.
    let somebody = 1_000_000_000 + std::process::id();
    let limited = format!("prlimit --nproc=4 setpriv --ruid {somebody} --bounding-set=-sys_resource,-sys_admin");
    let limited = format!("env RUST_BACKTRACE=0 {limited}");
    terminal.line(&noted(&net, gate.settings(), &limited, "dead"));
    terminal.wait("the client", |screen| screen.contains("> 198.18.1.7"));
    assert!(terminal.is_taken());
    terminal.keys(&["Enter"]);
    let screen = terminal.wait("the shell", |screen| screen.contains("ended dead 101"));
    assert!(screen.contains("panicked"), "{screen}");
    assert_given_back(&terminal, "a panic");
}

#[test]
fn without_a_terminal_or_a_gate_it_says_so() {
    let Some(net) = Net::new() else { return };
    let gate = Gate::start(&net, Settings::in_place(&net));
    let output = gate.control(&["top"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output is no terminal"));
    let terminal = Terminal::start(net.directory(), 250, 24);
    terminal.line(&format!("{} top --control {}/none; echo ended $?", mxscreen().display(), net.directory().display()));
    terminal.wait("why", |screen| screen.contains("is mxscreen running?") && screen.contains("ended 69"));
}
