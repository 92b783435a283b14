//! A session that is over, judged once more: what it found is told to a session that goes by other settings.
//!
//! It is the session of production that decides. What it wants to know and nobody has found out is a [`Gap`]: as long as it can only
//! speak against the client, it is taken to speak for it, so that a client that is turned away all the same is known to be.

use std::{collections::VecDeque, time::Duration};

use super::{
    event::{DnsblAnswer, Effect, Endpoints, Event, ForwardResult, Interest, Now, Standing, ZoneReply},
    found::{Found, What, ZoneFound},
    outcome::{Outcome, Reason, Verdict},
    record::Test,
    session::{Session, State},
    shared::Screen,
};

/// More steps than a session of what can be found may take.
const MOST_STEPS: usize = 1024;
/// What times lose, at most, by being cut to milliseconds; in milliseconds.
const ROUNDING: u64 = 2;

/// A session that is over.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// Who talked with whom.
    pub endpoints: Endpoints,
    /// When it began, in milliseconds of Unix time.
    pub started: u64,
    /// How long it went on, in milliseconds.
    pub lasted: u32,
    /// What was found.
    pub found: &'a Found,
}

/// How a session would end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retrial {
    /// How, as far as is known.
    pub verdict: Verdict,
    /// What would decide that.
    pub reason: Reason,
    /// What would have to be known to be sure; `None`: it is sure.
    pub gap: Option<Gap>,
}

/// What nobody has found out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gap {
    /// What was known of the client: it did not come to the tests.
    Record,
    /// Whether it talks before the greeting: it was not tested.
    Pregreet,
    /// What it does in a longer wait than its own.
    Wait,
    /// What this zone says, which was not asked.
    Zone(Box<str>),
    /// What this zone says, which had not answered when the session ended.
    Answer(Box<str>),
    /// What it says to the dummy engine, which it did not meet.
    Deep,
    /// What it said beyond what is kept.
    Cut,
    /// What it would have said, had the session gone on.
    End,
    /// How it goes on with TLS, or without.
    Tls,
}

/// Opens the session of `case` anew on `screen`, which has no other sessions, and brings it to its end.
pub fn retry(screen: &mut Screen, case: &Case<'_>, standing: Standing) -> Retrial {
    let now = Now { monotonic: Duration::ZERO, unix_millis: case.started };
    screen.stage(case.endpoints, case.found, now.unix());
    let unlisted = matches!(standing, Standing::Unlisted | Standing::Denied);
    let (session, effects) = screen.open(case.endpoints, standing, now);
    let mut trial = Trial {
        case,
        screen,
        session,
        now: 0,
        timer: None,
        interest: Interest::Nothing,
        answers: Vec::new(),
        late: None,
        late_may_help: false,
        engine: None,
        results: case.found.heard.iter().filter_map(|heard| forwarded(heard.ms, &heard.what)).collect(),
        effects,
        gaps: Vec::new(),
        unsure: false,
    };
    if unlisted && trial.chose_blindly() {
        trial.unsure = true;
        trial.gaps.push(Gap::Record);
    }
    let ended = trial.run();
    let retrial = trial.judge(ended.as_deref());
    screen.clear();
    retrial
}

fn forwarded(ms: u32, what: &What) -> Option<(u64, ForwardResult)> {
    match what {
        What::Forwarded(result) => Some((ms.into(), *result)),
        What::Early(_) | What::LeftEarly | What::Said(_) | What::Left | What::Tls => None,
    }
}

/// What the client says to the dummy engine, in the time of the new session.
struct Words<'a> {
    queue: VecDeque<(u64, &'a What)>,
    /// When its session was over.
    over: u64,
}

struct Trial<'a, 'b> {
    case: &'a Case<'a>,
    screen: &'b mut Screen,
    session: Session,
    /// Milliseconds since it began.
    now: u64,
    timer: Option<u64>,
    interest: Interest,
    /// What zones say, and when; the next one is the last.
    answers: Vec<(u64, DnsblAnswer)>,
    /// A zone that had not answered.
    late: Option<Box<str>>,
    /// Whether it may speak for the client.
    late_may_help: bool,
    engine: Option<Words<'a>>,
    /// What became of handing the client over.
    results: VecDeque<(u64, ForwardResult)>,
    effects: Vec<Effect>,
    gaps: Vec<Gap>,
    /// Whether a gap may speak for the client.
    unsure: bool,
}

/// What comes next.
enum Step<'a> {
    Timer,
    Answer,
    Early(&'a What),
    Word,
    /// Nothing is known of what comes next.
    Nothing(Gap),
}

impl<'a> Trial<'a, '_> {
    /// Whether the session went by the record of a client of which nobody knows whether there is one.
    fn chose_blindly(&self) -> bool {
        let turned_away =
            matches!(self.session.reason, Reason::TooManyConnections | Reason::ServerPortsBusy | Reason::Denied);
        self.case.found.known.is_none()
            && !turned_away
            && !self.session.flags.denied
            && self.session.policy.enabled().next().is_some()
    }

    fn run(&mut self) -> Option<Box<Outcome>> {
        for _ in 0..MOST_STEPS {
            let mut forward = false;
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Arm(delay) => self.timer = Some(self.now.saturating_add(millis(delay))),
                    Effect::Watch(interest) => self.watch(interest),
                    Effect::LookUp => self.look_up(),
                    Effect::Forward | Effect::Replay(_) => forward = true,
                    Effect::End(outcome) => return Some(outcome),
                    Effect::Send(_)
                    | Effect::EndLookUp
                    | Effect::Log(_)
                    | Effect::Remember(_)
                    | Effect::Bar(_)
                    | Effect::StartTls => {}
                }
            }
            if forward { self.forward() } else { self.step() }
        }
        None
    }

    fn judge(mut self, ended: Option<&Outcome>) -> Retrial {
        let Some(outcome) = ended else {
            return Retrial { verdict: Verdict::Aborted, reason: Reason::None, gap: Some(Gap::Cut) };
        };
        let sure = self.gaps.is_empty() || (outcome.verdict == Verdict::Rejected && !self.unsure);
        let gap = (!sure).then(|| self.gaps.swap_remove(0));
        Retrial { verdict: outcome.verdict, reason: outcome.reason, gap }
    }

    fn watch(&mut self, interest: Interest) {
        if interest == Interest::Peek && !self.case.found.watched {
            self.gaps.push(Gap::Pregreet);
        }
        self.interest = interest;
    }

    fn look_up(&mut self) {
        let sites = std::sync::Arc::clone(&self.session.policy.dnsbl.sites);
        for (zone, asked) in sites.zones().iter().enumerate() {
            let found = self.case.found.zones.iter().find(|found| *found.zone == *asked.label());
            match found {
                None => {
                    self.gaps.push(Gap::Zone(asked.shown().into()));
                    self.unsure |= sites.weighings(zone).any(|weighing| weighing.weight < 0);
                    self.answers.push((self.now, DnsblAnswer { zone, reply: ZoneReply::NotListed { ttl: None } }));
                }
                Some(ZoneFound { ms: Some(ms), codes, .. }) => {
                    let reply = match codes.as_deref() {
                        None => ZoneReply::Failed,
                        Some([]) => ZoneReply::NotListed { ttl: None },
                        Some(codes) => ZoneReply::Listed { codes: codes.to_vec(), ttl: None },
                    };
                    self.answers.push((u64::from(*ms), DnsblAnswer { zone, reply }));
                }
                Some(_) => {
                    self.late = Some(asked.shown().into());
                    self.late_may_help |= sites.weighings(zone).any(|weighing| weighing.weight < 0);
                }
            }
        }
        // Stable, and turned round: the first is taken from the end.
        self.answers.sort_by_key(|(at, _)| *at);
        self.answers.reverse();
    }

    /// Does what comes next.
    fn step(&mut self) {
        let next = match self.session.state {
            State::Early => self.next_early(),
            State::Engine | State::Handshake => self.next_word(),
            State::Forwarding | State::Replaying | State::Ended => (self.now, Step::Nothing(Gap::End)),
        };
        let (at, step) = next;
        self.now = at.max(self.now);
        match step {
            Step::Timer => {
                self.timer = None;
                self.tell(Event::TimerFired);
            }
            Step::Answer => {
                if let Some((_, answer)) = self.answers.pop() {
                    self.tell(Event::Dnsbl(&answer));
                }
            }
            Step::Early(What::Early(said)) => self.tell(Event::Peeked(&said.0)),
            Step::Early(_) => self.tell(Event::PeerClosed),
            Step::Word => self.hear_word(),
            Step::Nothing(gap) => {
                self.gaps.push(gap);
                // Who has failed by now is turned away whatever comes; about others this says nothing.
                self.tell(Event::PeerClosed);
            }
        }
    }

    fn next_early(&mut self) -> (u64, Step<'a>) {
        let found = self.case.found;
        let early = found.heard.iter().find(|heard| matches!(heard.what, What::Early(_) | What::LeftEarly));
        let early = early.filter(|_| self.interest == Interest::Peek && found.watched);
        let timer = self.timer.unwrap_or(u64::MAX);
        let answer = self.answers.last().map_or(u64::MAX, |(at, _)| *at);
        let word = early.map_or(u64::MAX, |heard| heard.ms.into());
        if timer <= answer && timer <= word {
            self.waits_longer(timer);
            (timer, Step::Timer)
        } else if answer <= word {
            (answer, Step::Answer)
        } else if let Some(heard) = early {
            (word, Step::Early(&heard.what))
        } else {
            (self.now, Step::Nothing(Gap::End))
        }
    }

    /// Notes what nobody knows of a wait until `timer`.
    fn waits_longer(&mut self, timer: u64) {
        if timer <= u64::from(self.case.found.early) + ROUNDING {
            return;
        }
        if self.session.flags.watching(Test::Pregreet) && self.case.found.watched {
            self.gaps.push(Gap::Wait);
        }
        if let Some(zone) = self.late.take() {
            self.unsure |= self.late_may_help;
            self.gaps.push(Gap::Answer(zone));
        }
    }

    fn next_word(&mut self) -> (u64, Step<'a>) {
        let (case, now) = (self.case, self.now);
        let words = self.engine.get_or_insert_with(|| Words::of(case, now));
        let timer = self.timer.unwrap_or(u64::MAX);
        match words.queue.front() {
            Some((at, _)) if *at < timer => (*at, Step::Word),
            None if timer > words.over.saturating_add(ROUNDING) => (now, Step::Nothing(case.end_of_words())),
            Some(_) | None => (timer, Step::Timer),
        }
    }

    fn hear_word(&mut self) {
        let Some((_, what)) = self.engine.as_mut().and_then(|words| words.queue.pop_front()) else { return };
        match (what, self.session.state) {
            (What::Said(said), State::Engine) => self.tell(Event::Received(&said.0)),
            (What::Tls, State::Handshake) => self.tell(Event::TlsEstablished),
            (What::Left, _) => self.tell(Event::PeerClosed),
            // With TLS it would have said it in another way, and without it too.
            _ => {
                self.gaps.push(Gap::Tls);
                self.tell(Event::PeerClosed);
            }
        }
    }

    /// The mail server does what it did; of one that was not asked nothing bad is thought.
    fn forward(&mut self) {
        let left = self.case.found.heard.iter().any(|heard| heard.what == What::LeftEarly);
        let assumed = if left { ForwardResult::ClientLeft } else { ForwardResult::Accepted };
        let (at, result) = self.results.pop_front().unwrap_or((self.now, assumed));
        self.now = self.now.max(at);
        self.tell(Event::Forwarded(result));
    }

    fn tell(&mut self, event: Event<'_>) {
        let unix_millis = self.case.started.saturating_add(self.now);
        let now = Now { monotonic: Duration::from_millis(self.now), unix_millis };
        self.effects = self.session.on(event, self.screen, now);
    }
}

impl<'a> Words<'a> {
    /// The words of `case`, for an engine that begins at `now`.
    fn of(case: &'a Case<'a>, now: u64) -> Self {
        let mut begins = u64::from(case.found.early);
        let mut queue = VecDeque::new();
        for heard in &case.found.heard {
            match heard.what {
                What::Said(_) | What::Left | What::Tls => queue.push_back((u64::from(heard.ms), &heard.what)),
                // An engine that began after that.
                What::Forwarded(_) if queue.is_empty() => begins = heard.ms.into(),
                What::Early(_) | What::LeftEarly | What::Forwarded(_) => {}
            }
        }
        let shifted = |ms: u64| ms.saturating_sub(begins).saturating_add(now);
        queue.iter_mut().for_each(|(ms, _)| *ms = shifted(*ms));
        Self { queue, over: shifted(case.lasted.into()) }
    }
}

impl Case<'_> {
    /// Why no more words are known.
    fn end_of_words(&self) -> Gap {
        let said = |what: &What| matches!(what, What::Said(_));
        let accepted = |what: &What| matches!(what, What::Forwarded(ForwardResult::Accepted));
        let heard = || self.found.heard.iter().map(|heard| &heard.what);
        if self.found.cut {
            Gap::Cut
        } else if heard().any(accepted) || !heard().any(said) {
            Gap::Deep
        } else {
            Gap::End
        }
    }
}

/// Whole milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
