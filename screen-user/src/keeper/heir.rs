//! What a keeper leaves to another version of the program, which is executed in its place: the same process, with the same sockets.
//!
//! The descriptors wait in a channel that the next version finds in the place of its standard input. A screener that has been relieved
//! brings its sessions to their ends meanwhile, and takes orders.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::{
    process::Child,
    time::{Instant, sleep, timeout},
};

use super::{
    Source,
    channel::Channel,
    equip::THIS_PROGRAM,
    message::{RELAY_NO_MORE, STOP},
    post::Post,
    systemd,
};
use crate::operate::{exit::Failure, log::Log};

/// How long another version may take to say that the configuration is right.
const CHECK_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks whether a relieved screener has ended.
const LOOK: Duration = Duration::from_millis(50);

/// What a descriptor is.
#[derive(Debug, Serialize, Deserialize)]
enum Heirloom {
    /// The control socket, listening.
    Control,
    /// A socket that clients come in by, or that Prometheus asks, listening; which of them, its address says.
    Listener,
    /// Where the orders of a relieved screener go, which has this process id.
    Relieved(i32),
    /// There are no more; no descriptor comes with it.
    End,
}

/// What a keeper finds that is executed in the place of another.
#[derive(Debug, Default)]
pub(super) struct Heirlooms {
    control: Option<UnixListener>,
    listeners: Vec<TcpListener>,
    pub(super) relieved: Vec<Relieved>,
}

/// A screener that takes no clients any more and brings its sessions to their ends.
#[derive(Debug)]
pub(super) struct Relieved {
    orders: UnixStream,
    pid: i32,
}

impl Heirlooms {
    /// Takes what waits in the place of standard input.
    pub(super) fn receive() -> Result<Self, Failure> {
        let lost = |error: io::Error| Failure::usage(format!("--heir is for `mxscreen upgrade` alone ({error})"));
        let channel = Channel::from(io::stdin().as_fd().try_clone_to_owned().map_err(lost)?);
        let mut found = Self::default();
        loop {
            match channel.receive().map_err(lost)? {
                Some((Heirloom::Control, Some(socket))) => found.control = Some(socket.into()),
                Some((Heirloom::Listener, Some(socket))) => found.listeners.push(socket.into()),
                Some((Heirloom::Relieved(pid), Some(orders))) => {
                    found.relieved.push(Relieved { orders: orders.into(), pid });
                }
                Some((Heirloom::End, None)) => return Ok(found),
                _ => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// What the service manager has handed over to the first version.
    pub(super) fn of_systemd(log: &Log) -> Self {
        Self { listeners: systemd::sockets(log), ..Self::default() }
    }

    /// The addresses of sockets that nobody has asked for.
    pub(super) fn unclaimed(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().filter_map(|socket| socket.local_addr().ok())
    }

    /// The control socket, if it is the one at `path`.
    pub(super) fn control(&mut self, path: &Path) -> Option<UnixListener> {
        let fits = |socket: &UnixListener| socket.local_addr().is_ok_and(|own| own.as_pathname() == Some(path));
        self.control.take().filter(fits)
    }

    /// The socket that listens on `address`, if there is one.
    pub(super) fn listener(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let fits = |socket: &TcpListener| socket.local_addr().is_ok_and(|own| own == address);
        self.listeners.iter().position(fits).map(|place| self.listeners.swap_remove(place))
    }
}

impl Relieved {
    /// The programs at work do not know its relay any more: it must not make another connection, which would pass for this host's own.
    pub(super) fn relay_no_more(&mut self) {
        self.order(RELAY_NO_MORE);
    }

    /// That it is gone, or has not heard some thousand orders, is no matter: it is waited for.
    fn order(&mut self, order: u8) {
        let _ = self.orders.write(&[order]);
    }

    /// Tells it to end its sessions soon.
    pub(super) fn stop(&mut self) {
        self.order(STOP);
    }

    /// Whether it has ended.
    fn has_ended(&self) -> bool {
        !matches!(waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
    }
}

/// Waits until all have ended, and no longer than `limit`.
pub(super) async fn wait_for(mut relieved: Vec<Relieved>, limit: Duration) {
    let end = Instant::now() + limit;
    while !relieved.is_empty() && Instant::now() < end {
        relieved.retain(|one| !one.has_ended());
        sleep(LOOK).await;
    }
}

/// Lets go of those that have ended.
pub(super) fn bury(relieved: &mut Vec<Relieved>, log: &Log) {
    relieved.retain(|one| {
        let ended = one.has_ended();
        if ended {
            log.info(format!("the screener {}, which was relieved, has ended", one.pid));
        }
        !ended
    });
}

/// Asks the version at `program` what it is and whether it understands the configuration. Returns what there is to say, in sentences.
pub(super) async fn check(program: PathBuf, source: Source) -> Result<Vec<String>, Failure> {
    let name = program.display();
    let run = async |words: &[&str], more: &[String]| {
        let mut command = tokio::process::Command::new(&program);
        command.args(words).args(more).stdin(Stdio::null()).env_remove("NOTIFY_SOCKET").kill_on_drop(true);
        match timeout(CHECK_LIMIT, command.output()).await {
            Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(Failure::unavailable(format!("{name} can't take over ({}):\n{}", output.status, said.trim_end())))
            }
            Ok(Err(error)) => Err(Failure::unavailable(format!("{name} can't be executed: {error}"))),
            Err(_) => Err(Failure::unavailable(format!("{name} did not answer within {} s", CHECK_LIMIT.as_secs()))),
        }
    };
    let version = run(&["--version"], &[]).await?;
    run(&["check"], &source.words()).await?;
    Ok(vec![format!("{name} is {version} and understands the configuration: it takes over")])
}

/// Another version of the program, ready to be executed in the place of this one.
pub(super) struct Successor {
    program: PathBuf,
    source: Source,
    channel: Channel,
    /// What must not be cleaned up, as the next version goes on with it.
    _kept: (Post, Child),
}

impl Successor {
    /// Puts aside what it is to find: the sockets of `post`, and the screener that has retired, with where its orders go.
    pub(super) fn prepare(post: Post, (child, orders): (Child, UnixStream)) -> io::Result<Self> {
        let (ours, theirs) = Channel::pair()?;
        ours.send(&Heirloom::Control, Some(post.control.as_fd()))?;
        for listener in post.listeners.iter().chain(&post.metrics) {
            ours.send(&Heirloom::Listener, Some(listener.as_fd()))?;
        }
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let relieved = pid.map(|pid| Relieved { orders, pid });
        for one in post.relieved.iter().chain(&relieved) {
            ours.send(&Heirloom::Relieved(one.pid), Some(one.orders.as_fd()))?;
        }
        ours.send(&Heirloom::End, None)?;
        Ok(Self { program: post.program.clone(), source: post.source.clone(), channel: theirs, _kept: (post, child) })
    }

    /// Becomes the other version; returns only where neither that nor this very program can be executed.
    pub(super) fn execute(self) -> Failure {
        let channel = OwnedFd::from(self.channel);
        let again = channel.try_clone();
        let become_it = |program: &Path, channel: OwnedFd| {
            let mut command = Command::new(program);
            // Those sockets are in the channel.
            for name in systemd::SOCKETS {
                command.env_remove(name);
            }
            command
                .arg0("mxscreen")
                .args(["run", "--heir"])
                .args(self.source.words())
                .stdin(Stdio::from(channel))
                .exec()
        };
        let error = become_it(&self.program, channel);
        let failure = Failure::unavailable(format!("{} can't be executed: {error}", self.program.display()));
        match again {
            Ok(channel) => {
                eprintln!("mxscreen: {}; this version goes on", failure.message);
                Failure::unavailable(become_it(Path::new(THIS_PROGRAM), channel))
            }
            Err(_) => failure,
        }
    }
}
