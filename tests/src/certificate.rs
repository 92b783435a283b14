//! Certificates for the tests' servers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::netns::run;

/// A self-signed certificate and its key.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate's file, PEM.
    pub certificate: PathBuf,
    /// The key's file, PEM.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one for mx.example.test, in `directory`, in place of an earlier one.
    ///
    /// # Panics
    ///
    /// When openssl can't.
    #[must_use]
    pub fn make(directory: &Path) -> Self {
        let place = |name: &str| directory.join(name);
        let made = Self { certificate: place("certificate.pem"), key: place("key.pem") };
        let (certificate, key) = (made.certificate.display().to_string(), made.key.display().to_string());
        let algorithm = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let files = ["-out", &certificate, "-keyout", &key];
        let name = ["-subj", "/CN=mx.example.test", "-addext", "subjectAltName=DNS:mx.example.test", "-days", "2"];
        run("openssl", ["req", "-x509"].into_iter().chain(algorithm).chain(name).chain(files));
        made
    }

    /// The certificate as text: what stands between the PEM markers.
    ///
    /// # Panics
    ///
    /// When it can't be read.
    #[must_use]
    pub fn text(&self) -> String {
        fs::read_to_string(&self.certificate).expect("the certificate").trim().to_owned()
    }
}
