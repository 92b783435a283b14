//! What outlives a screener: sockets, files, and the configuration in force.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    Source,
    account::Account,
    heir::{Heirlooms, Relieved},
};
use crate::{
    cache::StateFile,
    config::{Config, Facts, Loaded},
    forward::probe,
    net::listener,
    operate::{
        control,
        exit::Failure,
        log::{Log, Target},
    },
};

/// How long the screener of a keeper that was killed may take to let go of its sockets.
const LETTING_GO: Duration = Duration::from_secs(3);

/// A configuration that was read again.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) config: Config,
    pub(super) facts: Facts,
    /// Where its log goes, opened, if anything is new about the log.
    log: Option<OwnedFd>,
}

/// What one screener leaves to the next.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) source: Source,
    /// Where this program was when it was started: another version of it will be there.
    pub(super) program: PathBuf,
    /// The configuration in force.
    pub(super) config: Config,
    /// What it takes from the host.
    pub(super) facts: Facts,
    /// One that was read and is not in force yet.
    pub(super) read: Option<Read>,
    pub(super) account: Option<Account>,
    pub(super) control: UnixListener,
    pub(super) listeners: Vec<TcpListener>,
    /// Where Prometheus asks.
    pub(super) metrics: Vec<TcpListener>,
    pub(super) store: StateFile,
    /// Screeners of other versions, which bring their sessions to their ends.
    pub(super) relieved: Vec<Relieved>,
    pub(super) notices: Vec<String>,
    pub(super) log: Log,
}

impl Post {
    /// Opens everything.
    pub(super) async fn open(
        source: Source,
        loaded: Loaded,
        facts: Facts,
        log: Log,
        heirlooms: &mut Heirlooms,
    ) -> Result<Self, Failure> {
        let config = loaded.config;
        let mut notices = Vec::new();
        let account = Account::of(&config.user, &mut notices);
        let control = match heirlooms.control(&config.control_socket) {
            Some(control) => control,
            None => {
                let control = once_free(|| control::listen(&config.control_socket)).await;
                control.map_err(|error| Failure::of_system(&error))?
            }
        };
        let listeners = listen_on(&config.listen, "listen", heirlooms).await?;
        let metrics = listen_on(&config.metrics_listen, "metrics.listen", heirlooms).await?;
        let unclaimed = |address| {
            format!("listen: {address}, a socket of the service manager's, is not among these addresses and is closed")
        };
        notices.extend(heirlooms.unclaimed().map(unclaimed));
        notices.extend(probe::unreachable(&config).await);
        let store = StateFile::within(&config.state_directory);
        let program = std::env::current_exe().map_err(Failure::unavailable)?;
        Ok(Self {
            source,
            program,
            config,
            facts,
            read: None,
            account,
            control,
            listeners,
            metrics,
            store,
            relieved: Vec::new(),
            notices,
            log,
        })
    }

    /// Reads the configuration again; [`Post::adopt`] puts it in force, here and for the next screener.
    pub(super) fn reread(&mut self) -> Result<&Read, Failure> {
        let (loaded, facts) = self.source.read()?;
        let changes = loaded.config.log != self.config.log;
        let opened = changes.then(|| Target::descriptor(&loaded.config.log.target)).transpose();
        let log = opened.map_err(|error| Failure::of_system(&error))?.flatten();
        Ok(self.read.insert(Read { config: loaded.config, facts, log }))
    }

    /// What was read last is in force. Returns where the log goes, if anything is new about it and it is not standard error.
    pub(super) fn adopt(&mut self) -> Option<OwnedFd> {
        let Read { config, facts, log } = self.read.take()?;
        if config.log != self.config.log {
            let own = log.as_ref().map(OwnedFd::try_clone).transpose();
            if let Err(error) = own.and_then(|own| self.log.replace(&config.log, own)) {
                self.log.warn(format!("the keeper's own log stays where it was: {error}"));
            }
        }
        self.config = config;
        self.facts = facts;
        log
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        // Nothing is left to do about a socket that somebody else removed.
        let _ = std::fs::remove_file(&self.config.control_socket);
    }
}

/// The sockets that listen on `addresses`, which stand under `key`: those of the former version of the program where it has left them.
async fn listen_on(
    addresses: &[SocketAddr],
    key: &str,
    heirlooms: &mut Heirlooms,
) -> Result<Vec<TcpListener>, Failure> {
    let mut listeners = Vec::new();
    for &address in addresses {
        listeners.push(match heirlooms.listener(address) {
            Some(listener) => listener,
            None => once_free(|| listener::listen(address)).await.map_err(|error| listen_failure(key, &error))?,
        });
    }
    Ok(listeners)
}

/// Tries for a moment to open what is in use: the screener of a keeper that was killed lets go of it when it notices.
async fn once_free<T>(open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && start.elapsed() < LETTING_GO => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            opened => return opened,
        }
    }
}

fn listen_failure(key: &str, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::PermissionDenied {
        Failure::no_permission(format!("{key}: {error}: CAP_NET_BIND_SERVICE is missing"))
    } else {
        Failure::unavailable(format!("{key}: {error}"))
    }
}
