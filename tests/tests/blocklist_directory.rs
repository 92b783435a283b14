//! Lists that are files in a watched directory: each holds for as long as its file is there, and says what the file says.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    postfix::Postfix,
    smtp::Client,
};
use serde_json::{Value, json};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The directory.
struct Lists(PathBuf);

impl Lists {
    fn make(net: &Net) -> Self {
        let path = net.directory().join("blocklists.d");
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn settings(&self, net: &Net) -> Settings {
        Settings::in_place(net)
            .text("kernel.deny_reply", "drop")
            .text("blocklists.directory", &self.0.display().to_string())
    }

    /// Puts a file into its place at once, as careful programs do.
    fn place(&self, name: &str, content: &str) {
        fs::write(self.0.join(".new"), content).unwrap();
        fs::rename(self.0.join(".new"), self.0.join(name)).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn import(gate: &Gate, file: &Path, list: &str) -> (Option<i32>, String) {
    let output = gate.control(&["blocklist", "import", file.to_str().unwrap(), "--list", list]);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn complaints(gate: &Gate) -> Value {
    gate.ask(&["status"])["lists"]["directory"]["complaints"].clone()
}

/// Waits until the gate complains of a file in words like these.
fn wait_complaint(gate: &Gate, file: &str, why: &str) {
    gate.wait(&format!("the gate complains of {file}: {why}"), || {
        let found = complaints(gate);
        let of_file = |complaint: &&Value| complaint["file"] == file;
        let complaint = found.as_array().unwrap().iter().find(of_file).cloned();
        complaint.is_some_and(|complaint| complaint["why"].as_str().unwrap().contains(why))
    });
}

/// The lists and the files that they come from.
fn lists(gate: &Gate) -> Value {
    let rows = gate.ask(&["blocklist", "list"]);
    rows.as_array().unwrap().iter().map(|row| json!([row["list"], row["file"]])).collect()
}

#[test]
fn lists_follow_the_files_of_the_directory() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let directory = Lists::make(&net);
    directory.place("first.txt", "198.18.1.0/24\n");
    let gate = Gate::start(&net, directory.settings(&net));

    // What is there at the start counts from the first client on; what comes later, once it is complete.
    Client::assert_dropped(net.client(), ip("198.18.1.7"));
    directory.place("second.json", r#"[{"decisions":[{"scope":"Ip","type":"ban","value":"198.18.2.7"}]}]"#);
    gate.wait_denied(ip("198.18.2.7"));
    Client::assert_dropped(net.client(), ip("198.18.2.7"));
    fs::write(directory.file("third"), "2001:2:0:50::/60\n").unwrap();
    gate.wait_denied(ip("2001:2:0:5f::1"));
    assert_eq!(lists(&gate), json!([["first", "first.txt"], ["second", "second.json"], ["third", "third"]]));

    // Changes, in place and by another file.
    fs::write(directory.file("first.txt"), "198.18.3.0/24\n").unwrap();
    gate.wait_denied(ip("198.18.3.7"));
    gate.wait_undenied(ip("198.18.1.7"));
    directory.place("second.json", "null\n198.18.2.9\n");
    wait_complaint(&gate, "second.json", "the list stays as it was");
    Client::assert_dropped(net.client(), ip("198.18.2.7"));
    directory.place("second.json", "198.18.2.8\nmx.example\n");
    gate.wait_denied(ip("198.18.2.8"));
    gate.wait_undenied(ip("198.18.2.7"));
    wait_complaint(&gate, "second.json", "line 2: refused: \"mx.example\" is no address");

    fs::remove_file(directory.file("third")).unwrap();
    gate.wait_undenied(ip("2001:2:0:5f::1"));
    assert_eq!(lists(&gate), json!([["first", "first.txt"], ["second", "second.json"]]));
    gate.stop();
}

#[test]
fn a_bad_file_leaves_its_list_and_files_in_the_making_are_no_lists() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let directory = Lists::make(&net);
    directory.place("list.txt", "198.18.1.0/24\n");
    let gate = Gate::start(&net, directory.settings(&net));
    for (content, why) in [
        ("<html>\n", "nothing in it is an address"),
        ("", "is empty"),
        ("198.18.0.0/24\n", "this host's own address"),
        ("32.0.0.0/4\n", "blocklists.max_share"),
        ("{\"new\": [", "no JSON document"),
    ] {
        directory.place("list.txt", content);
        wait_complaint(&gate, "list.txt", why);
        gate.wait_log(why);
    }
    let long = fs::File::create(directory.file(".long")).unwrap();
    long.set_len((256 << 20) + 1).unwrap();
    fs::rename(directory.file(".long"), directory.file("list.txt")).unwrap();
    wait_complaint(&gate, "list.txt", "longer than 256 MiB");
    Client::assert_dropped(net.client(), ip("198.18.1.7"));

    // Of all these, the last one alone is a list, and by then the gate has seen the others.
    for passing in [".hidden", "list.txt~", "#list.txt#", ".list.txt.swp", "list.txt.tmp", "list.txt.part"] {
        fs::write(directory.file(passing), "198.18.4.0/24\n").unwrap();
    }
    fs::create_dir(directory.file("folder.txt")).unwrap();
    directory.place("list.json", "198.18.5.0/24\n");
    wait_complaint(&gate, "list.txt", "list.json is the list list already");
    gate.wait_denied(ip("198.18.5.7"));
    assert_eq!(lists(&gate), json!([["list", "list.json"]]));
    // A file that is good again after all.
    fs::remove_file(directory.file("list.json")).unwrap();
    directory.place("list.txt", "198.18.6.0/24\n");
    gate.wait_denied(ip("198.18.6.7"));
    gate.wait("nothing is wrong any more", || complaints(&gate) == json!([]));
    gate.stop();
}

#[test]
fn a_name_belongs_to_a_file_or_to_the_operator() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let directory = Lists::make(&net);
    let gate = Gate::start(&net, directory.settings(&net));
    let by_hand = net.directory().join("by-hand.txt");
    fs::write(&by_hand, "198.18.1.0/24\n").unwrap();
    assert_eq!(import(&gate, &by_hand, "taken").0, Some(0));
    directory.place("taken.txt", "198.18.2.0/24\n");
    wait_complaint(&gate, "taken.txt", "was imported by hand");
    assert_eq!(lists(&gate), json!([["taken", null]]));

    gate.tell(&["blocklist", "remove", "--list", "taken"]);
    gate.wait_denied(ip("198.18.2.7"));
    let (status, said) = import(&gate, &by_hand, "taken");
    assert_eq!(status, Some(64), "{said}");
    assert!(said.contains("this list is the file taken.txt in blocklists.directory"), "{said}");
    let removed = gate.control(&["blocklist", "remove", "--list", "taken"]);
    assert_eq!(removed.status.code(), Some(64));
    Client::assert_dropped(net.client(), ip("198.18.2.7"));
    gate.stop();
}

#[test]
fn what_has_changed_while_no_gate_ran_counts_at_the_next_start() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let directory = Lists::make(&net);
    for (name, content) in [("stays", "198.18.1.0/24\n"), ("goes", "198.18.2.0/24\n"), ("changes", "198.18.3.0/24\n")] {
        directory.place(name, content);
    }
    let settings = directory.settings(&net);
    let gate = Gate::start(&net, settings.clone());
    gate.stop();
    fs::remove_file(directory.file("goes")).unwrap();
    directory.place("changes", "198.18.4.0/24\n");
    directory.place("comes", "198.18.5.0/24\n");
    let gate = Gate::start(&net, settings.clone());
    for denied in ["198.18.1.7", "198.18.4.7", "198.18.5.7"] {
        Client::assert_dropped(net.client(), ip(denied));
    }
    for let_in in ["198.18.2.7", "198.18.3.7"] {
        assert_eq!(Client::connect(net.client(), ip(let_in)).line(), "220-mx.example.test ESMTP", "{let_in}");
    }
    assert_eq!(gate.logged("stays: 1 networks"), 0, "a file that is the same is not read again");

    // A screener that takes the place of another one watches on.
    gate.signal_screener(Signal::SIGKILL);
    directory.place("later", "198.18.6.0/24\n");
    gate.wait("a screener answers", || gate.control(&["status"]).status.success());
    gate.wait_denied(ip("198.18.6.7"));
    gate.stop();

    // Without the directory its lists are gone, and nothing else is.
    let by_hand = net.directory().join("by-hand.txt");
    fs::write(&by_hand, "198.18.7.0/24\n").unwrap();
    let gate = Gate::start(&net, settings);
    assert_eq!(import(&gate, &by_hand, "mine").0, Some(0));
    gate.stop();
    let gate = Gate::start(&net, Settings::in_place(&net).text("kernel.deny_reply", "drop"));
    assert_eq!(lists(&gate), json!([["mine", null]]));
    gate.stop();
}

#[test]
fn a_reload_takes_another_directory_and_one_that_comes_later_is_watched() {
    let Some(net) = Net::new() else { return };
    let _postfix = Postfix::start(&net);
    let directory = Lists::make(&net);
    directory.place("first", "198.18.1.0/24\n");
    let gate = Gate::start(&net, directory.settings(&net));
    let other = net.directory().join("other.d");
    let _ = directory.settings(&net).text("blocklists.directory", &other.display().to_string()).write();
    gate.tell(&["reload"]);
    // It is not there: the lists stay.
    gate.wait_log("its lists stay as they are");
    Client::assert_dropped(net.client(), ip("198.18.1.7"));
    fs::create_dir(&other).unwrap();
    fs::write(other.join("second"), "198.18.2.0/24\n").unwrap();
    gate.wait_denied(ip("198.18.2.7"));
    gate.wait_undenied(ip("198.18.1.7"));
    assert_eq!(lists(&gate), json!([["second", "second"]]));
    gate.stop();
}
