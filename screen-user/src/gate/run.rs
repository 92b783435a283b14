//! From a configuration file to a running gate, and back to a free port.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    Counts, Gate, Phase,
    blocklists::Imported,
    feed::{Fed, chain},
    history::History,
    interfaces, unix_now,
};
use crate::{
    access::runtime::RuntimeLists,
    cache::Store,
    config::{self, CacheBackend, ClientAddress, Config, Layout, Loaded},
    forward::{backend::Openings, probe, relay::Traffic},
    kernel::{Family, Installation, Kernel, KernelError, Plan},
    net::{listener, tls::TlsServer},
    operate::{
        control,
        exit::Failure,
        log::{Log, Writer},
        trace,
    },
    screen::Screen,
};

/// How long sessions may go on after `stop`; a second request ends them.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Where the configuration came from, for `reload`.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) overrides: Vec<(String, String)>,
}

/// Runs the gate in the foreground until it is told to stop.
///
/// # Errors
/// The configuration is wrong (exit 64), something that it needs is not there (69), or a privilege is missing (77). Nothing
/// has been started or changed then.
pub fn run(path: &Path, overrides: &[(String, String)]) -> Result<(), Failure> {
    let loaded = config::load(path, overrides).map_err(Failure::usage)?;
    let source = Source { path: path.to_owned(), overrides: overrides.to_vec() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::unavailable)?;
    let (log, writer) = Log::open(&loaded.config.log.target).map_err(|error| system_failure(&error))?;
    trace::into_log(log.clone(), loaded.config.kernel.debug);
    let result = runtime.block_on(serve(loaded, source, log));
    // Sessions that outlived the drain are cut here.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Writer::finish(writer);
    result
}

async fn serve(loaded: Loaded, source: Source, log: Log) -> Result<(), Failure> {
    let control_socket = loaded.config.control_socket.clone();
    let (gate, listeners, control) = start(loaded, source, log).await?;
    let phase = gate.phase.subscribe();
    for listener in listeners {
        let (gate, phase) = (Arc::clone(&gate), phase.clone());
        tokio::spawn(async move {
            if let Err(error) = listener::accept_all(listener, Arc::clone(&gate), phase).await {
                gate.log.warn(format!("a listener ended: {error}"));
            }
        });
    }
    tokio::spawn(control::serve(control, Arc::clone(&gate), phase.clone()));
    tokio::spawn(Arc::clone(&gate).keep_house());
    tokio::spawn(Arc::clone(&gate).log_kernel_events());
    if let Some(messages) = gate.installation.as_ref().and_then(Installation::messages) {
        tokio::spawn(messages.pass_on());
    }
    let following = Arc::clone(&gate);
    tokio::spawn(async move {
        if let Some(installation) = &following.installation {
            interfaces::follow(installation, &following.log).await;
        }
    });
    gate.log.info("ready");
    // Without systemd there is nobody to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    gate.until_told_to_stop(phase).await?;
    // Nothing is left to do about a socket that somebody else removed.
    let _ = std::fs::remove_file(control_socket);
    Ok(())
}

/// Everything that can fail, before the first client is touched.
async fn start(
    loaded: Loaded,
    source: Source,
    log: Log,
) -> Result<(Arc<Gate>, Vec<TcpListener>, UnixListener), Failure> {
    let mut notices = loaded.remarks();
    let config = loaded.config;
    let control = control::listen(&config.control_socket).map_err(|error| system_failure(&error))?;
    let listeners = config
        .listen
        .iter()
        .map(|&address| listener::listen(address))
        .collect::<Result<Vec<_>, _>>()
        .map_err(listen_failure)?;
    let tls = TlsServer::for_config(&config.tls).map_err(Failure::usage)?.map(Arc::new);
    let opened = Store::open(&config.cache, &config.state_directory);
    notices.extend(opened.complaint);
    notices.extend(probe::unreachable(&config).await);
    let (installation, kernel) = start_kernel(&config, &mut notices)?.unzip();
    for notice in &notices {
        log.warn(notice.clone());
    }
    let mut screen = Screen::new(config.policy.clone());
    screen.restore(opened.records, unix_now());
    let gate = Gate {
        dnsbl: ArcSwapOption::empty(),
        config: ArcSwap::from_pointee(config),
        source,
        screen: Mutex::new(screen),
        lists: RwLock::new(RuntimeLists::default()),
        imported: RwLock::new(Imported::default()),
        fed: Mutex::new(Fed::default()),
        tls: ArcSwapOption::from(tls),
        store: opened.store,
        kernel,
        installation,
        log,
        notices: Mutex::new(notices),
        counts: Counts::default(),
        history: History::default(),
        traffic: Traffic::default(),
        openings: Openings::default(),
        started: Instant::now(),
        started_unix: unix_now(),
        detaches: AtomicBool::new(false),
        phase: watch::Sender::new(Phase::Running),
    };
    let gate = Arc::new(gate);
    gate.offer_tls();
    gate.set_dnsbl(&gate.config.load_full())?;
    gate.restore_entries(opened.entries);
    gate.feed_everything();
    if let (Some(kernel), Some(installation)) = (&gate.kernel, &gate.installation) {
        for listener in &listeners {
            register(installation, listener).map_err(|error| kernel_failure(&error))?;
        }
        // The tables are complete: from here on the programs decide by them. The mail server listens already, or known-good clients would meet
        // the screener.
        kernel
            .begin_steering()
            .and_then(|()| installation.look_at_sockets())
            .and_then(|()| installation.activate())
            .and_then(|()| installation.look_at_sockets())
            .map_err(|error| kernel_failure(&error))?;
    }
    Ok((gate, listeners, control))
}

/// What the system refused, with the status for it.
fn system_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::PermissionDenied {
        Failure::no_permission(error)
    } else {
        Failure::unavailable(error)
    }
}

fn listen_failure(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::PermissionDenied {
        Failure::no_permission(format!("{error}: CAP_NET_BIND_SERVICE is missing"))
    } else {
        Failure::unavailable(error)
    }
}

fn kernel_failure(error: &KernelError) -> Failure {
    let message = chain(error);
    match error {
        KernelError::Privilege { .. } => Failure::no_permission(message),
        KernelError::Plan(_) => Failure::usage(message),
        _ => Failure::unavailable(message),
    }
}

/// Makes a listener the one that strangers of its families are given to.
fn register(installation: &Installation, listener: &TcpListener) -> Result<(), KernelError> {
    let families: &[Family] = match listener.local_addr() {
        Ok(SocketAddr::V4(_)) => &[Family::Ipv4],
        Ok(SocketAddr::V6(address)) if address.ip().is_unspecified() => &[Family::Ipv4, Family::Ipv6],
        _ => &[Family::Ipv6],
    };
    families.iter().try_for_each(|&family| installation.register_listener(listener.as_fd(), family))
}

/// Starts the kernel half if it is wanted. In layout `front` the gate works without it, and says so.
fn start_kernel(config: &Config, notices: &mut Vec<String>) -> Result<Option<(Installation, Kernel)>, Failure> {
    let needed = if config.layout == Layout::InPlace {
        Some("layout = \"in-place\"")
    } else if config.forward.client_address == ClientAddress::Kernel {
        Some("forward.client_address = \"kernel\"")
    } else if config.kernel.steer == config::Steer::On {
        Some("forward.steer = \"on\"")
    } else {
        None
    };
    if !config.kernel.enabled {
        return match needed {
            Some(key) => Err(Failure::usage(format!("{key} needs the kernel part, and kernel.mode is \"off\""))),
            None => Ok(None),
        };
    }
    let plan = Plan::from_config(config);
    let started = Installation::start(&plan).and_then(|installation| {
        let kernel = Kernel::open(installation.maps()?, &plan, installation.finds_servers())?;
        Ok((installation, kernel))
    });
    match (started, needed) {
        (Ok(started), _) => Ok(Some(started)),
        (Err(error), Some(key)) => {
            let failure = kernel_failure(&error);
            Err(Failure { message: format!("{key} needs the kernel part: {}", failure.message), ..failure })
        }
        (Err(error), None) => {
            notices.push(format!(
                "kernel part off: {}; every client meets the screener, and deny lists are enforced there",
                chain(&error)
            ));
            Ok(None)
        }
    }
}

impl Gate {
    async fn until_told_to_stop(self: &Arc<Self>, mut phase: watch::Receiver<Phase>) -> Result<(), Failure> {
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::unavailable)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::unavailable)?;
        let mut hang_up = signal(SignalKind::hangup()).map_err(Failure::unavailable)?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = phase.wait_for(|phase| *phase >= Phase::StopAsked) => break,
                _ = hang_up.recv() => {
                    // Whoever sent the signal reads the log.
                    let _ = self.reload_and_log();
                }
            }
        }
        // Nothing is left to do about a systemd that is not there.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        // First of all the port goes back: from here on every new client meets the mail server. Whoever is in a listener's queue by
        // then is still taken, as the queue would be reset with its listener.
        self.release_port();
        self.phase.send_replace(Phase::Closing);
        self.log.info(format!("stopping: {} connections go on", self.counts.connections.load(Ordering::Relaxed)));
        tokio::select! {
            () = drained(&self.counts) => {}
            () = tokio::time::sleep(DRAIN_LIMIT) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        self.store.flush();
        self.log.info("stopped");
        Ok(())
    }

    /// Gives the port to the mail server. The kernel goes on with what it knows, unless its programs are to be taken off.
    fn release_port(&self) {
        let (Some(kernel), Some(installation)) = (&self.kernel, &self.installation) else { return };
        if self.detaches.load(Ordering::Acquire) {
            return installation.release_port();
        }
        match kernel.release() {
            Ok(()) => installation.leave(),
            Err(error) => {
                self.log.warn(format!("the kernel's programs are taken off: {}", chain(&error)));
                installation.release_port();
            }
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
    }
}
