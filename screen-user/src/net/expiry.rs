//! The end of a certificate's validity (RFC 5280 section 4.1.2.5): all of it that an operator has to keep in mind.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

/// DER tags (X.690 section 8).
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The last second in which the first certificate of a PEM file is valid; `None` if that can't be read.
#[must_use]
pub fn valid_until(pem: &[u8]) -> Option<Timestamp> {
    not_after(&CertificateDer::from_pem_slice(pem).ok()?)
}

fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate, _) = element(der)?;
    let (_, mut rest, _) = element(certificate)?;
    let (first, _, behind) = element(rest)?;
    if first == VERSION {
        rest = behind;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        (_, _, rest) = element(rest)?;
    }
    let (_, validity, _) = element(rest)?;
    let (_, _, rest) = element(validity)?;
    let (tag, time, _) = element(rest)?;
    let time = str::from_utf8(time).ok()?;
    let time = match tag {
        // Two digits of a year: 50 and later were in the last century.
        UTC_TIME => format!("{}{time}", if time < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => time.to_owned(),
        _ => return None,
    };
    Some(DateTime::strptime("%Y%m%d%H%M%SZ", time).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// A tag, what is in it, and what comes behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (octets, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        let fits = octets.len() <= size_of::<u32>();
        (fits.then(|| octets.iter().fold(0, |length, &octet| length << 8 | usize::from(octet)))?, rest)
    };
    let (contents, behind) = rest.split_at_checked(length)?;
    Some((tag, contents, behind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn both_forms_of_time_are_read() {
        for (year, said) in
            [(2031, "2031-05-06T00:00:00Z"), (2077, "2077-05-06T00:00:00Z"), (1999, "1999-05-06T00:00:00Z")]
        {
            let mut params = CertificateParams::new(vec!["mx.example.test".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, 5, 6);
            let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(valid_until(made.pem().as_bytes()).unwrap().to_string(), said);
        }
        assert_eq!(valid_until(b"-----BEGIN CERTIFICATE-----\n"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_end_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let end = not_after(&bytes);
            prop_assert!(bytes.len() > 20 || end.is_none());
        }
    }
}
