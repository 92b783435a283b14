//! The certificate and key of STARTTLS.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    InconsistentKeys, ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};
use tokio_rustls::TlsAcceptor;

use crate::config::{self, Host};

/// Why TLS can't be offered; names the file to look at.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file has PEM markers and no sense between them.
    #[error("{}: bad PEM: {error}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: pem::Error,
    },
    /// A file has no `BEGIN CERTIFICATE`.
    #[error("{}: no certificate in it", .0.display())]
    NoCertificate(PathBuf),
    /// A file has no key that can be read without a passphrase.
    #[error("{}: no unencrypted private key in it", .0.display())]
    NoKey(PathBuf),
    /// The key is another certificate's.
    #[error("{}: not the key of the first certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate or the key is of no use.
    #[error("{} and {}: {error}", certificate.display(), key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the library says.
        error: rustls::Error,
    },
}

/// TLS as it is offered, with the certificate and key that were there when it was made.
#[derive(Clone)]
pub struct TlsServer(TlsAcceptor);

impl fmt::Debug for TlsServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TlsServer")
    }
}

impl TlsServer {
    /// With what the configuration names, if it names a certificate.
    ///
    /// # Errors
    /// As [`TlsServer::load`].
    pub fn for_config(config: &config::Tls, host: &Host) -> Result<Option<Self>, TlsError> {
        match (&config.certificate, &config.key) {
            // A file may hold both, as postscreen's does.
            (Some(certificate), key) => Self::load(host, certificate, key.as_ref().unwrap_or(certificate)).map(Some),
            (None, _) => Ok(None),
        }
    }

    /// Reads a certificate chain, the server's own first, and its key, both PEM; the two may be one file.
    ///
    /// # Errors
    /// If a file can't be read, or they do not make a usable pair.
    pub fn load(host: &Host, certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        server_config(host, certificate, key).map(|config| Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// What a handshake needs.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        self.0.clone()
    }
}

fn server_config(host: &Host, certificate: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let chain = read(host, certificate)?;
    let chain = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem { path: certificate.to_owned(), error })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(certificate.to_owned()));
    }
    let private = PrivateKeyDer::from_pem_slice(&read(host, key)?).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey(key.to_owned()),
        error => TlsError::Pem { path: key.to_owned(), error },
    })?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| {
            let (certificate, key) = (certificate.to_owned(), key.to_owned());
            match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    TlsError::Mismatch { certificate, key }
                }
                error => TlsError::Unusable { certificate, key, error },
            }
        })
}

fn read(host: &Host, path: &Path) -> Result<Vec<u8>, TlsError> {
    host.read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
    use tempfile::{TempDir, tempdir};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    use super::*;

    /// A self-signed certificate for `name` and its key, PEM.
    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    struct Files {
        directory: TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { directory: tempdir().unwrap() }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    /// Whether a client that trusts `certificate` alone talks with `server` as `name`.
    async fn talks(server: &TlsServer, certificate: &str, name: &'static str) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = tokio::io::duplex(16_384);
        let accepting = tokio::spawn(server.acceptor().accept(far));
        let connected = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), near).await;
        let accepted = accepting.await.unwrap();
        let (Ok(mut client), Ok(mut screener)) = (connected, accepted) else { return false };
        screener.write_all(b"250 ok\r\n").await.unwrap();
        screener.flush().await.unwrap();
        let mut reply = [0; 8];
        client.read_exact(&mut reply).await.unwrap();
        &reply == b"250 ok\r\n"
    }

    #[tokio::test]
    async fn a_chain_and_a_key_serve() {
        let files = Files::new();
        let (mine, my_key) = pair("mx.example.test");
        let (other, _) = pair("mx.example.test");
        let (certificate, key) = (files.write("cert.pem", &mine), files.write("key.pem", &my_key));
        let server = TlsServer::load(&Host::here(), &certificate, &key).unwrap();
        assert!(talks(&server, &mine, "mx.example.test").await);
        assert!(!talks(&server, &other, "mx.example.test").await);
    }

    #[tokio::test]
    async fn one_file_may_hold_both() {
        let files = Files::new();
        let (certificate, key) = pair("mx.example.test");
        let both = files.write("both.pem", &format!("{key}{certificate}"));
        let server = TlsServer::load(&Host::here(), &both, &both).unwrap();
        assert!(talks(&server, &certificate, "mx.example.test").await);
    }

    #[test]
    fn an_error_names_the_file_and_what_is_wrong() {
        let files = Files::new();
        let (good, good_key) = pair("mx.example.test");
        let (_, other_key) = pair("mx.example.test");
        let certificate = files.write("cert.pem", &good);
        let key = files.write("key.pem", &good_key);
        let other = files.write("other.pem", &other_key);
        let empty = files.write("empty.pem", "");
        let broken = files.write("broken.pem", &good.replacen("-----END", "%%%\n-----END", 1));
        let locked = files.write("locked.pem", &good_key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
        let missing = files.directory.path().join("missing.pem");
        let garbage = files.write("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        for (certificate, key, about, text) in [
            (&missing, &key, &missing, "No such file"),
            (&certificate, &missing, &missing, "No such file"),
            (&empty, &key, &empty, "no certificate in it"),
            (&key, &key, &key, "no certificate in it"),
            (&broken, &key, &broken, "bad PEM"),
            (&certificate, &empty, &empty, "no unencrypted private key"),
            (&certificate, &locked, &locked, "no unencrypted private key"),
            (&certificate, &certificate, &certificate, "no unencrypted private key"),
            (&certificate, &other, &other, "not the key of the first certificate in"),
            (&garbage, &key, &garbage, ""),
        ] {
            let error = TlsServer::load(&Host::here(), certificate, key).unwrap_err().to_string();
            let name = about.display().to_string();
            assert!(error.contains(&name) && error.contains(text), "{error}");
        }
    }
}
