//! Other people's mail servers. As clients each takes mail on a port of the client host's loopback and relays all of it to the edge; behind the
//! gate each takes mail for example.test on a port of the edge's loopback, and relays for the edge itself.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    thread,
};

use crate::{
    net::Net,
    netns::{Namespace, run},
    process::Process,
    stage,
    wait::{SOON, wait_for},
};

/// Where those on the client host take mail.
const PORT: u16 = 10026;

/// Where those behind the gate do.
pub const BEHIND: &str = "127.0.0.1:10025";

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
        let settings = format!(
            "primary_hostname = sender.example.test
acl_smtp_rcpt = accept
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
"
        );
        let words = ["/usr/sbin/exim4", "-bdf", "-q1s", "-oX", "127.0.0.1:10026"];
        Self::start(net, &net.client().namespace, "exim4", &prepare_exim(net, &settings), &words, &[])
    }

    /// Debian's Exim at [`BEHIND`].
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    pub fn exim_behind(net: &Net) -> Self {
        let settings = "primary_hostname = mx.example.test
acl_smtp_rcpt = recipient
begin acl
recipient:
  accept hosts = 127.0.0.0/8
  accept domains = example.test
  deny message = relay not permitted
";
        let words = ["/usr/sbin/exim4", "-bdf", "-oX", BEHIND];
        Self::start(net, &net.edge, "exim4", &prepare_exim(net, settings), &words, &[])
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
        let settings = format!(
            "listen on 127.0.0.1 port {PORT}
action \"out\" relay host {scheme}://198.18.0.1 {verify} helo sender.example.test
match from any for any action \"out\"
"
        );
        let retry = &["/usr/sbin/smtpctl", "schedule", "all"];
        let words = ["/usr/sbin/smtpd", "-d"];
        Self::start(net, &net.client().namespace, "opensmtpd", &prepare_opensmtpd(&settings), &words, retry)
    }

    /// Debian's OpenSMTPD at [`BEHIND`], with more words for its listener.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[must_use]
    pub fn opensmtpd_behind(net: &Net, listener: &str) -> Self {
        let settings = format!(
            "listen on 127.0.0.1 port {port} {listener}
action \"in\" maildir
action \"out\" relay
match from any for domain example.test action \"in\"
match from local for any action \"out\"
",
            port = BEHIND.rsplit_once(':').map_or("", |(_, port)| port)
        );
        let words = ["/usr/sbin/smtpd", "-d"];
        Self::start(net, &net.edge, "opensmtpd", &prepare_opensmtpd(&settings), &words, &[])
    }

    fn start(
        net: &Net,
        namespace: &Namespace,
        name: &str,
        prepare: &str,
        words: &[&str],
        retry: &'static [&'static str],
    ) -> Self {
        let directory = net.directory().join(name);
        let tree = stage::unpacked(name);
        let process = stage::start(namespace, &directory, Some(&tree), prepare, words);
        Self { process, directory, retry }
    }

    /// Waits until it listens at [`BEHIND`].
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn wait_behind(&self, net: &Net) {
        let to: SocketAddr = BEHIND.parse().expect("an address");
        wait_for("the mail server listens", SOON, || net.edge.enter(|| TcpStream::connect(to)).ok());
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

fn prepare_exim(net: &Net, settings: &str) -> String {
    let log = net.directory().join("exim4/log");
    format!(
        "useradd -r -M -d /var/spool/exim4 Debian-exim
         mkdir -p /etc/exim4 /var/spool/exim4 {log}
         chown Debian-exim:Debian-exim /var/spool/exim4 {log}
         chown root:root /usr/sbin/exim4
         chmod 4755 /usr/sbin/exim4
         cat > /etc/exim4/exim4.conf <<END
log_file_path = {log}/%slog
keep_environment =
host_lookup =
rfc1413_query_timeout = 0s
{settings}END
",
        log = log.display()
    )
}

fn prepare_opensmtpd(settings: &str) -> String {
    format!(
        "home=/var/lib/opensmtpd/empty
         groupadd -r opensmtpq
         useradd -r -M -d $home opensmtpd
         useradd -r -M -d $home -g opensmtpq opensmtpq
         mkdir -p $home
         chmod 711 $home
         chown root:opensmtpq /usr/sbin/smtpctl
         chmod 2755 /usr/sbin/smtpctl
         cat > /etc/smtpd.conf <<END
{settings}END
"
    )
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
