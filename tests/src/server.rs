//! Mail servers behind the gate, stock but for what every operator sets: each takes mail for example.test into a maildir, and turns one
//! network away by its own means. None of them is told of the gate.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    thread,
};

use crate::{
    net::Net,
    netns::run,
    postfix::{Postfix, mail_in},
    process::Process,
    stage,
    wait::{SOON, wait_for},
};

/// The networks that every server here turns away.
pub const BARRED: [&str; 2] = ["198.18.9.0/24", "2001:2:0:9::/64"];

/// Which mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Debian's.
    Postfix,
    /// Debian's.
    Exim,
    /// Debian's.
    OpenSmtpd,
    /// From npm.
    Haraka,
}

/// A running mail server on the edge. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Postfix(Postfix),
    Other { _process: Process, directory: PathBuf },
}

impl Server {
    /// Starts it on port 25 of every address of the edge, or where `listen` says, and waits until it is there.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    #[track_caller]
    pub fn start(net: &Net, kind: Kind, listen: &[SocketAddr]) -> Self {
        // In this order, in which a dual-stack socket of the first one leaves the second one nothing to do.
        let everywhere = [SocketAddr::from(([0; 16], 25)), SocketAddr::from(([0; 4], 25))];
        let running = match kind {
            Kind::Postfix => Running::Postfix(postfix(net, listen)),
            _ => {
                let directory = net.directory().join(kind.name());
                fs::create_dir_all(directory.join("log")).expect("a directory for the server");
                let listen = if listen.is_empty() { &everywhere } else { listen };
                let process = match kind {
                    Kind::Exim => exim(net, &directory, listen),
                    Kind::OpenSmtpd => opensmtpd(net, &directory, listen),
                    Kind::Postfix | Kind::Haraka => haraka(net, &directory, listen),
                };
                Running::Other { _process: process, directory }
            }
        };
        let server = Self { kind, running };
        server.wait_listening(net, if listen.is_empty() { &everywhere } else { listen });
        server
    }

    #[track_caller]
    fn wait_listening(&self, net: &Net, listen: &[SocketAddr]) {
        wait_for(&format!("{} listens", self.kind.name()), SOON, || {
            let sockets = run("ip", ["netns", "exec", net.edge.name(), "ss", "-Hltn"]);
            let at = |address: &SocketAddr| {
                let port = format!(":{}", address.port());
                // A dual-stack socket is shown with an asterisk.
                let fits = |line: &str| line.contains('*') || line.contains('[') == address.is_ipv6();
                sockets
                    .lines()
                    .any(|line| line.split_whitespace().nth(3).is_some_and(|own| own.ends_with(&port) && fits(own)))
            };
            listen.iter().all(at).then_some(())
        });
    }

    /// All that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        match &self.running {
            Running::Postfix(postfix) => postfix.log(),
            Running::Other { directory, .. } => {
                let files = ["output", "log/mainlog", "log/rejectlog", "log/paniclog"];
                files.iter().filter_map(|file| fs::read_to_string(directory.join(file)).ok()).collect()
            }
        }
    }

    /// Waits until it has logged that a client came from `client`.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn wait_client(&self, client: SocketAddr) {
        let (ip, port) = (client.ip(), client.port());
        let line = match self.kind {
            Kind::Postfix => format!("connect from unknown[{ip}]:{port}"),
            Kind::Exim => format!("SMTP connection from [{ip}]:{port}"),
            // It logs no port.
            Kind::OpenSmtpd => format!("smtp connected address={} ", bracketed(ip)),
            Kind::Haraka => format!("connect ip={ip} port={port} "),
        };
        wait_for(&format!("{} logs \"{line}\"", self.kind.name()), SOON, || self.log().contains(&line).then_some(()));
    }

    /// Waits until `count` messages are delivered, and returns them, newest last, with `\n` as the end of line.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    #[track_caller]
    #[must_use]
    pub fn wait_mail(&self, count: usize) -> Vec<String> {
        match &self.running {
            Running::Postfix(postfix) => postfix.wait_mail(count),
            Running::Other { directory, .. } => mail_in(&directory.join("mail/new"), count),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() && self.kind != Kind::Postfix {
            eprintln!("--- {}\n{}", self.kind.name(), self.log());
        }
    }
}

impl Kind {
    /// What its greeting holds.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postfix => "Postfix",
            Self::Exim => "Exim",
            Self::OpenSmtpd => "OpenSMTPD",
            Self::Haraka => "Haraka",
        }
    }
}

fn bracketed(ip: IpAddr) -> String {
    if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() }
}

fn postfix(net: &Net, listen: &[SocketAddr]) -> Postfix {
    let services: Vec<String> = listen.iter().map(ToString::to_string).collect();
    let services: Vec<(&str, &str)> = services.iter().map(|address| (address.as_str(), "")).collect();
    let access = net.directory().join("postfix-access");
    fs::write(&access, BARRED.map(|network| format!("{network} REJECT not from here\n")).concat()).expect("a table");
    let check = format!("smtpd_client_restrictions=check_client_access cidr:{}", access.display());
    Postfix::start_set(net, &services, &[&check])
}

fn exim(net: &Net, directory: &Path, listen: &[SocketAddr]) -> Process {
    let home = directory.display();
    let interfaces: Vec<String> =
        listen.iter().map(|address| format!("[{}]:{}", address.ip(), address.port())).collect();
    // All addresses are the default, and taken by one dual-stack socket then.
    let interfaces = if listen.iter().all(|address| address.ip().is_unspecified()) {
        String::new()
    } else {
        format!("local_interfaces = <; {}", interfaces.join(" ; "))
    };
    let prepare = format!(
        "useradd -r -M -d /var/spool/exim4 Debian-exim
         mkdir -p /etc/exim4 /var/spool/exim4 {home}/log {home}/mail
         chown Debian-exim:Debian-exim /var/spool/exim4 {home}/log {home}/mail
         chown root:root /usr/sbin/exim4
         chmod 4755 /usr/sbin/exim4
         cat > /etc/exim4/exim4.conf <<END
primary_hostname = mx.example.test
log_file_path = {home}/log/%slog
log_selector = +smtp_connection +incoming_port
keep_environment =
{interfaces}
acl_smtp_rcpt = recipient
host_lookup =
rfc1413_query_timeout = 0s
begin acl
recipient:
  deny hosts = <; {barred}
       message = not from here
  accept domains = example.test
begin routers
inbox:
  driver = accept
  transport = inbox
begin transports
inbox:
  driver = appendfile
  directory = {home}/mail
  maildir_format
  user = Debian-exim
END
",
        barred = BARRED.join(" ; "),
    );
    let words = ["/usr/sbin/exim4", "-bdf", "-q1h"];
    stage::start(&net.edge, directory, Some(&stage::unpacked("exim4")), &prepare, &words)
}

fn opensmtpd(net: &Net, directory: &Path, listen: &[SocketAddr]) -> Process {
    let listens: String =
        listen.iter().map(|address| format!("listen on {} port {}\n", address.ip(), address.port())).collect();
    let barred: String = BARRED.iter().map(|network| format!("match from src {network} for any reject\n")).collect();
    let prepare = format!(
        "home=/var/lib/opensmtpd/empty
         groupadd -r opensmtpq
         useradd -r -M -d $home opensmtpd
         useradd -r -M -d $home -g opensmtpq opensmtpq
         useradd -M -d {home} inbox
         mkdir -p $home {home}/mail
         chmod 711 $home
         chown inbox {home}/mail
         chown root:opensmtpq /usr/sbin/smtpctl
         chmod 2755 /usr/sbin/smtpctl
         echo nameserver 127.0.0.1 > /etc/resolv.conf
         echo mx.example.test > /etc/mailname
         cat > /etc/smtpd.conf <<END
{listens}action \"inbox\" maildir \"{home}/mail\"
{barred}match from any for domain example.test action \"inbox\"
END
",
        home = directory.display(),
    );
    stage::start(&net.edge, directory, Some(&stage::unpacked("opensmtpd")), &prepare, &["/usr/sbin/smtpd", "-d"])
}

fn haraka(net: &Net, directory: &Path, listen: &[SocketAddr]) -> Process {
    let place = |name: &str| directory.join(name);
    let package = stage::unpacked("haraka").join("node_modules/Haraka");
    for folder in ["plugins", "mail/new", "mail/tmp", "queue"] {
        fs::create_dir_all(place(folder)).expect("a directory for Haraka");
    }
    run("cp", [Path::new("-r"), &package.join("config"), &place("config")]);
    let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
    let smtp = format!("listen={}\nnodes=0\n", listen.join(","));
    for (file, text) in [
        ("config/smtp.ini", smtp.as_str()),
        ("config/me", "mx.example.test\n"),
        ("config/loglevel", "LOGINFO\n"),
        ("config/plugins", "inbox\n"),
        ("plugins/inbox.js", include_str!("inbox.js")),
    ] {
        fs::write(place(file), text).expect("Haraka's configuration");
    }
    let (program, home) = (package.join("bin/haraka").display().to_string(), directory.display().to_string());
    Process::start(&net.edge, Path::new("node"), &[&program, "-c", &home], &place("output"))
}
