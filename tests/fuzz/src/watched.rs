//! A session, and what must hold of it whatever happens.

use std::time::Duration;

use screen_user::screen::{
    READ_LIMIT, Session,
    event::{Effect, Endpoints, Event, ForwardResult, Standing},
    outcome::Verdict,
};

use crate::World;

/// The longest log line, escapes included.
const LONGEST_LOG_LINE: usize = 8192;

/// One connection with its driver's view of it.
#[derive(Debug)]
pub struct Watched {
    session: Session,
    timer: Option<Duration>,
    forwards: bool,
    replays: bool,
    barred: bool,
    ended: bool,
    in_tls: bool,
    logged: Vec<String>,
}

impl Watched {
    /// A client connects from `client`, `ADDRESS:PORT`.
    ///
    /// # Panics
    /// When `client` is no such thing, or an invariant is broken.
    #[must_use]
    pub fn connect(world: &mut World, client: &str, standing: Standing) -> Self {
        let endpoints = Endpoints {
            client: client.parse().expect("an address and a port"),
            server: "198.51.100.2:25".parse().expect("an address and a port"),
        };
        let now = world.clock();
        let (session, effects) = world.screen.open(endpoints, standing, now);
        let mut watched = Self {
            session,
            timer: None,
            forwards: false,
            replays: false,
            barred: false,
            ended: false,
            in_tls: false,
            logged: Vec::new(),
        };
        watched.take(effects, None, world);
        watched
    }

    /// One event. Returns what the client hears of it, with LF for CR LF.
    ///
    /// # Panics
    /// When an invariant is broken.
    pub fn tell(&mut self, world: &mut World, event: Event<'_>) -> String {
        let before = self.ended;
        let now = world.clock();
        let effects = self.session.on(event, &mut world.screen, now);
        assert!(!before || effects.is_empty(), "something after the end: {effects:?}");
        let result = if let Event::Forwarded(result) = event { Some(result) } else { None };
        self.take(effects, result, world)
    }

    /// The driver dies.
    ///
    /// # Panics
    /// When an invariant is broken.
    pub fn abort(&mut self, world: &mut World) {
        let before = self.ended;
        let now = world.clock();
        let effects = self.session.abort(&mut world.screen, now);
        assert!(before || effects.iter().any(|effect| matches!(effect, Effect::End(_))), "no end after an abort");
        self.take(effects, None, world);
    }

    /// Lets time pass, timers included.
    ///
    /// # Panics
    /// When an invariant is broken.
    pub fn wait(&mut self, world: &mut World, time: Duration) -> String {
        let end = world.now + time;
        let mut heard = String::new();
        while let Some(at) = self.timer.filter(|&at| at <= end && !self.ended) {
            world.now = at.max(world.now);
            self.timer = None;
            heard.push_str(&self.tell(world, Event::TimerFired));
        }
        world.now = end;
        heard
    }

    /// Sends RCPT on a line of its own.
    ///
    /// # Panics
    /// When it is accepted.
    pub fn offer_recipient(&mut self, world: &mut World, recipient: &[u8]) {
        // What the engine holds of an earlier line is ended first.
        self.tell(world, Event::Received(b"\r\n"));
        let recipient: Vec<u8> = recipient.iter().copied().filter(|byte| *byte != b'\n').collect();
        let line = [b"RCPT TO:".as_slice(), &recipient, b"\r\n"].concat();
        let heard = self.tell(world, Event::Received(&line));
        assert!(!heard.lines().any(|line| line.starts_with('2')), "RCPT accepted: {heard}");
    }

    /// Brings the session to its end by nothing but its timer and a mail server that is down.
    ///
    /// # Panics
    /// When that takes more than a few steps.
    pub fn run_out(&mut self, world: &mut World) {
        for _ in 0..8 {
            if self.ended {
                return;
            }
            self.tell(world, Event::Forwarded(ForwardResult::Unreachable));
            if let Some(at) = self.timer.take() {
                world.now = world.now.max(at);
                self.tell(world, Event::TimerFired);
            }
        }
        panic!("the session does not end: {:?}", self.session);
    }

    /// Whether the session is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Everything that was logged.
    #[must_use]
    pub fn logged(&self) -> &[String] {
        &self.logged
    }

    /// Carries out effects as the driver does, and looks at each of them.
    fn take(&mut self, effects: Vec<Effect>, forwarded: Option<ForwardResult>, world: &World) -> String {
        let mut heard = Vec::new();
        for effect in effects {
            assert!(!self.ended, "{effect:?} after the end");
            match effect {
                Effect::Send(bytes) => {
                    assert!(!bytes.is_empty() && bytes.ends_with(b"\r\n"), "a reply in pieces: {bytes:?}");
                    heard.extend(bytes);
                }
                Effect::Log(line) => {
                    let line = line.to_string();
                    assert!(line.len() < LONGEST_LOG_LINE && !line.chars().any(|c| c.is_ascii_control()), "{line:?}");
                    self.logged.push(line);
                }
                Effect::Arm(delay) => self.timer = Some(world.now + delay),
                Effect::Bar(_) => {
                    assert!(!self.forwards, "barred after it passed");
                    self.barred = true;
                }
                Effect::Forward => {
                    assert!(!self.barred && !self.in_tls && !self.forwards, "handed over, and must not be");
                    self.forwards = true;
                }
                Effect::Replay(envelope) => {
                    assert!(!self.barred && !self.forwards && !self.replays, "handed over, and must not be");
                    let mut lines = [&envelope.hello, &envelope.mail, &envelope.rcpt].into_iter().flatten();
                    assert!(lines.all(|line| !line.contains(&b'\n')), "two lines in one: {envelope:?}");
                    assert!(envelope.behind.len() <= READ_LIMIT);
                    self.replays = true;
                }
                Effect::StartTls => {
                    assert!(!self.in_tls, "TLS in TLS");
                    self.in_tls = true;
                }
                Effect::End(outcome) => {
                    let accepted = forwarded == Some(ForwardResult::Accepted);
                    assert_eq!(outcome.was_forwarded(), (self.forwards || self.replays) && accepted, "{outcome:?}");
                    assert!(!self.barred || outcome.verdict != Verdict::Forwarded);
                    self.ended = true;
                }
                Effect::Watch(_) | Effect::LookUp | Effect::EndLookUp | Effect::Remember(_) => {}
            }
        }
        assert_eq!(self.ended, self.session.has_ended());
        let kept = self.session.kept_bytes();
        assert!(kept <= world.most_kept(), "{kept} bytes kept");
        let heard = String::from_utf8(heard).expect("replies are text").replace("\r\n", "\n");
        assert!(!heard.contains('\r'), "{heard:?}");
        assert!(!heard.lines().any(|line| line.starts_with("354")), "the dummy engine asks for a message: {heard}");
        heard
    }
}
