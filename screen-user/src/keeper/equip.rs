//! How a screener is started, and what it is handed.

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Command, Stdio},
};

use rustix::fs::{MemfdFlags, memfd_create};
use tokio::process::Child;

use super::{
    channel::Channel,
    message::{Begin, Handed, ToScreener},
    post::Post,
};
use crate::{config::Facts, kernel::Maps, operate::log::Target};

/// This very program, whatever is installed under its name by now: keeper and screener must understand each other.
pub(super) const THIS_PROGRAM: &str = "/proc/self/exe";
/// Starts the program again as the screener, under its own account, with the channel in the place of standard input.
pub(super) fn spawn(post: &Post, channel: Channel) -> io::Result<Child> {
    let mut command = Command::new(THIS_PROGRAM);
    command.arg0("mxscreen").arg("screener").stdin(Stdio::from(OwnedFd::from(channel)));
    // A key that ends the keeper must not end the screener beside it; and systemd listens to the keeper alone.
    command.process_group(0).env_remove("NOTIFY_SOCKET");
    if let Some(account) = post.account {
        command.gid(account.group.as_raw()).uid(account.user.as_raw());
    }
    tokio::process::Command::from(command).kill_on_drop(true).spawn()
}

/// Hands over everything, the word to begin last.
pub(super) fn equip(
    channel: &Channel,
    post: &Post,
    orders: &UnixStream,
    maps: Option<&Maps>,
    begin: Begin,
) -> io::Result<()> {
    let hand = |what: Handed, descriptor: BorrowedFd<'_>| channel.send(&ToScreener::Hand(what), Some(descriptor));
    hand(Handed::Orders, orders.as_fd())?;
    hand(Handed::Control, post.control.as_fd())?;
    for listener in &post.listeners {
        hand(Handed::Listener, listener.as_fd())?;
    }
    for listener in &post.metrics {
        hand(Handed::Metrics, listener.as_fd())?;
    }
    if let Some(log) = Target::descriptor(&post.config.log.target)? {
        hand(Handed::Log, log.as_fd())?;
    }
    if let Some(maps) = maps {
        for (name, map) in maps.iter() {
            hand(Handed::Map(name.to_owned()), map)?;
        }
    }
    hand_files(channel, &post.facts)?;
    channel.send(&ToScreener::Begin(Box::new(begin)), None)
}

/// The contents of files, each in a file of its own that has no name.
pub(super) fn hand_files(channel: &Channel, facts: &Facts) -> io::Result<()> {
    for (path, contents) in &facts.files {
        let copy = copy_of(contents)?;
        channel.send(&ToScreener::Hand(Handed::File(path.clone())), Some(copy.as_fd()))?;
    }
    Ok(())
}

fn copy_of(contents: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("configuration", MemfdFlags::CLOEXEC)?);
    file.write_all(contents)?;
    file.rewind()?;
    Ok(file)
}
