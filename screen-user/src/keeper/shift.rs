//! One screener: started, equipped, and seen off. What it asks for meanwhile is answered in `answers`.

mod answers;

use std::{
    io::{self, Write as _},
    os::unix::{net::UnixStream, process::ExitStatusExt as _},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use tokio::{
    process::Child,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until},
};

use super::{
    Order, Signals,
    channel::Channel,
    equip::{equip, spawn},
    heir::{Relieved, bury},
    kernel,
    lists::{self, Watch},
    message::{Begin, LISTS, RELOAD, RETIRE, STOP, ToKeeper, ToScreener},
    post::Post,
    systemd::{self, Pulse},
};
use crate::{
    kernel::{Installation, Maps},
    operate::exit::{Failure, chain},
};

/// Between two looks at all sockets.
const LOOK_AT_SOCKETS: Duration = Duration::from_secs(10);
/// Between two looks at the queues of the mail server's listeners.
const LOOK_AT_SERVERS: Duration = Duration::from_secs(1);
/// How long a screener that is told to stop may take to give the port back.
const HEARING: Duration = Duration::from_secs(5);
/// How long it may take from then on to end: its sessions have half a minute.
const DRAINING: Duration = Duration::from_secs(40);

/// How a screener ended.
#[derive(Debug)]
pub(super) enum End {
    /// As it was told to.
    Stopped,
    /// It could not go on, and said why.
    Failed(Failure),
    /// Without a word; this is what there is to say of it.
    Died(String),
    /// It brings its sessions to their ends, and takes orders; another version of the program is to take over.
    Retired(Box<(Child, UnixStream)>),
}

/// What is left of a screener that has ended.
pub(super) struct Served {
    pub(super) end: End,
    /// The kernel half that it worked with.
    pub(super) installation: Option<Arc<Installation>>,
    /// Since when it has taken clients, if it came to that.
    pub(super) active_since: Option<Instant>,
}

/// A running screener.
pub(super) struct Shift {
    child: Child,
    channel: Arc<Channel>,
    requests: mpsc::Receiver<ToKeeper>,
    orders: UnixStream,
    installation: Option<Arc<Installation>>,
    /// The directory of block lists, where there is one.
    watch: Option<Watch>,
    /// What goes on beside it.
    tasks: JoinSet<()>,
    /// Since when the programs decide by its tables.
    active_since: Option<Instant>,
    /// All that is known is in force.
    ready: bool,
    pulse: Pulse,
    /// Strangers meet it no more.
    released: bool,
    /// It has said why it can't go on.
    failed: Option<Failure>,
    /// Another version is asked whether it can take over.
    candidate: Option<JoinHandle<Result<Vec<String>, Failure>>>,
    /// It takes no clients any more.
    retired: bool,
    /// When it is not waited for any longer.
    deadline: Option<Instant>,
}

impl Shift {
    /// Loads the kernel half, starts a screener and hands it what it works with.
    pub(super) fn start(post: &mut Post) -> Result<Self, Failure> {
        let mut notices = post.notices.clone();
        let installation = kernel::load(&post.config, &mut notices)?.map(Arc::new);
        if installation.as_ref().is_some_and(|installation| installation.replaces_relays()) {
            post.relieved.iter_mut().for_each(Relieved::relay_no_more);
        }
        let (ours, theirs) = Channel::pair().map_err(Failure::unavailable)?;
        let ours = Arc::new(ours);
        let (orders, from_us) = UnixStream::pair().map_err(Failure::unavailable)?;
        orders.set_nonblocking(true).map_err(Failure::unavailable)?;
        let child = spawn(post, theirs).map_err(|error| Failure::unavailable(format!("the screener: {error}")))?;
        let maps = installation.as_ref().map(|installation| installation.maps()).transpose();
        let maps = maps.map_err(|error| Failure::of_kernel(&error))?;
        let begin = Begin {
            processors: maps.as_ref().map(Maps::processors),
            config: post.source.path.clone(),
            overrides: post.source.overrides.clone(),
            users: post.facts.users.clone(),
            finds_servers: installation.as_ref().is_some_and(|installation| installation.finds_servers()),
            notices,
        };
        // A screener that has ended by now is noticed by its end.
        if let Err(error) = equip(&ours, post, &from_us, maps.as_ref(), begin)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(Failure::unavailable(format!("the screener could not be equipped: {error}")));
        }
        Ok(Self {
            child,
            requests: requests(Arc::clone(&ours)).map_err(Failure::unavailable)?,
            channel: ours,
            orders,
            installation,
            watch: post.config.blocklists.directory.as_deref().map(Watch::begin),
            tasks: JoinSet::new(),
            active_since: None,
            ready: false,
            pulse: Pulse::default(),
            released: false,
            failed: None,
            candidate: None,
            retired: false,
            deadline: None,
        })
    }

    /// Answers the screener until it ends.
    pub(super) async fn serve(mut self, post: &mut Post, signals: &mut Signals) -> Served {
        let mut sockets = ticks(LOOK_AT_SOCKETS);
        let mut servers = ticks(LOOK_AT_SERVERS);
        let mut beats = systemd::watchdog().map(ticks);
        // What came before, another version in this process at the most, has used up some of the service manager's patience.
        systemd::alive();
        let ended = loop {
            tokio::select! {
                ended = self.child.wait() => break ended,
                // When there are none to come any more, its end is near.
                Some(request) = self.requests.recv() => {
                    self.answer(request, post);
                    if self.retired {
                        self.tasks.shutdown().await;
                        let end = End::Retired(Box::new((self.child, self.orders)));
                        return Served { end, installation: self.installation, active_since: self.active_since };
                    }
                }
                order = signals.next() => self.pass_on(order),
                () = lists::changed(&mut self.watch) => self.order(LISTS),
                // Nobody asks how a task has ended, but the next ones need its place.
                Some(_) = self.tasks.join_next() => {}
                checked = joined(&mut self.candidate) => self.decide(checked),
                _ = sockets.tick(), if self.active_since.is_some() => self.look_at_sockets(post),
                _ = servers.tick(), if self.active_since.is_some() => self.look_at_servers(post),
                () = tick(&mut beats) => self.look_at_screener(),
                () = until(self.deadline) => {
                    // It does not hear; nobody may be left waiting for it. That it has gone already is no error.
                    let _ = self.child.start_kill();
                }
            }
        };
        self.tasks.shutdown().await;
        let end = match (self.failed.take(), ended) {
            (Some(failure), _) => End::Failed(failure),
            (None, Ok(status)) if self.released && status.success() => End::Stopped,
            (None, Ok(status)) if self.deadline.is_some() => {
                if let (Some(installation), false) = (&self.installation, self.released) {
                    installation.release_port();
                }
                post.log.warn(format!("the screener was told to stop and {}", how(status)));
                End::Stopped
            }
            (None, Ok(status)) => End::Died(format!("the screener {}", how(status))),
            (None, Err(error)) => End::Died(format!("the screener is lost: {error}")),
        };
        Served { end, installation: self.installation, active_since: self.active_since }
    }

    fn pass_on(&mut self, order: Order) {
        if order == Order::Stop {
            self.deadline.get_or_insert_with(|| Instant::now() + HEARING);
        }
        let letter = match order {
            Order::Stop => STOP,
            Order::Reload => RELOAD,
        };
        self.order(letter);
    }

    /// A screener that is gone, or that has not heard some thousand orders, hears no more.
    fn order(&mut self, letter: u8) {
        let _ = self.orders.write(&[letter]);
    }

    fn look_at_sockets(&self, post: &mut Post) {
        bury(&mut post.relieved, &post.log);
        if let Some(installation) = &self.installation
            && let Err(error) = installation.look_at_sockets()
        {
            post.log.warn(format!("sockets were not looked at: {}", chain(&error)));
        }
    }

    fn look_at_servers(&self, post: &Post) {
        let Some(installation) = &self.installation else { return };
        match installation.look_at_servers() {
            Ok(changed) => changed.into_iter().for_each(|change| post.log.warn(change)),
            Err(error) => {
                post.log.warn(format!("the mail server's listeners are not watched: {}", chain(&error)));
            }
        }
    }

    /// The service manager hears of a gate whose screener hears. One that begins has its time, and one that is to stop its deadline.
    fn look_at_screener(&mut self) {
        if self.active_since.is_none() || self.deadline.is_some() || self.pulse.take(&mut self.orders) {
            systemd::alive();
        }
    }

    /// Another version can take over, or can't.
    fn decide(&mut self, checked: Result<Vec<String>, Failure>) {
        match checked {
            Ok(said) => {
                self.send(&ToScreener::Said(said), None);
                self.order(RETIRE);
            }
            Err(failure) => self.send(&ToScreener::Failed((&failure).into()), None),
        }
    }
}

/// What the screener asks for, read by a thread of its own until the screener has ended.
fn requests(channel: Arc<Channel>) -> io::Result<mpsc::Receiver<ToKeeper>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::Builder::new().name("requests".to_owned()).spawn(move || {
        while let Ok(Some((request, _))) = channel.receive() {
            if sender.blocking_send(request).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The next tick; for ever nothing where there are none.
async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}

/// What has become of a task, once; for ever nothing where there is none.
async fn joined<T>(task: &mut Option<JoinHandle<Result<T, Failure>>>) -> Result<T, Failure> {
    let Some(running) = task else { return std::future::pending().await };
    let ended = running.await;
    *task = None;
    ended.unwrap_or_else(|error| Err(Failure::bug(error)))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// How a process ended, in words.
fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "has ended".to_owned(),
        (Some(code), _) => format!("has ended with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "has ended somehow".to_owned(),
    }
}
