//! What the domains of `access.list` publish: asked again when its time is over, and fed to the kernel when it has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Gate, unix_now};
use crate::{
    access::spf::{Domain, Networks},
    config::Config,
    dns::spf::{Answer, Followed, Spf, Trouble},
    operate::exit::Failure,
};

/// The domains, and the tasks that ask them.
#[derive(Debug, Default)]
pub(super) struct Domains {
    known: BTreeMap<Domain, Known>,
    watchers: JoinSet<()>,
}

/// What is known of a domain, besides its networks.
#[derive(Debug, Default)]
struct Known {
    /// When DNS answered last, Unix seconds.
    answered: Option<u64>,
    /// Whether the domain had a usable record then.
    publishes: bool,
    /// What was left out of it.
    remarks: Vec<String>,
    /// Since when DNS fails, Unix seconds, and how it did last.
    failing: Option<(u64, String)>,
    /// When it is asked again, Unix seconds.
    again: u64,
}

impl Known {
    fn state(&self) -> &'static str {
        match (self.answered, &self.failing) {
            (None, None) => "not resolved yet",
            (None, Some(_)) => "not resolved, as DNS fails",
            (Some(_), Some(_)) => "the last answer, as DNS fails",
            (Some(_), None) if self.publishes => "resolved",
            (Some(_), None) => "publishes nothing that can be used",
        }
    }
}

impl Gate {
    fn domains(&self) -> MutexGuard<'_, Domains> {
        self.domains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who asks the domains that the access list names; nobody where there are none.
    ///
    /// # Errors
    /// No resolver is to be had.
    pub(super) fn spf_of(config: &Config) -> Result<Option<Spf>, Failure> {
        let any = config.access.published().next().is_some();
        any.then(|| Spf::new(&config.resolver, config.spf.widest)).transpose().map_err(Failure::unavailable)
    }

    /// Follows the domains of the configuration in force from now on, and no others. What is known of them stays known.
    pub(super) fn follow_domains(self: &Arc<Self>, spf: Option<Spf>) {
        let config = self.config.load();
        let named: BTreeSet<Domain> = config.access.published().map(|(domain, _)| domain.clone()).collect();
        let mut domains = self.domains();
        domains.watchers = JoinSet::new();
        domains.known.retain(|domain, _| named.contains(domain));
        let Some(spf) = spf.map(Arc::new) else { return };
        for domain in named {
            domains.known.entry(domain.clone()).or_default();
            let followed = Followed::new(Arc::clone(&spf), domain.clone(), config.spf);
            domains.watchers.spawn(Arc::clone(self).follow(followed, domain));
        }
    }

    async fn follow(self: Arc<Self>, mut followed: Followed, domain: Domain) {
        loop {
            let answer = followed.next().await;
            let (gate, about, holds) = (Arc::clone(&self), domain.clone(), followed.holds());
            // A list of a million lines takes a second or two to be worked out anew.
            if let Err(error) = tokio::task::spawn_blocking(move || gate.take_answer(&about, answer, holds)).await {
                self.log.warn(format!("spf:{domain}: its answer was not taken up: {error}"));
            }
        }
    }

    /// Takes up what a domain's look-up has come to.
    fn take_answer(&self, domain: &Domain, answer: Result<Answer, Trouble>, holds: Duration) {
        match answer {
            Ok(answer) => {
                self.note_answer(domain, &answer, holds);
                self.publish(domain, &Arc::new(answer.networks.unwrap_or_default()));
            }
            Err(trouble) => self.note_trouble(domain, &trouble, holds),
        }
    }

    fn note_answer(&self, domain: &Domain, answer: &Answer, holds: Duration) {
        let now = unix_now();
        let mut domains = self.domains();
        let Some(known) = domains.known.get_mut(domain) else { return };
        if known.failing.take().is_some() {
            self.log.info(format!("spf:{domain}: resolved again"));
        }
        for remark in answer.remarks.iter().filter(|remark| !known.remarks.contains(remark)) {
            self.log.warn(format!("spf:{domain}: {remark}"));
        }
        let publishes = answer.networks.is_some();
        if !publishes && (known.publishes || known.answered.is_none()) {
            self.log.warn(format!("spf:{domain}: this entry of access.list decides nothing"));
        }
        known.remarks.clone_from(&answer.remarks);
        known.publishes = publishes;
        known.answered = Some(now);
        known.again = now.saturating_add(holds.as_secs());
    }

    /// DNS that fails takes nothing away, and is worth one line until it works again.
    fn note_trouble(&self, domain: &Domain, trouble: &Trouble, holds: Duration) {
        let now = unix_now();
        let mut domains = self.domains();
        let Some(known) = domains.known.get_mut(domain) else { return };
        if known.failing.is_none() {
            let meanwhile = if known.answered.is_some() {
                "the last answer is kept"
            } else {
                "it decides nothing until it is resolved"
            };
            self.log.warn(format!("spf:{domain}: {trouble}: {meanwhile}"));
        }
        let since = known.failing.as_ref().map_or(now, |(since, _)| *since);
        known.failing = Some((since, trouble.to_string()));
        known.again = now.saturating_add(holds.as_secs());
    }

    /// Makes `networks` what a domain's entries permit, here and in the kernel.
    fn publish(&self, domain: &Domain, networks: &Arc<Networks>) {
        let before: Vec<Arc<Networks>> = {
            let config = self.config.load();
            config.access.published().filter(|(named, _)| *named == domain).map(|(_, nets)| Arc::clone(nets)).collect()
        };
        if before.iter().all(|before| before == networks) {
            return;
        }
        // A reload may come in between: then it is its configuration that is changed.
        self.config.rcu(|config| {
            let mut config = Config::clone(config);
            config.access.publish(domain, networks);
            config
        });
        self.feed_access_list();
        let before: BTreeSet<IpNet> = before.iter().flat_map(|networks| networks.networks()).copied().collect();
        let now: BTreeSet<IpNet> = networks.networks().iter().copied().collect();
        self.log.info(format!(
            "spf:{domain}: {} networks, {} new, {} gone",
            now.len(),
            now.difference(&before).count(),
            before.difference(&now).count()
        ));
    }

    /// Lets `new`, which is about to come in force, begin with what is known of the domains.
    pub(super) fn hand_on_domains(&self, new: &mut Config) {
        for (domain, networks) in self.config.load().access.published() {
            new.access.publish(domain, networks);
        }
    }

    /// For `status`: each domain and what is known of it.
    pub(super) fn spf_status(&self) -> Value {
        let now = unix_now();
        let config = self.config.load();
        let domains = self.domains();
        let shown = domains.known.iter().map(|(domain, known)| {
            let networks = config.access.published().find(|(named, _)| *named == domain);
            json!({
                "domain": domain.as_str(),
                "state": known.state(),
                "networks": networks.map_or(0, |(_, networks)| networks.networks().len()),
                "answered": known.answered,
                "asked_again_in_seconds": known.again.saturating_sub(now),
                "failing_since": known.failing.as_ref().map(|(since, _)| since),
                "failure": known.failing.as_ref().map(|(_, failure)| failure),
                "left_out": known.remarks,
            })
        });
        shown.collect()
    }
}
