//! Drives one session: feeds it what happens, does what it asks for, and relays once the mail server has taken the client.
//!
//! No decision is made here. Every effect is carried out in the order in which the session gave it.

use std::{
    future::{Future, poll_fn, ready},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};
use tokio_rustls::{Accept, server::TlsStream};

use crate::{
    dns::Subscription,
    forward::{
        backend::OpenError,
        pass::{NotPassed, PassError, pass},
    },
    gate::Gate,
    screen::{
        Session,
        event::{DnsblAnswer, Effect, Endpoints, Envelope, Event, ForwardResult, Interest},
        outcome::Outcome,
        syn::Syn,
    },
};

use super::{
    closing::close,
    hand_over::{Taken, take},
    io::{Connection, Input, Transport},
};

type Handshake = Box<Accept<TcpStream>>;
type LookUp = Pin<Box<dyn Future<Output = (Subscription, Option<DnsblAnswer>)> + Send>>;
type Opening = Pin<Box<dyn Future<Output = Wake> + Send>>;

/// What woke a session.
enum Wake {
    Input(Input),
    WriteFailed,
    Timer,
    Dnsbl(Subscription, DnsblAnswer),
    DnsblDone,
    Handshake(Box<io::Result<TlsStream<TcpStream>>>),
    Opened(Result<Taken, OpenError>),
    Passed(Result<(), NotPassed>),
}

/// One client: its connection, its session, and what the session waits for. What is rarely there is boxed: this is most of what a
/// waiting client costs, and the runtime rounds a task up to 128 bytes (512 in all, when built for release).
pub(super) struct Driver {
    gate: Arc<Gate>,
    session: Session,
    connection: Connection,
    interest: Interest,
    timer: Option<Pin<Box<Sleep>>>,
    lookup: Option<LookUp>,
    tls_wanted: bool,
    handshake: Option<Handshake>,
    opening: Option<Opening>,
    taken: Option<Box<Taken>>,
    ended: Option<Box<Outcome>>,
    syn: Option<Syn>,
    in_tls: bool,
}

impl Driver {
    /// Opens the session of the client behind `stream`: the first decisions fall here, so that clients are counted and judged in the
    /// order in which they came.
    pub(super) fn open(gate: Arc<Gate>, stream: TcpStream, endpoints: Endpoints, syn: Option<Syn>) -> Self {
        gate.note_arrival(endpoints.client.ip());
        let stood = gate.stood(endpoints.client.ip());
        let standing = stood.standing();
        let (session, effects) = gate.screen().open_for(endpoints, standing, || stood.named(), gate.now());
        let mut driver = Self {
            gate,
            session,
            connection: Connection::new(stream),
            interest: Interest::Nothing,
            timer: None,
            lookup: None,
            tls_wanted: false,
            handshake: None,
            opening: None,
            taken: None,
            ended: None,
            syn,
            in_tls: false,
        };
        driver.perform(effects);
        driver.connection.send_first();
        driver
    }

    /// Screens the client until its session is over; [`Self::finish`] comes next. Apart, so that a task holds the driver once: what is
    /// passed to an `async fn` by value has a place in it for each function that it passes through.
    pub(super) async fn screen(&mut self) {
        while self.ended.is_none() {
            let wake = poll_fn(|cx| self.poll(cx)).await;
            self.tell(wake);
        }
    }

    /// Waits for whatever comes first. A timer that is due comes before input (spec 0.3).
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        match self.connection.poll_send(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(Wake::WriteFailed),
            Poll::Ready(Ok(())) if self.tls_wanted => self.begin_handshake(),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            self.timer = None;
            return Poll::Ready(Wake::Timer);
        }
        if let Some(handshake) = &mut self.handshake
            && let Poll::Ready(result) = Pin::new(handshake).poll(cx)
        {
            self.handshake = None;
            return Poll::Ready(Wake::Handshake(Box::new(result)));
        }
        if let Some(opening) = &mut self.opening
            && let Poll::Ready(wake) = opening.as_mut().poll(cx)
        {
            self.opening = None;
            return Poll::Ready(wake);
        }
        if let Some(lookup) = &mut self.lookup
            && let Poll::Ready((subscription, answer)) = lookup.as_mut().poll(cx)
        {
            self.lookup = None;
            return Poll::Ready(answer.map_or(Wake::DnsblDone, |answer| Wake::Dnsbl(subscription, answer)));
        }
        self.connection.poll_input(cx, self.interest).map(Wake::Input)
    }

    /// Tells the session what happened and does what it answers.
    fn tell(&mut self, wake: Wake) {
        match wake {
            Wake::Input(Input::Peeked(bytes)) => self.event(Event::Peeked(&bytes)),
            Wake::Input(Input::Received(bytes)) => self.event(Event::Received(&bytes)),
            Wake::Input(Input::Closed) => self.event(Event::PeerClosed),
            Wake::WriteFailed => self.event(Event::WriteFailed),
            Wake::Timer => self.event(Event::TimerFired),
            Wake::Dnsbl(subscription, answer) => {
                self.lookup = Some(next_answer(subscription));
                self.event(Event::Dnsbl(&answer));
            }
            Wake::DnsblDone => {}
            Wake::Handshake(result) => match *result {
                Ok(stream) => {
                    self.connection.transport = Transport::Tls(Box::new(stream));
                    self.event(Event::TlsEstablished);
                }
                // What the client did wrong in its handshake is TLS's business; to SMTP it has gone.
                Err(_) => self.event(Event::PeerClosed),
            },
            Wake::Opened(Ok(taken)) => {
                self.taken = Some(Box::new(taken));
                self.event(Event::Forwarded(ForwardResult::Accepted));
            }
            Wake::Opened(Err(error)) => {
                self.gate.log().warn(error.to_string());
                self.event(Event::Forwarded(match error {
                    OpenError::Unreachable { .. } | OpenError::Crowded | OpenError::NoneFits => {
                        ForwardResult::Unreachable
                    }
                    OpenError::NoAnswer { .. } => ForwardResult::Failed,
                }));
            }
            Wake::Passed(Ok(())) => self.event(Event::Forwarded(ForwardResult::Accepted)),
            Wake::Passed(Err(not_passed)) => self.not_passed(not_passed),
        }
    }

    fn not_passed(&mut self, NotPassed { error, client }: NotPassed) {
        self.gate.log().warn(error.to_string());
        match client {
            Some(client) => {
                self.connection.transport = Transport::Plain(client);
                self.event(Event::Forwarded(match error {
                    PassError::Unreachable { .. } => ForwardResult::Unreachable,
                    PassError::Failed { .. } | PassError::TimedOut { .. } => ForwardResult::Failed,
                }));
            }
            // The receiver may have it, or nobody has: there is nothing left to say.
            None => {
                let now = self.gate.now();
                let effects = self.session.abort(&mut self.gate.screen(), now);
                self.perform(effects);
            }
        }
    }

    fn event(&mut self, event: Event<'_>) {
        let now = self.gate.now();
        let effects = self.session.on(event, &mut self.gate.screen(), now);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(bytes) => self.connection.queue(&bytes),
                Effect::Watch(interest) => self.interest = interest,
                Effect::Arm(delay) => self.arm(delay),
                Effect::LookUp => {
                    self.lookup = self.gate.look_up(self.session.endpoints().client.ip()).map(next_answer);
                }
                Effect::EndLookUp => self.lookup = None,
                Effect::Log(line) => self.gate.log_line(&line),
                Effect::Remember(record) => self.gate.remember(self.session.client(), record),
                Effect::Bar(bar) => self.gate.bar(self.session.client(), &bar),
                Effect::StartTls => {
                    self.tls_wanted = true;
                    self.in_tls = true;
                    self.gate.tls_begins();
                }
                Effect::Forward => self.forward(None),
                Effect::Replay(envelope) => self.forward(Some(envelope)),
                Effect::End(mut outcome) => {
                    outcome.syn = self.syn.take();
                    self.ended = Some(outcome);
                }
            }
        }
    }

    fn arm(&mut self, delay: Duration) {
        let at = Instant::now() + delay;
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(at),
            None => self.timer = Some(Box::pin(sleep_until(at))),
        }
    }

    fn begin_handshake(&mut self) {
        self.tls_wanted = false;
        if let (Some(acceptor), Some(stream)) = (self.gate.tls_acceptor(), self.connection.take_plain()) {
            self.handshake = Some(Box::new(acceptor.accept(stream)));
        }
    }

    /// Has the mail server take the client: from its greeting on, or after it has heard what the client has said.
    fn forward(&mut self, envelope: Option<Box<Envelope>>) {
        let gate = Arc::clone(&self.gate);
        let endpoints = self.session.endpoints();
        let config = Arc::clone(&gate.config());
        let mut opening: Opening = match config.forward.pass_service() {
            // Who has talked with the screener can't begin anew with smtpd.
            Some(service) if envelope.is_none() => {
                let (service, limit) = (service.to_owned(), config.policy.limits.post_queue);
                let client = self.connection.take_for_another();
                Box::pin(async move {
                    Wake::Passed(pass(gate.passes(), limit, gate.keeper(), &service, client, &endpoints).await)
                })
            }
            _ => {
                let tls = self.connection.tls_facts();
                Box::pin(async move { Wake::Opened(take(&gate, envelope, &endpoints, tls).await) })
            }
        };
        // Begun at once, so that clients stand before the mail server in the order in which they were decided on.
        let begun = opening.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.opening = Some(match begun {
            Poll::Ready(result) => Box::pin(ready(result)),
            Poll::Pending => opening,
        });
    }

    /// What follows the session: the relay, or the last bytes and an orderly close. Returns when the connection is over. Boxed, so that
    /// a waiting client does not pay for what comes after.
    pub(super) fn finish(self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.last_things())
    }

    async fn last_things(mut self) {
        let gate = Arc::clone(&self.gate);
        if let Some(outcome) = self.ended.take() {
            gate.keep(*outcome);
        }
        self.timer = None;
        self.lookup = None;
        let taken = self.taken.take().map(|taken| *taken);
        // A connection that goes on in TLS keeps its place among those.
        let _in_tls = std::mem::take(&mut self.in_tls).then(|| InTls(Arc::clone(&gate)));
        // The client may be told the end of its session while the driver lingers over its socket: its place is free by then.
        let connection = std::mem::replace(&mut self.connection, Connection::gone());
        drop(self);
        match taken {
            Some(taken) => taken.relay(&gate, connection).await,
            None => close(connection).await,
        }
    }
}

/// The other end of [`Gate::tls_begins`], for a connection that outlives its session.
struct InTls(Arc<Gate>);

impl Drop for InTls {
    fn drop(&mut self) {
        self.0.tls_ended();
    }
}

fn next_answer(mut subscription: Subscription) -> LookUp {
    Box::pin(async move {
        let answer = subscription.next().await;
        (subscription, answer)
    })
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Also reached when the task is dropped in the middle of a session: its counts go with it.
        let now = self.gate.now();
        self.session.abort(&mut self.gate.screen(), now);
        if self.in_tls {
            self.gate.tls_ended();
        }
    }
}
