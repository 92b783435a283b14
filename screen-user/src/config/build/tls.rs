//! `tls.*`.

use std::path::Path;

use crate::{
    config::{
        Host, Tls,
        values::{Fault, Values},
    },
    screen::policy::TlsLevel,
};

/// The files of STARTTLS. That they can be read is checked here; what is in them, where they are used.
pub(super) fn tls(values: &mut Values<'_>, level: TlsLevel) -> Tls {
    let certificate = super::path_if_given(values, "tls.certificate");
    let key = super::path_if_given(values, "tls.key");
    for (name, path) in [("tls.certificate", &certificate), ("tls.key", &key)] {
        if let Some(problem) = path.as_deref().and_then(|path| unreadable(values.host, path)) {
            values.fault(name, problem);
        }
    }
    match (&certificate, &key) {
        (Some(_), None) => {
            values.fault("tls.certificate", Fault::new("a certificate needs its key").hint("set \"tls.key\""));
        }
        (None, Some(_)) => {
            values.fault("tls.key", Fault::new("a key needs its certificate").hint("set \"tls.certificate\""));
        }
        (None, None) if level != TlsLevel::None => {
            let fault = Fault::new("STARTTLS needs a certificate and a key");
            values.fault("tls.level", fault.hint("set \"tls.certificate\" and \"tls.key\""));
        }
        (None, None) | (Some(_), Some(_)) => {}
    }
    Tls { certificate, key, sessions: values.number("tls.sessions", 0..=u32::MAX) }
}

fn unreadable(host: &Host, path: &Path) -> Option<Fault> {
    host.read(path).err().map(|error| Fault::new(format!("can't read {}: {error}", path.display())))
}
