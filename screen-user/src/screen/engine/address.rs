//! Takes the address out of MAIL and RCPT. Nothing is validated: whatever it is, it is rejected (spec 4.4.2).

/// The address in the arguments of MAIL or RCPT; `None` without a colon, whatever stands before it.
pub(super) fn extract(arguments: &[u8]) -> Option<Box<[u8]>> {
    let colon = arguments.iter().position(|&byte| byte == b':')?;
    let mut rest =
        arguments.get(colon + 1..).unwrap_or_default().iter().copied().skip_while(|&byte| byte == b' ').peekable();
    let stop = if rest.next_if_eq(&b'<').is_some() { b'>' } else { b' ' };
    let mut address = Vec::new();
    let mut quoted = false;
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' => address.extend(rest.next()),
            byte if byte == stop && !quoted => break,
            byte => address.push(byte),
        }
    }
    // A source route, which RFC 5321 appendix C tells servers to ignore.
    if address.first() == Some(&b'@')
        && let Some(end) = address.iter().position(|&byte| byte == b':')
    {
        address.drain(..=end);
    }
    Some(address.into())
}
