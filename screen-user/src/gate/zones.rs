//! The DNSBL zones of the configuration in force.

use std::sync::Arc;

use super::Gate;
use crate::{
    config::Config,
    dns::{Dnsbl, ZoneName},
    operate::exit::Failure,
};

impl Gate {
    /// Asks the zones that `config` names from now on. Look-ups under way end with the zones that they began with; where nothing changes,
    /// counts go on and what was said stays known.
    ///
    /// # Errors
    /// A zone can't be asked, or there is no resolver.
    pub(super) fn set_dnsbl(self: &Arc<Self>, config: &Config) -> Result<(), Failure> {
        let zones = config.policy.dnsbl.sites.zones();
        if zones.is_empty() {
            self.dnsbl.store(None);
            return Ok(());
        }
        let in_force = self.config.load();
        let same = zones == in_force.policy.dnsbl.sites.zones() && config.resolver == in_force.resolver;
        if same && self.dnsbl.load().is_some() {
            return Ok(());
        }
        let names = zones.iter().map(ZoneName::from).collect();
        let (dnsbl, reports) = Dnsbl::new(names, &config.resolver).map_err(Failure::unavailable)?;
        self.dnsbl.store(Some(Arc::new(dnsbl)));
        tokio::spawn(Arc::clone(self).take_reports(zones.to_vec(), reports));
        Ok(())
    }
}
