//! Debian's Postfix, as the mail server of the tests and the demonstration.
//!
//! The host's own mail is left alone: an installed Postfix is used as it is, with private folders in place of its own, and one that is
//! installed here is neither started nor enabled.

use anyhow::{Result, bail};

use super::asleep::install_asleep;
use crate::process::find;

/// Installs Postfix unless some mail server is there.
///
/// # Errors
/// When another mail server holds the place: Debian's packages of them exclude each other.
pub(super) fn ensure() -> Result<()> {
    if find("postfix").is_some() {
        return Ok(());
    }
    if find("sendmail").is_some() {
        bail!(
            "another mail server is installed, and Debian's Postfix, which the tests and the demonstration need, would replace it; \
             use another machine or a container"
        );
    }
    install_asleep("postfix")
}
