//! Where the log goes: a file that is rotated, syslog, the journal.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::Path,
};

use screen_tests::{
    gate::{Gate, Settings},
    net::Net,
    privilege::mxscreen,
    process::Process,
    smtp::Client,
    stage,
    wait::{SOON, wait_for},
};

fn settings(net: &Net) -> Settings {
    Settings::front(net, "127.0.0.1:10025").text("forward.client_address", "none").text("kernel.mode", "off")
}

#[test]
fn a_rotated_file_is_opened_again() {
    let Some(net) = Net::new() else { return };
    let gate = Gate::start(&net, settings(&net));
    let before = Client::connect(net.client(), "198.18.1.1".parse().unwrap());
    gate.wait_log(&format!("CONNECT from {}", before.name()));

    let (log, rotated) = (gate.settings().log(), net.directory().join("log.1"));
    fs::rename(&log, &rotated).unwrap();
    let between = Client::connect(net.client(), "198.18.1.2".parse().unwrap());
    let old = || fs::read_to_string(&rotated).unwrap();
    gate.wait("the old file goes on until it is closed", || old().contains(&between.name()));
    gate.tell(&["reload"]);
    let after = Client::connect(net.client(), "198.18.1.3".parse().unwrap());
    gate.wait_log(&format!("CONNECT from {}", after.name()));
    assert!(!old().contains(&after.name()));
    assert!(old().contains(&before.name()) && !gate.log().contains(&before.name()));
}

/// A gate that finds the test's socket where `target` logs to.
struct Staged {
    socket: UnixDatagram,
    heard: Vec<String>,
    _gate: Process,
}

impl Staged {
    fn start(net: &Net, target: &str) -> Self {
        let directory = net.directory().join("staged");
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        // As the system's own: everybody may log, the screener's account too.
        for open in [net.directory(), &directory, &path] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o777)).unwrap();
        }
        socket.set_read_timeout(Some(SOON)).unwrap();
        let config = settings(net).text("log.target", target).write().display().to_string();
        // A /dev with what a program needs, and with the test's socket in it.
        let prepare = format!(
            "new=$directory/dev
             mkdir $new
             for device in null zero full random urandom; do
                 : > $new/$device
                 mount --bind /dev/$device $new/$device
             done
             ln -s {socket} $new/log
             mount --rbind $new /dev
             mkdir -p /run/systemd/journal
             rm -f /run/systemd/journal/socket
             ln -s {socket} /run/systemd/journal/socket
",
            socket = path.display()
        );
        let program = mxscreen().display().to_string();
        let gate = stage::start(&net.edge, &directory, None, &prepare, &[&program, "run", "--config", &config]);
        let mut staged = Self { socket, heard: Vec::new(), _gate: gate };
        staged.wait(&directory, "ready");
        staged
    }

    /// Waits for a message with `text` and returns it.
    fn wait(&mut self, directory: &Path, text: &str) -> String {
        let mut buffer = vec![0; 65536];
        wait_for(&format!("\"{text}\" is logged"), SOON, || {
            if let Ok(length) = self.socket.recv(&mut buffer) {
                self.heard.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
            }
            let said = fs::read_to_string(directory.join("output")).unwrap_or_default();
            assert!(!said.contains("error"), "{said}");
            self.heard.iter().find(|message| message.contains(text)).cloned()
        })
    }
}

#[test]
fn syslog_gets_facility_severity_and_name() {
    let Some(net) = Net::new() else { return };
    let mut staged = Staged::start(&net, "syslog");
    let directory = net.directory().join("staged");
    let client = Client::connect(net.client(), "198.18.1.1".parse().unwrap());
    let line = staged.wait(&directory, &format!("CONNECT from {} to [198.18.0.1]:25", client.name()));
    // Facility mail (2), severity informational (6): RFC 5424 section 6.2.1.
    let (head, text) = line.split_once(": ").unwrap();
    assert!(head.starts_with("<22>") && head.contains(" mxscreen["), "{line}");
    assert_eq!(text, format!("CONNECT from {} to [198.18.0.1]:25", client.name()), "one line, without an end");
}

#[test]
fn the_journal_gets_fields() {
    let Some(net) = Net::new() else { return };
    let mut staged = Staged::start(&net, "journald");
    let directory = net.directory().join("staged");
    let client = Client::connect(net.client(), "198.18.1.1".parse().unwrap());
    let message = staged.wait(&directory, &format!("MESSAGE=CONNECT from {} to [198.18.0.1]:25", client.name()));
    let fields: BTreeMap<&str, &str> = message.lines().map(|line| line.split_once('=').unwrap()).collect();
    assert_eq!((fields["PRIORITY"], fields["SYSLOG_FACILITY"]), ("6", "2"), "{message}");
    assert_eq!(fields["SYSLOG_IDENTIFIER"], "mxscreen");
    assert_eq!((fields["MXSCREEN_EVENT"], fields["MXSCREEN_CLIENT"]), ("connect", "198.18.1.1"), "{message}");
    assert_eq!(fields["MXSCREEN_CLIENT_PORT"], client.local().port().to_string());

    // What became of the session comes as one record, beside its lines.
    let name = client.name();
    drop(client);
    let message = staged.wait(&directory, &format!("MESSAGE=outcome of {name}: HungUp"));
    let fields: BTreeMap<&str, &str> = message.lines().map(|line| line.split_once('=').unwrap()).collect();
    let outcome: serde_json::Value = serde_json::from_str(fields["MXSCREEN_OUTCOME"]).unwrap();
    assert_eq!(outcome["syn"], fields["MXSCREEN_SYN"], "{message}");
    assert!(fields["MXSCREEN_SYN"].starts_with("ttl=64 win="), "{message}");
    assert_eq!((&outcome["verdict"], &outcome["new"]), (&"hung-up".into(), &true.into()), "{message}");
}
