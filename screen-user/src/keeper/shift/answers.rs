//! What a screener asks of its keeper, and how it is answered.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    super::{
        connect::connect_to,
        equip::hand_files,
        heir::check,
        interfaces, kernel,
        lists::Watch,
        message::{Description, Handed, ToKeeper, ToScreener},
        post::Post,
        recount, systemd,
    },
    DRAINING, Shift,
};
use crate::{
    cache::Disk as _,
    config::LogTarget,
    journal::{self, Open as _, Segments},
    kernel::Plan,
    operate::{
        exit::{Failure, chain},
        log::Target,
    },
};

impl Shift {
    /// Does what the screener asks for, and says so.
    pub(super) fn answer(&mut self, request: ToKeeper, post: &mut Post) {
        let done = |done: Result<(), Failure>| match done {
            Ok(()) => ToScreener::Done,
            Err(failure) => ToScreener::Failed((&failure).into()),
        };
        let answer = match request {
            ToKeeper::Activate => done(self.activate(post)),
            ToKeeper::Ready => {
                self.ready = true;
                systemd::ready();
                ToScreener::Done
            }
            ToKeeper::Release { detach } => {
                self.release(detach);
                ToScreener::Done
            }
            ToKeeper::Describe => ToScreener::Description(self.describe()),
            ToKeeper::Recount => return self.recount(post),
            ToKeeper::Reload => match self.reload(post) {
                Ok(answer) => answer,
                Err(failure) => ToScreener::Failed((&failure).into()),
            },
            ToKeeper::Adopt => {
                let log = self.adopt(post);
                if let Some(log) = log {
                    return self.send(&ToScreener::Hand(Handed::Log), Some(log.as_fd()));
                }
                ToScreener::Done
            }
            ToKeeper::Reloaded => {
                if self.ready {
                    systemd::ready();
                }
                ToScreener::Done
            }
            ToKeeper::Upgrade => {
                self.candidate = Some(tokio::spawn(check(post.program.clone(), post.source.clone())));
                return;
            }
            ToKeeper::Retired => {
                self.retired = true;
                return;
            }
            ToKeeper::OpenStore => match post.store.open() {
                Ok(file) => return self.send(&ToScreener::Hand(Handed::Store), Some(file.as_fd())),
                Err(error) => ToScreener::Failed((&Failure::unavailable(error)).into()),
            },
            ToKeeper::PutStoreAside => match post.store.put_aside() {
                Ok(path) => ToScreener::PutAside(path),
                Err(error) => ToScreener::Failed((&Failure::unavailable(error)).into()),
            },
            ToKeeper::OpenSegment { fresh } => {
                let folder = journal::within(&post.config.state_directory);
                match Segments::within(folder, post.config.journal).open(fresh) {
                    Ok(file) => return self.send(&ToScreener::Hand(Handed::Segment), Some(file.as_fd())),
                    Err(error) => ToScreener::Failed((&Failure::unavailable(error)).into()),
                }
            }
            ToKeeper::Connect(path) => match connect_to(&post.config.forward.to, &path) {
                Ok(connection) => return self.send(&ToScreener::Hand(Handed::Connection), Some(connection.as_fd())),
                Err(failure) => ToScreener::Failed((&failure).into()),
            },
            ToKeeper::Lists => match self.watch.as_mut().map(Watch::files).transpose() {
                Ok(files) => ToScreener::Lists(files),
                Err(error) => ToScreener::Failed((&Failure::unavailable(error)).into()),
            },
            ToKeeper::OpenList(name) => match self.watch.as_mut().map_or(Ok(None), |watch| watch.open(&name)) {
                Ok(Some((file, stamp))) => {
                    return self.send(&ToScreener::Hand(Handed::List(stamp)), Some(file.as_fd()));
                }
                Ok(None) => ToScreener::Done,
                Err(error) => ToScreener::Failed((&Failure::unavailable(error)).into()),
            },
            ToKeeper::Fail(reason) => {
                self.failed = Some(reason.into());
                ToScreener::Done
            }
        };
        self.send(&answer, None);
    }

    /// That the screener is gone is noticed by its end.
    pub(super) fn send(&self, answer: &ToScreener, descriptor: Option<BorrowedFd<'_>>) {
        let _ = self.channel.send(answer, descriptor);
    }

    fn activate(&mut self, post: &Post) -> Result<(), Failure> {
        if let Some(installation) = &self.installation {
            kernel::activate(installation, &post.listeners)?;
            if let Some(messages) = installation.messages() {
                self.tasks.spawn(messages.pass_on());
            }
            self.tasks.spawn(interfaces::follow(Arc::clone(installation), post.log.clone()));
            let (installation, log) = (Arc::clone(installation), post.log.clone());
            self.tasks.spawn_blocking(move || recount::at_start(&installation, &log));
        }
        self.active_since = Some(Instant::now());
        // The first answer to whether it hears is two ticks away.
        systemd::alive();
        Ok(())
    }

    /// Watches another directory of block lists than before, if it is another one.
    fn watch_lists(&mut self, directory: Option<&Path>) {
        if self.watch.as_ref().map(Watch::directory) != directory {
            self.watch = directory.map(Watch::begin);
        }
    }

    fn release(&mut self, detach: bool) {
        self.released = true;
        self.deadline = Some(Instant::now() + DRAINING);
        systemd::stopping();
        match &self.installation {
            Some(installation) if detach => installation.release_port(),
            Some(installation) => installation.leave(),
            None => {}
        }
    }

    fn describe(&self) -> Description {
        let Some(installation) = &self.installation else { return Description::default() };
        Description {
            attached: Some(installation.attached()),
            servers: installation.servers().unwrap_or_default(),
            hung: installation.hung_servers(),
        }
    }

    /// Answers from a thread of its own: signals and interfaces do not wait until all sockets have been looked at.
    fn recount(&mut self, post: &Post) {
        let (installation, channel, log) = (self.installation.clone(), Arc::clone(&self.channel), post.log.clone());
        self.tasks.spawn_blocking(move || {
            let answer = recount::on_demand(installation.as_deref(), &log);
            // That the screener is gone is noticed by its end.
            let _ = channel.send(&answer, None);
        });
    }

    /// Hands over the configuration's files as they are now. The log file is opened again first, whatever is wrong with them.
    fn reload(&self, post: &mut Post) -> Result<ToScreener, Failure> {
        if self.ready {
            systemd::reloading();
        }
        if let LogTarget::File(_) = &post.config.log.target
            && let Some(log) =
                Target::descriptor(&post.config.log.target).map_err(|error| Failure::of_system(&error))?
        {
            self.channel.send(&ToScreener::Hand(Handed::Log), Some(log.as_fd())).map_err(Failure::unavailable)?;
            post.log.replace(&post.config.log, Some(log)).map_err(|error| Failure::of_system(&error))?;
        }
        let read = post.reread()?;
        if let Some(installation) = &self.installation {
            installation
                .require_interfaces(&read.config.kernel.interfaces)
                .map_err(|error| Failure::of_kernel(&error))?;
        }
        hand_files(&self.channel, &read.facts).map_err(Failure::unavailable)?;
        Ok(ToScreener::Reload { users: read.facts.users.clone() })
    }

    /// Goes by what was read last. Returns where the log goes, if anything is new about it.
    fn adopt(&mut self, post: &mut Post) -> Option<OwnedFd> {
        let log = post.adopt();
        self.watch_lists(post.config.blocklists.directory.as_deref());
        if let Some(installation) = &self.installation {
            match installation.reconfigure(&Plan::from_config(&post.config)) {
                Ok(changed) => changed.iter().for_each(|change| post.log.info(format!("interface {change}"))),
                Err(error) => post.log.warn(format!("interfaces: {}", chain(&error))),
            }
        }
        log
    }
}
