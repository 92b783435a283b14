//! The host's own name.

use std::fs;

/// The host's name with its domain where that is known: from the kernel, completed by `/etc/hosts`, never by a look-up.
pub(super) fn fqdn() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let name = name.trim().trim_end_matches('.');
    if name.is_empty() { "localhost".to_owned() } else { complete(name, &hosts) }
}

/// `name` with the domain that a line of the hosts file gives it.
fn complete(name: &str, hosts: &str) -> String {
    if name.contains('.') {
        return name.to_owned();
    }
    for line in hosts.lines() {
        let names = || line.split('#').next().unwrap_or_default().split_ascii_whitespace().skip(1);
        if names().any(|alias| alias.eq_ignore_ascii_case(name)) {
            let full = names().find(|alias| alias.contains('.') && !alias.starts_with("localhost."));
            if let Some(full) = full {
                return full.to_owned();
            }
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::complete;

    #[test]
    fn a_short_name_gets_its_domain_from_the_hosts_file() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 mx.example.test mx # mx.wrong.test\n";
        assert_eq!(complete("mx", hosts), "mx.example.test");
        assert_eq!(complete("mail", hosts), "mail");
        assert_eq!(complete("mail.example.net", hosts), "mail.example.net");
        assert_eq!(complete("localhost", "127.0.0.1 localhost.localdomain localhost"), "localhost");
    }
}
