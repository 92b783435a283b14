//! Other people's mail servers as clients: each takes mail on a port of the client host's loopback and relays all of it to the edge.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    thread,
};

use crate::{
    net::Net,
    netns::run,
    process::Process,
    stage,
    wait::{SOON, wait_for},
};

/// Where they take mail.
const PORT: u16 = 10026;

/// A running Exim or OpenSMTPD. Dropping it ends it.
#[derive(Debug)]
pub struct Mta {
    process: Process,
    directory: PathBuf,
    retry: &'static [&'static str],
}

impl Mta {
    /// Debian's Exim on the client host; what is refused for now is tried again every second. With `tls`, it delivers with TLS or not
    /// at all.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    pub fn exim(net: &Net, tls: bool) -> Self {
        let tls = if tls { "hosts_require_tls = *" } else { "hosts_avoid_tls = *" };
        let prepare = format!(
            "useradd -r -M -d /var/spool/exim4 Debian-exim
             mkdir -p /etc/exim4 /var/spool/exim4 {log}
             chown Debian-exim:Debian-exim /var/spool/exim4 {log}
             chown root:root /usr/sbin/exim4
             chmod 4755 /usr/sbin/exim4
             cat > /etc/exim4/exim4.conf <<END
primary_hostname = sender.example.test
log_file_path = {log}/%slog
keep_environment =
acl_smtp_rcpt = accept
host_lookup =
rfc1413_query_timeout = 0s
begin routers
gate:
  driver = manualroute
  route_list = * 198.18.0.1
  transport = out
begin transports
out:
  driver = smtp
  {tls}
  tls_verify_certificates =
  tls_try_verify_hosts =
begin retry
* * F,1h,1s
END
",
            log = net.directory().join("exim4/log").display()
        );
        let words = ["/usr/sbin/exim4", "-bdf", "-q1s", "-oX", "127.0.0.1:10026"];
        Self::start(net, "exim4", &prepare, &words, &[])
    }

    /// Debian's OpenSMTPD on the client host. With `tls`, it delivers with TLS or not at all.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    pub fn opensmtpd(net: &Net, tls: bool) -> Self {
        let scheme = if tls { "smtp+tls" } else { "smtp+notls" };
        let verify = if tls { "tls no-verify" } else { "" };
        let prepare = format!(
            "home=/var/lib/opensmtpd/empty
             groupadd -r opensmtpq
             useradd -r -M -d $home opensmtpd
             useradd -r -M -d $home -g opensmtpq opensmtpq
             mkdir -p $home
             chmod 711 $home
             chown root:opensmtpq /usr/sbin/smtpctl
             chmod 2755 /usr/sbin/smtpctl
             cat > /etc/smtpd.conf <<END
listen on 127.0.0.1 port {PORT}
action \"out\" relay host {scheme}://198.18.0.1 {verify} helo sender.example.test
match from any for any action \"out\"
END
"
        );
        Self::start(net, "opensmtpd", &prepare, &["/usr/sbin/smtpd", "-d"], &["/usr/sbin/smtpctl", "schedule", "all"])
    }

    fn start(net: &Net, name: &str, prepare: &str, words: &[&str], retry: &'static [&'static str]) -> Self {
        let directory = net.directory().join(name);
        let tree = stage::unpacked(name);
        let process = stage::start(&net.client().namespace, &directory, Some(&tree), prepare, words);
        Self { process, directory, retry }
    }

    /// Has what was refused for now tried again, where the server would take its time.
    pub fn hurry(&self) {
        if let [program, words @ ..] = self.retry {
            let process = self.process.pid().to_string();
            let enter = ["--mount", "--net", "--target", &process, program];
            run("nsenter", enter.into_iter().chain(words.iter().copied()));
        }
    }
}

impl Drop for Mta {
    fn drop(&mut self) {
        if thread::panicking() {
            for file in ["prepare.sh", "output", "log/mainlog", "log/paniclog"] {
                if let Ok(text) = fs::read_to_string(self.directory.join(file)) {
                    eprintln!("--- {file}\n{text}");
                }
            }
        }
    }
}

/// Hands one message, for inbox@example.test, to whoever takes mail on the client host, once it listens.
///
/// # Panics
///
/// When it is refused.
pub fn submit(net: &Net, message: &str) {
    let to = SocketAddr::from(([127, 0, 0, 1], PORT));
    let namespace = &net.client().namespace;
    let stream = wait_for("the client's mail server listens", SOON, || namespace.enter(|| TcpStream::connect(to)).ok());
    let mut client = crate::smtp::Client::on(stream);
    client.reply();
    // Dots in front of lines are doubled (RFC 5321 section 4.5.2).
    let stuffed: String = message
        .split_inclusive('\n')
        .map(|line| if line.starts_with('.') { format!(".{line}") } else { line.to_owned() })
        .collect();
    client.deliver(&stuffed);
    client.quit();
}
