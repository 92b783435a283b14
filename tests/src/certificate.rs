//! Certificates for the tests' servers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::netns::run;

/// A certificate and its key.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate's file, PEM.
    pub certificate: PathBuf,
    /// The key's file, PEM.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes a self-signed one for mx.example.test, in `directory`, in place of an earlier one.
    ///
    /// # Panics
    ///
    /// When openssl can't.
    #[must_use]
    pub fn make(directory: &Path) -> Self {
        request(directory, "", "mx.example.test", &["subjectAltName=DNS:mx.example.test"], &[])
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

/// Somebody who signs certificates.
#[derive(Debug)]
pub struct Authority {
    own: Certificate,
    directory: PathBuf,
}

impl Authority {
    /// Makes one, in `directory`.
    ///
    /// # Panics
    ///
    /// When openssl can't.
    #[must_use]
    pub fn make(directory: &Path) -> Self {
        Self { own: request(directory, "authority-", "An authority", &[], &[]), directory: directory.to_owned() }
    }

    /// The file with its own certificate, PEM.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.own.certificate
    }

    /// Signs a certificate for whoever is called `name`, as X.509 writes alternative names: `IP:192.0.2.5`.
    ///
    /// # Panics
    ///
    /// When openssl can't.
    #[must_use]
    pub fn sign(&self, file: &str, name: &str) -> Certificate {
        let (certificate, key) = (self.own.certificate.display().to_string(), self.own.key.display().to_string());
        let extensions = [&format!("subjectAltName={name}"), "basicConstraints=critical,CA:FALSE"];
        request(&self.directory, &format!("{file}-"), file, &extensions, &["-CA", &certificate, "-CAkey", &key])
    }
}

/// Makes a key and a certificate for it, whose files begin with `prefix`; signed by the key itself unless `more` says by whom.
fn request(directory: &Path, prefix: &str, subject: &str, extensions: &[&str], more: &[&str]) -> Certificate {
    let place = |name: &str| directory.join(format!("{prefix}{name}"));
    let made = Certificate { certificate: place("certificate.pem"), key: place("key.pem") };
    let (certificate, key) = (made.certificate.display().to_string(), made.key.display().to_string());
    let subject = format!("/CN={subject}");
    let algorithm = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let files = ["-out", &certificate, "-keyout", &key, "-subj", &subject, "-days", "2"];
    let extensions = extensions.iter().flat_map(|extension| ["-addext", extension]);
    let words = ["req", "-x509"].into_iter().chain(algorithm).chain(files).chain(extensions);
    run("openssl", words.chain(more.iter().copied()));
    made
}
