//! How a client's connection is protected, for the mail server that does not see it.

use rustls::{CipherSuite, ProtocolVersion, ServerConnection};

/// How a client's connection is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, as OpenSSL calls it.
    pub cipher: String,
}

impl TlsFacts {
    /// Those of a connection after its handshake.
    #[must_use]
    pub fn of(connection: &ServerConnection) -> Self {
        Self {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher: connection.negotiated_cipher_suite().map(|suite| openssl_name(suite.suite())).unwrap_or_default(),
        }
    }
}

/// What OpenSSL, and so most of what reads such names, calls a cipher suite.
fn openssl_name(suite: CipherSuite) -> String {
    let name = suite.as_str().unwrap_or_default();
    if let Some(name) = name.strip_prefix("TLS13_") {
        return format!("TLS_{name}");
    }
    let name = name.strip_prefix("TLS_").unwrap_or(name);
    let name = name.replace("_WITH_", "_").replace("AES_", "AES").replace('_', "-");
    match name.strip_suffix("POLY1305-SHA256") {
        Some(stem) => format!("{stem}POLY1305"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cipher_suites_have_the_names_that_others_know() {
        for (suite, name) in [
            (CipherSuite::TLS13_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384"),
            (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, "TLS_CHACHA20_POLY1305_SHA256"),
            (CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256"),
            (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384"),
            (CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305"),
        ] {
            assert_eq!(openssl_name(suite), name);
        }
    }
}
