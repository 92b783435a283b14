//! Everything is changed, restarted and killed while a real Postfix delivers numbered messages, and each of them arrives.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use screen_tests::{
    gate::{Gate, Settings},
    mta,
    net::Net,
    postfix::Postfix,
    wait::{SOON, wait_for},
};

const BACKEND: &str = "127.0.0.1:10025";
/// The client host's own address, from which its Postfix delivers.
const SENDER: &str = "198.18.0.9";
/// What is delivered between one event and the next.
const BETWEEN: usize = 12;
/// Messages on their way at a time: enough for several connections.
const ON_THEIR_WAY: usize = 25;
/// Between two looks at how many have arrived.
const LOOK: Duration = Duration::from_millis(5);
/// What Postfix logs when it can't know whether the other side has taken a message (RFC 1047).
const IN_DOUBT: &str = "message may be sent more than once";

/// A Postfix that is given one numbered message after the other.
struct Sender {
    submitted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Sender {
    fn start(net: &Arc<Net>, delivered: impl Fn() -> usize + Send + 'static) -> Self {
        let (submitted, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (net, submitted, stop) = (Arc::clone(net), Arc::clone(&submitted), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let number = submitted.load(Ordering::Relaxed);
                    if number >= delivered() + ON_THEIR_WAY {
                        thread::sleep(LOOK);
                        continue;
                    }
                    let body = "so that it takes more than one segment\r\n".repeat(200);
                    mta::submit(&net, &format!("Subject: message {number}\r\n\r\n{body}"));
                    submitted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { submitted, stop, thread }
    }

    /// How many messages there were.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.submitted.load(Ordering::Relaxed)
    }
}

/// Everything that is done to a gate and its mail server in their lives.
fn live_through(net: &Arc<Net>, mut postfix: Postfix, settings: Settings) {
    net.client().adopt(SENDER.parse().unwrap());
    let maildir = postfix.maildir();
    let delivered = move || std::fs::read_dir(&maildir).map_or(0, Iterator::count);
    let (settings, _) = settings.copied();
    let mut gate = Gate::start(net, settings.clone());
    let relaying = Postfix::relaying(net, false);
    let sender = Sender::start(net, delivered.clone());
    let more = |what: &str| {
        let enough = delivered() + BETWEEN;
        wait_for(&format!("mail flows: {what}"), SOON, || (delivered() >= enough).then_some(()));
    };
    more("at the start");
    for round in 0..2 {
        gate.tell(&["reload"]);
        more("after a reload");
        gate.tell(&["upgrade"]);
        more("after an upgrade");
        gate.signal_screener(Signal::SIGKILL);
        more("after the screener was killed");
        postfix.signal_master(Signal::SIGHUP);
        more("after Postfix has reloaded");
        postfix.down();
        postfix.up(net);
        more("after Postfix was restarted");
        let settings = if round == 0 { gate.kill() } else { gate.kill_keeper() };
        gate = Gate::start(net, settings.clone());
        more("after the gate was killed");
        gate.stop();
        gate = Gate::start(net, settings);
        more("after the gate was stopped");
    }
    let submitted = sender.end();
    let numbers = || {
        let mail = postfix.wait_mail(0);
        let number = |mail: &String| mail.split_once("Subject: message ")?.1.split_once('\n')?.0.parse::<usize>().ok();
        mail.iter().map(|mail| number(mail).expect("a numbered message")).collect::<Vec<_>>()
    };
    wait_for("every message arrives", SOON, || {
        let mut arrived = numbers();
        arrived.sort_unstable();
        arrived.dedup();
        (arrived.len() >= submitted).then_some(())
    });
    let mut arrived = numbers();
    arrived.sort_unstable();
    let copies = arrived.len();
    arrived.dedup();
    assert_eq!(arrived, (0..submitted).collect::<Vec<_>>(), "each number once");
    // A server that is killed may have taken a message whose sender has not heard so, or delivered one without having noted that.
    let in_doubt = relaying.logged(IN_DOUBT) + postfix.taken_up_again();
    assert!(copies - submitted <= in_doubt, "{} copies too many, {in_doubt} in doubt", copies - submitted);
    println!("{submitted} messages, {} of them twice, {in_doubt} in doubt", copies - submitted);
}

#[test]
fn no_message_is_lost_in_place() {
    let Some(net) = Net::new() else { return };
    let net = Arc::new(net);
    let postfix = Postfix::start(&net);
    let settings = Settings::in_place(&net);
    live_through(&net, postfix, settings);
}

#[test]
fn no_message_is_lost_where_every_session_is_replayed() {
    let Some(net) = Net::new() else { return };
    let net = Arc::new(net);
    let postfix = Postfix::start_with(&net, &[(BACKEND, "")]);
    let mut settings = Settings::front(&net, BACKEND).text("forward.steer", "off").text("cache.backend", "none");
    for test in ["pipelining", "non_smtp_command", "bare_newline"] {
        settings = settings.set(&format!("{test}.enable"), "true").text(&format!("{test}.action"), "enforce");
    }
    live_through(&net, postfix, settings);
}
