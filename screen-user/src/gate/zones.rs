//! The DNSBL zones of the configuration in force.

use std::sync::Arc;

use super::Gate;
use crate::{
    config::Config,
    dns::{Dnsbl, ZoneName},
    operate::exit::Failure,
};

impl Gate {
    /// Asks the zones that `config` names from now on. Look-ups under way end with the zones that they began with.
    ///
    /// # Errors
    /// A zone can't be asked, or there is no resolver.
    pub(super) fn set_dnsbl(self: &Arc<Self>, config: &Config) -> Result<(), Failure> {
        let zones: Vec<ZoneName> =
            config.policy.dnsbl.sites.zones().iter().map(|zone| ZoneName::new(zone.domain(), zone.shown())).collect();
        if zones.is_empty() {
            self.dnsbl.store(None);
            return Ok(());
        }
        let (dnsbl, reports) = Dnsbl::new(zones, &config.resolver).map_err(Failure::unavailable)?;
        self.dnsbl.store(Some(Arc::new(dnsbl)));
        tokio::spawn(Arc::clone(self).take_reports(reports));
        Ok(())
    }
}
