//! Reload: a new configuration and new tables, all or nothing, without touching a session.

use std::sync::{Arc, PoisonError};

use super::{Gate, unix_now};
use crate::{
    config::{self, Config},
    keeper::Reread,
    net::tls::TlsServer,
    operate::exit::Failure,
    screen::policy::Policy,
};

impl Gate {
    /// Reloads, and logs how that went.
    ///
    /// # Errors
    /// As [`Self::reload`].
    pub(super) fn reload_and_log(self: &Arc<Self>) -> Result<Vec<String>, Failure> {
        let reloaded = self.reload();
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner).note(reloaded.is_ok(), unix_now());
        match &reloaded {
            Ok(said) => said.iter().for_each(|line| self.log.info(line.as_str())),
            Err(failure) => failure.message.lines().for_each(|line| self.log.warn(format!("not reloaded: {line}"))),
        }
        // A keeper that is gone waits for nothing.
        let _ = self.keeper.reloaded();
        reloaded
    }

    /// Reads the configuration and all files that it names again, and reopens the log. Returns what there is to say of it.
    ///
    /// # Errors
    /// Something is wrong with them: the running configuration stays as it is.
    fn reload(self: &Arc<Self>) -> Result<Vec<String>, Failure> {
        let Reread { host, log } = self.keeper.reload()?;
        if let Some(file) = log {
            self.log.replace(file);
        }
        let loaded = config::load(&host, &self.source.path, &self.source.overrides).map_err(Failure::usage)?;
        let mut said = loaded.remarks();
        let tls = TlsServer::for_config(&loaded.config.tls, &host).map_err(Failure::usage)?;
        let mut new = loaded.config;
        let old = self.config.load_full();
        let fixed = fixed_keys(&old, &new);
        if !fixed.is_empty() {
            return Err(Failure::usage(format!(
                "changed and needs a restart, nothing was reloaded: {}",
                fixed.join(", ")
            )));
        }
        let spf = Self::spf_of(&new)?;
        self.set_dnsbl(&new)?;
        // From here on nothing can fail, and it is in force whatever the keeper says. The keeper goes by it first: sessions ask for mail servers
        // that only the new one names.
        if let Err(failure) = self.keeper.adopt() {
            self.log.warn(failure.message);
        }
        self.hand_on_domains(&mut new);
        self.tls.store(tls.map(Arc::new));
        {
            let mut screen = self.screen();
            screen.set_policy(new.policy.clone());
            screen.keep_found(new.journal.max_size > 0);
        }
        self.journal.limit(new.journal);
        self.pool.configure(&new.forward);
        self.config.store(Arc::new(new));
        self.offer_tls();
        *self.notices.lock().unwrap_or_else(PoisonError::into_inner) = said.clone();
        self.feed_everything();
        self.directory.look_anew();
        self.follow_domains(spf);
        said.push("reloaded".into());
        Ok(said)
    }
}

/// Keys that differ and that a running gate can't change.
fn fixed_keys(old: &Config, new: &Config) -> Vec<&'static str> {
    let limits = |policy: &Policy| (policy.limits.client_connections, policy.limits.client_prefix);
    [
        ("ports", old.ports != new.ports),
        ("layout", old.layout != new.layout),
        ("listen", old.listen != new.listen),
        ("cache", old.cache != new.cache),
        ("kernel", old.kernel != new.kernel),
        (
            "limits.client_connections or limits.client_prefix",
            old.kernel.enabled && limits(&old.policy) != limits(&new.policy),
        ),
        ("state.directory", old.state_directory != new.state_directory),
        ("control.socket", old.control_socket != new.control_socket),
        ("user", old.user != new.user),
        ("metrics.listen", old.metrics_listen != new.metrics_listen),
        ("log.target", old.log.target != new.log.target),
        ("log.name", old.log.name != new.log.name),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}
