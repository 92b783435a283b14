//! The screener, from what the keeper hands it to the end of its last session.

use std::{
    net::TcpListener,
    os::unix::{
        net::{UnixListener, UnixStream as StdStream},
        process::parent_id,
    },
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::{io::AsyncReadExt as _, net::UnixStream, sync::watch, task::JoinHandle};

use super::{
    Counts, Gate, Phase, activity::Activity, blocklists::Imported, changes::Read, directory::Directory, feed::Fed,
    history::History, measures::Reloads, spf::Domains, tallies::Tallies, unix_now,
};
use crate::{
    access::runtime::RuntimeLists,
    cache::{Disk as _, Kept, StateFile, Store},
    config::{self, CacheBackend, Host, Loaded},
    forward::{pass::Passes, pool::Pool, relay::Traffic},
    journal::Journal,
    keeper::{DO_YOU_HEAR, Equipment, Keeper, LISTS, RELAY_NO_MORE, RELOAD, RETIRE, STOP},
    kernel::{Kernel, Maps, Plan},
    net::{listener, tls::TlsServer},
    operate::{
        control,
        exit::Failure,
        log::{Log, Target, Writer},
        metrics, trace,
    },
    sandbox,
    screen::Screen,
    share::Hosts,
};

/// How long sessions may go on after `stop`; a second request ends them.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Where the configuration came from, for `reload`.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) overrides: Vec<(String, String)>,
}

/// Runs the screener, which the keeper has started, until the keeper tells it to stop or ends.
///
/// # Errors
/// Something is wrong with what it was handed. The keeper has been told.
pub fn screen() -> Result<(), Failure> {
    let equipment = Equipment::receive()?;
    let keeper = equipment.keeper.clone();
    screen_with(equipment).inspect_err(|failure| keeper.fail(failure))
}

fn screen_with(equipment: Equipment) -> Result<(), Failure> {
    let Equipment {
        keeper,
        orders,
        control,
        listeners,
        metrics,
        log,
        maps,
        finds_servers,
        host,
        config,
        overrides,
        notices,
    } = equipment;
    let loaded = config::load(&host, &config, &overrides).map_err(Failure::usage)?;
    // The keeper is its parent, and what operators know the gate by.
    let target = Target::shared(&loaded.config.log, parent_id(), log);
    let target = target.map_err(|error| Failure::of_system(&error))?;
    // It was executed by another name, which `ps` would show. That it still does is no reason to give up.
    let _ = nix::sys::prctl::set_name(c"mxscreen");
    // Before the first thread, and before the first byte from the network.
    let missing = sandbox::enter().map_err(Failure::unavailable)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::unavailable)?;
    let (log, writer) = Log::start(target).map_err(|error| Failure::of_system(&error))?;
    trace::into_log(log.clone(), false);
    let work = Work {
        notices: [loaded.remarks(), notices, missing].concat(),
        source: Source { path: config, overrides },
        loaded,
        host,
        log,
        keeper,
        maps,
        finds_servers,
    };
    let result = runtime.block_on(serve(work, orders, control, (listeners, metrics)));
    // Sessions that outlived the drain are cut here.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Writer::finish(writer);
    result
}

/// What a gate is made of.
struct Work {
    loaded: Loaded,
    host: Host,
    source: Source,
    notices: Vec<String>,
    log: Log,
    keeper: Keeper,
    maps: Option<Maps>,
    finds_servers: bool,
}

async fn serve(
    work: Work,
    orders: StdStream,
    control: UnixListener,
    (listeners, metrics): (Vec<TcpListener>, Vec<TcpListener>),
) -> Result<(), Failure> {
    orders.set_nonblocking(true).map_err(Failure::unavailable)?;
    let orders = UnixStream::from_std(orders).map_err(Failure::unavailable)?;
    let (gate, kept) = start(work)?;
    let phase = gate.phase.subscribe();
    for listener in listeners {
        let (gate, phase) = (Arc::clone(&gate), phase.clone());
        tokio::spawn(async move {
            if let Err(error) = listener::accept_all(listener, Arc::clone(&gate), phase).await {
                gate.log.warn(format!("a listener ended: {error}"));
            }
        });
    }
    metrics::serve(metrics, &gate, &phase).map_err(Failure::unavailable)?;
    let (serving, phase_of_control) = (Arc::clone(&gate), phase.clone());
    tokio::spawn(async move {
        if let Err(error) = control::serve(control, Arc::clone(&serving), phase_of_control).await {
            serving.log.warn(format!("the control socket ended: {error}"));
        }
    });
    tokio::spawn(Arc::clone(&gate).keep_house());
    tokio::spawn(Arc::clone(&gate).log_kernel_events());
    tokio::spawn(Arc::clone(&gate).keep_lists());
    // Clients are served and orders taken meanwhile.
    let warming = tokio::spawn(Arc::clone(&gate).warm_up(kept));
    gate.until_told_to_stop(phase, orders, warming).await;
    Ok(())
}

/// Everything that can fail, before the first client is touched. What the last run has learnt of clients has yet to be taken up.
fn start(work: Work) -> Result<(Arc<Gate>, Kept), Failure> {
    let Work { loaded, host, source, mut notices, log, keeper, maps, finds_servers } = work;
    let Loaded { config, settings, .. } = loaded;
    let tls = TlsServer::for_config(&config.tls, &host).map_err(Failure::usage)?.map(Arc::new);
    let read = Read::of(settings, &config, &host.facts(), &source.path);
    let path = StateFile::within(&config.state_directory).path().to_owned();
    let hosts = Arc::new(Hosts::new(&config.cache.host));
    let opened = Store::open(&config.cache, keeper.store(path), Arc::clone(&hosts));
    notices.extend(opened.complaint);
    let kernel = maps.map(|maps| Kernel::open(maps, &Plan::from_config(&config), finds_servers)).transpose();
    let kernel = kernel.map_err(|error| Failure::of_kernel(&error))?;
    for notice in &notices {
        log.warn(notice.clone());
    }
    let journal = Journal::start(config.journal, keeper.segments(), &log);
    let mut screen = Screen::new(config.policy.clone());
    screen.keep_found(config.journal.max_size > 0);
    screen.expect(opened.records.len());
    let pool = Arc::new(Pool::new(&config.forward, log.clone()));
    let gate = Gate {
        dnsbl: ArcSwapOption::empty(),
        config: ArcSwap::from_pointee(config),
        source,
        read: Mutex::new(read),
        lists: RwLock::new(RuntimeLists::default()),
        imported: RwLock::new(Imported::default()),
        directory: Directory::default(),
        fed: Mutex::new(Fed::default()),
        feeding: Mutex::new(()),
        domains: Mutex::new(Domains::default()),
        tls: ArcSwapOption::from(tls),
        store: opened.store,
        warming: Mutex::default(),
        link: OnceLock::new(),
        sharing_stops: watch::Sender::new(false),
        clock: screen.clock(),
        screen: Mutex::new(screen),
        hosts,
        kernel,
        keeper,
        log,
        notices: Mutex::new(notices),
        counts: Counts::default(),
        tallies: Tallies::default(),
        reloads: Mutex::new(Reloads::begin(unix_now())),
        history: History::default(),
        activity: Activity::default(),
        journal,
        traffic: Traffic::default(),
        pool,
        surveyed: Mutex::default(),
        passes: Passes::default(),
        started: Instant::now(),
        started_unix: unix_now(),
        detaches: AtomicBool::new(false),
        relays_no_more: AtomicBool::new(false),
        phase: watch::Sender::new(Phase::Running),
    };
    let gate = Arc::new(gate);
    gate.offer_tls();
    gate.set_dnsbl(&gate.config.load_full())?;
    let spf = Gate::spf_of(&gate.config.load())?;
    gate.restore_entries(opened.entries);
    gate.feed_all_lists();
    gate.follow_directory();
    gate.follow_domains(spf);
    if let Some(kernel) = &gate.kernel {
        kernel.begin_steering().map_err(|error| Failure::of_kernel(&error))?;
    }
    // The lists are complete, and the passes that a former gate gave are in their table: from here on the programs decide by them.
    gate.keeper.activate()?;
    Ok((gate, opened.records))
}

/// What the keeper wants.
enum Order {
    Stop,
    Reload,
    /// Files of block lists have changed.
    Lists,
    /// Another version of the program takes over.
    Retire,
    RelayNoMore,
    /// The keeper wants to know whether it is heard.
    DoYouHear,
    /// The keeper is gone, and with it whoever could give orders.
    Orphaned,
}

/// Why the gate takes no clients any more.
enum Why {
    Stopped,
    /// The keeper is gone.
    Orphaned,
    /// Another version of the program has taken over.
    Retired,
}

async fn next_order(orders: &mut UnixStream) -> Order {
    loop {
        match orders.read_u8().await {
            Ok(STOP) => return Order::Stop,
            Ok(RELOAD) => return Order::Reload,
            Ok(LISTS) => return Order::Lists,
            Ok(RETIRE) => return Order::Retire,
            Ok(RELAY_NO_MORE) => return Order::RelayNoMore,
            Ok(DO_YOU_HEAR) => return Order::DoYouHear,
            Ok(_) => {}
            Err(_) => return Order::Orphaned,
        }
    }
}

impl Gate {
    async fn until_told_to_stop(
        self: &Arc<Self>,
        mut phase: watch::Receiver<Phase>,
        mut orders: UnixStream,
        warming: JoinHandle<()>,
    ) {
        let why = loop {
            tokio::select! {
                order = next_order(&mut orders) => match order {
                    Order::Stop => break Why::Stopped,
                    Order::Retire => break Why::Retired,
                    Order::Orphaned => break Why::Orphaned,
                    // For those that have retired.
                    Order::RelayNoMore => {}
                    Order::Lists => self.directory.look(),
                    Order::DoYouHear => {
                        // There is room for a letter, as one is asked for at a time; and a keeper that is gone is noticed by the next order.
                        let _ = orders.try_write(&[DO_YOU_HEAR]);
                    }
                    Order::Reload => {
                        let gate = Arc::clone(self);
                        // Whoever sent the signal reads the log.
                        let _ = tokio::task::spawn_blocking(move || gate.reload_and_log()).await;
                    }
                },
                _ = phase.wait_for(|phase| *phase >= Phase::StopAsked) => break Why::Stopped,
            }
        };
        match why {
            // First of all the port goes back: from here on every new client meets the mail server. Whoever is in a listener's queue by
            // then is still taken, as the queue would be reset with its listener.
            Why::Stopped => self.release_port().await,
            // A new keeper is to find the sockets and the cache file free. Strangers get what `kernel.on_screener_down` says, known-good
            // clients the mail server.
            Why::Orphaned => self.log.warn("the keeper is gone"),
            // The next version has the sockets already; strangers wait in their queues.
            Why::Retired => {}
        }
        self.phase.send_replace(Phase::Closing);
        // It ends with the phase, and lets go of the cache file.
        let _ = warming.await;
        self.log.info(format!("stopping: {} connections go on", self.counts.connections.load(Ordering::Relaxed)));
        match why {
            Why::Stopped => {
                self.drain(&mut orders).await;
                self.end_sharing().await;
                self.store.flush();
            }
            Why::Orphaned => {
                self.end_sharing().await;
                self.store.close();
                tokio::time::timeout(DRAIN_LIMIT, drained(&self.counts)).await.unwrap_or_default();
            }
            Why::Retired => {
                self.end_sharing().await;
                self.store.close();
                let keeper = self.keeper.clone();
                // It only fails where the runtime ends.
                let _ = tokio::task::spawn_blocking(move || keeper.retired()).await;
                tokio::select! {
                    () = drained(&self.counts) => {}
                    () = self.until_to_end_soon(&mut orders) => self.drain(&mut orders).await,
                }
            }
        }
        self.journal.close();
        self.log.info("stopped");
    }

    /// Waits for the sessions, for half a minute or until a second order to stop.
    async fn drain(&self, orders: &mut UnixStream) {
        tokio::select! {
            () = drained(&self.counts) => {}
            () = tokio::time::sleep(DRAIN_LIMIT) => {}
            () = hurried(orders) => {}
        }
    }

    /// Takes the orders of one who has retired, until the sessions are to end soon.
    async fn until_to_end_soon(&self, orders: &mut UnixStream) {
        loop {
            match next_order(orders).await {
                Order::Stop => return,
                // The next keeper is gone as well.
                Order::Orphaned => {
                    tokio::time::sleep(DRAIN_LIMIT).await;
                    return;
                }
                Order::RelayNoMore => self.relays_no_more.store(true, Ordering::Release),
                Order::Reload | Order::Lists | Order::Retire | Order::DoYouHear => {}
            }
        }
    }

    /// Gives the port to the mail server. The kernel goes on with what it knows, unless its programs are to be taken off.
    async fn release_port(self: &Arc<Self>) {
        let mut detach = self.detaches.load(Ordering::Acquire);
        if let (Some(kernel), false) = (&self.kernel, detach)
            && let Err(error) = kernel.release()
        {
            self.log.warn(format!("the kernel's programs are taken off: {error}"));
            detach = true;
        }
        let keeper = self.keeper.clone();
        // The keeper may be busy, and is waited for.
        match tokio::task::spawn_blocking(move || keeper.release(detach)).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => self.log.warn(failure.message),
            Err(error) => self.log.warn(error.to_string()),
        }
    }

    /// Begins to stop, as a signal would, and returns when the port is given back. With `detach` the kernel's programs go too.
    pub(super) async fn stop(&self, detach: bool) {
        self.detaches.fetch_or(detach, Ordering::AcqRel);
        self.phase.send_if_modified(|phase| {
            let running = *phase == Phase::Running;
            *phase = (*phase).max(Phase::StopAsked);
            running
        });
        // It can't fail: the other end of the channel is the gate's own.
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Closing).await;
    }
}

/// A second order to stop, or the end of the keeper.
async fn hurried(orders: &mut UnixStream) {
    while !matches!(next_order(orders).await, Order::Stop | Order::Orphaned) {}
}

async fn drained(counts: &Counts) {
    let busy = |count: &AtomicU32| count.load(Ordering::Relaxed) > 0;
    while busy(&counts.connections) || busy(&counts.requests) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How the store is called in `status`.
pub(super) fn backend_name(backend: &CacheBackend) -> &'static str {
    match backend {
        CacheBackend::Memory => "memory",
        CacheBackend::Embedded => "embedded",
        CacheBackend::Redis(_) => "redis",
    }
}
