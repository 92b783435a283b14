//! Debian's own Postfix, as an instance of its own on the edge: nothing under /etc or /var is touched.

use std::{
    collections::BTreeSet,
    fs, iter,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::Signal,
    unistd::{Gid, Group, Uid, User},
};

use crate::{
    net::Net,
    netns::run,
    process::{Process, signal},
    stage,
    wait::{SOON, wait_for},
};

const MASTER: &str = "/usr/lib/postfix/sbin/master";

/// What it logs when it reads its configuration again.
const RELOADED: &str = "reload -- version";

/// How long it has for that until it is told once more.
const REPEATED: Duration = Duration::from_secs(10);

/// A running Postfix that takes mail for example.test and delivers it to a maildir. Dropping it ends it.
#[derive(Debug)]
pub struct Postfix {
    master: Option<Process>,
    directory: PathBuf,
    place: Place,
}

/// Where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Edge,
    /// On the edge, where /etc/resolv.conf names the DNS server that a test has started there.
    EdgeWithResolver,
    Client,
}

impl Postfix {
    /// Starts Postfix on port 25 of every address of the edge, in its stock configuration.
    #[must_use]
    #[track_caller]
    pub fn start(net: &Net) -> Self {
        Self::start_with(net, &[])
    }

    /// As [`Postfix::start`], with more `smtpd` services: `(address:port, options)`, such as
    /// `("127.0.0.1:10025", "smtpd_upstream_proxy_protocol=haproxy")`. With any of them, port 25 is left alone.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn start_with(net: &Net, services: &[(&str, &str)]) -> Self {
        Self::start_set(net, services, &[])
    }

    /// As [`Postfix::start_with`], with an smtpd that takes clients as descriptors at [`Postfix::pass_socket`]. It asks nobody but itself before
    /// it greets, so that it does so without its master, too.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn passing(net: &Net, services: &[(&str, &str)]) -> Self {
        let mut postfix = Self::laid_out(net, services, &["smtpd_client_connection_count_limit=0"]);
        postfix.add_services("smtpd pass - - n - - smtpd\n");
        postfix.up(net);
        postfix
    }

    /// Starts Postfix with its own postscreen on port 25, which asks the DNS server at 127.0.0.1, and with settings of `main.cf`.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn screening(net: &Net, settings: &[&str]) -> Self {
        let mut postfix = Self::laid_out(net, &[("127.0.0.1:10025", "")], settings);
        postfix.add_services(
            "smtp inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\n\
             dnsblog unix - - n - 0 dnsblog\ntlsproxy unix - - n - 0 tlsproxy\n",
        );
        postfix.place = Place::EdgeWithResolver;
        postfix.up(net);
        postfix
    }

    /// As [`Postfix::start_with`], with settings of `main.cf`: `name=value`.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn start_set(net: &Net, services: &[(&str, &str)], settings: &[&str]) -> Self {
        let mut postfix = Self::laid_out(net, services, settings);
        postfix.up(net);
        postfix
    }

    fn laid_out(net: &Net, services: &[(&str, &str)], settings: &[&str]) -> Self {
        let directory = net.directory().join("postfix");
        lay_out(&directory, services);
        if !settings.is_empty() {
            let etc = directory.join("etc").display().to_string();
            run("postconf", ["-c", &etc, "-e"].into_iter().chain(settings.iter().copied()));
        }
        Self { master: None, directory, place: Place::Edge }
    }

    fn add_services(&self, lines: &str) {
        let path = self.directory.join("etc/master.cf");
        let mut master = fs::read_to_string(&path).expect("master.cf");
        master.push_str(lines);
        fs::write(&path, master).expect("master.cf");
    }

    /// Starts Postfix on the client host, as a client of the edge: it takes mail on 127.0.0.1:10026, relays all of it, and tries again
    /// every three seconds. With `tls`, it delivers with TLS or not at all.
    #[must_use]
    #[track_caller]
    pub fn relaying(net: &Net, tls: bool) -> Self {
        Self::relaying_with(net, tls, &[])
    }

    /// As [`Postfix::relaying`], with more of its settings, such as `smtp_skip_5xx_greeting=no`.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn relaying_with(net: &Net, tls: bool, more: &[&str]) -> Self {
        let directory = net.directory().join("postfix-client");
        lay_out(&directory, &[("127.0.0.1:10026", "")]);
        let security = format!("smtp_tls_security_level={}", if tls { "encrypt" } else { "none" });
        let settings = [
            "myhostname=sender.example.test",
            "virtual_mailbox_domains=",
            "relayhost=[198.18.0.1]",
            "smtp_tls_loglevel=1",
            "smtp_destination_concurrency_failed_cohort_limit=0",
        ];
        let etc = directory.join("etc").display().to_string();
        run(
            "postconf",
            ["-c", &etc, "-e"].into_iter().chain(settings).chain([security.as_str()]).chain(more.iter().copied()),
        );
        let mut postfix = Self { master: None, directory, place: Place::Client };
        postfix.up(net);
        postfix
    }

    /// Starts it (again).
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[track_caller]
    pub fn up(&mut self, net: &Net) {
        let before = self.logged("daemon started");
        let config = self.directory.join("etc").display().to_string();
        let output = self.directory.join("output");
        let words = ["-c", &config, "-d"];
        let start = || match self.place {
            Place::Edge => Process::start(&net.edge, Path::new(MASTER), &words, &output),
            Place::Client => Process::start(&net.client().namespace, Path::new(MASTER), &words, &output),
            Place::EdgeWithResolver => {
                let words: Vec<&str> = iter::once(MASTER).chain(words).collect();
                let resolver = "echo nameserver 127.0.0.1 > /etc/resolv.conf\n";
                stage::start(&net.edge, &self.directory.join("stage"), None, resolver, &words)
            }
        };
        let mut master = start();
        wait_for("Postfix starts", SOON, || {
            // A process of the one before may still have a session, and with it the port: the master gives up then.
            if master.ended().is_some() {
                master = start();
            }
            (self.logged("daemon started") > before).then_some(())
        });
        self.master = Some(master);
    }

    /// Changes its configuration by `postconf` with these words, and starts it again.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[track_caller]
    pub fn configure(&mut self, net: &Net, words: &[&str]) {
        self.down();
        let etc = self.directory.join("etc").display().to_string();
        run("postconf", ["-c", &etc].into_iter().chain(words.iter().copied()));
        self.up(net);
    }

    /// Where it takes clients as descriptors, in a directory that is closed to everybody else.
    #[must_use]
    pub fn pass_socket(net: &Net) -> PathBuf {
        net.directory().join("postfix/queue/private/smtpd")
    }

    /// Ends it, with all its processes.
    pub fn down(&mut self) {
        self.master = None;
    }

    /// Has it read its configuration again.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn reload(&self) {
        let before = self.logged(RELOADED);
        let deadline = Instant::now() + SOON;
        while self.logged(RELOADED) == before {
            assert!(Instant::now() < deadline, "Postfix reloads");
            // One that comes before it is done with the last one is lost.
            self.signal_master(Signal::SIGHUP);
            let next = Instant::now() + REPEATED;
            while self.logged(RELOADED) == before && Instant::now() < next {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// How many messages it has taken up once more: the one that ended before may have delivered them already.
    #[must_use]
    pub fn taken_up_again(&self) -> usize {
        let log = self.log();
        let taken: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("postfix/qmgr[") && line.ends_with("(queue active)"))
            .filter_map(|line| line.split(": ").nth(1))
            .collect();
        taken.len() - taken.iter().collect::<BTreeSet<_>>().len()
    }

    /// Sends a signal to its master process: SIGHUP is a reload.
    pub fn signal_master(&self, what: Signal) {
        if let Some(master) = &self.master {
            master.signal(what);
        }
    }

    /// Sends a signal to all its processes.
    pub fn signal(&self, what: Signal) {
        // The master first, so that it starts no others.
        self.signal_master(what);
        for process in self.master.iter().flat_map(Process::children) {
            signal(process, what);
        }
    }

    /// Its mail log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("maillog")).unwrap_or_default()
    }

    /// How many lines of its log hold `text`.
    #[must_use]
    pub fn logged(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Waits for a line of its log that holds `text` and returns it.
    ///
    /// # Panics
    ///
    /// When none comes.
    #[track_caller]
    pub fn wait_log(&self, text: &str) -> String {
        wait_for(&format!("Postfix logs \"{text}\""), SOON, || {
            self.log().lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// Waits until `count` messages are delivered, and returns them, newest last, with `\n` as the end of line.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    #[track_caller]
    #[must_use]
    pub fn wait_mail(&self, count: usize) -> Vec<String> {
        mail_in(&self.maildir(), count)
    }

    /// Where the messages are.
    #[must_use]
    pub fn maildir(&self) -> PathBuf {
        self.directory.join("mail/inbox/new")
    }
}

/// Waits until there are `count` messages in a folder of a maildir, and returns them, newest last, with `\n` as the end of line.
///
/// # Panics
///
/// When there are fewer.
#[track_caller]
pub(crate) fn mail_in(folder: &Path, count: usize) -> Vec<String> {
    wait_for(&format!("{count} messages are delivered"), SOON, || {
        let mut files: Vec<_> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
        files.sort_by_key(|file| fs::metadata(file).and_then(|data| data.modified()).ok());
        let mail: Option<Vec<String>> = files.iter().map(|file| fs::read_to_string(file).ok()).collect();
        let mail = mail.filter(|mail| mail.len() >= count)?;
        Some(mail.into_iter().map(|message| message.replace("\r\n", "\n")).collect())
    })
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // What a test has stopped hears no other signal.
        self.signal(Signal::SIGCONT);
        self.down();
        if thread::panicking() {
            let output = fs::read_to_string(self.directory.join("output")).unwrap_or_default();
            eprintln!("--- Postfix\n{output}{}", self.log());
        }
    }
}

/// Configuration, queue and mail directories with the owners that Postfix wants to see.
fn lay_out(directory: &Path, services: &[(&str, &str)]) {
    let postfix = User::from_name("postfix").ok().flatten().expect("the account postfix");
    let postdrop = Group::from_name("postdrop").ok().flatten().expect("the group postdrop").gid;
    let nobody = (Uid::from_raw(65534), Gid::from_raw(65534));
    let etc = directory.join("etc");
    let make = |name: &str, mode: u32, (uid, gid): (Uid, Gid)| {
        let path = directory.join(name);
        fs::create_dir_all(&path).expect("a directory of Postfix");
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
        chown(&path, Some(uid.as_raw()), Some(gid.as_raw())).expect("chown");
    };
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    make("queue", 0o755, root);
    for name in
        ["active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"]
    {
        make(&format!("queue/{name}"), 0o700, (postfix.uid, root.1));
    }
    make("queue/pid", 0o755, root);
    make("queue/maildrop", 0o730, (postfix.uid, postdrop));
    make("queue/public", 0o710, (postfix.uid, postdrop));
    make("data", 0o755, (postfix.uid, root.1));
    make("mail", 0o755, nobody);
    run("cp", [Path::new("-rL"), Path::new("/etc/postfix"), &etc]);
    settings(directory, &etc.display().to_string());
    ports(&etc, services);
}

fn settings(directory: &Path, etc: &str) {
    let home = directory.display();
    run(
        "postconf",
        [
            "-c",
            etc,
            "-e",
            &format!("queue_directory={home}/queue"),
            &format!("data_directory={home}/data"),
            // Without a syslog daemon in the namespace, Postfix writes its log by itself.
            &format!("maillog_file={home}/maillog"),
            &format!("maillog_file_prefixes={home}"),
            "myhostname=mx.example.test",
            "mydestination=localhost",
            "inet_interfaces=all",
            "inet_protocols=all",
            "mynetworks=127.0.0.0/8 [::1]/128",
            // There is no DNS in the namespace that could name the clients.
            "smtpd_peername_lookup=no",
            // Tests look for the client's port, too.
            "smtpd_client_port_logging=yes",
            // Mail has to stay readable as it came: a maildir for every recipient.
            "virtual_mailbox_domains=example.test",
            &format!("virtual_mailbox_base={home}/mail"),
            "virtual_mailbox_maps=static:inbox/",
            "virtual_uid_maps=static:65534",
            "virtual_gid_maps=static:65534",
            "virtual_mailbox_limit=0",
            "message_size_limit=52428800",
            "alias_maps=",
            "smtpd_tls_security_level=none",
            "smtp_tls_security_level=none",
            // Who is in the middle of a delivery when Postfix reloads or ends is skipped, and tried again after this time.
            "minimal_backoff_time=3s",
            "maximal_backoff_time=3s",
            "queue_run_delay=1s",
        ],
    );
    // Debian's chroot would need a copy of system files in the queue directory.
    run("postconf", ["-c", etc, "-F", "*/*/chroot=n"]);
}

fn ports(etc: &Path, services: &[(&str, &str)]) {
    if services.is_empty() {
        return;
    }
    let path = etc.join("master.cf");
    let master = fs::read_to_string(&path).expect("master.cf");
    let mut kept: String = master
        .lines()
        .filter(|line| !(line.starts_with("smtp ") && line.contains(" inet ")))
        .map(|line| format!("{line}\n"))
        .collect();
    for (address, option) in services {
        kept.push_str(&format!("{address} inet n - n - - smtpd\n"));
        if !option.is_empty() {
            kept.push_str(&format!(" -o {option}\n"));
        }
    }
    fs::write(&path, kept).expect("master.cf");
}
