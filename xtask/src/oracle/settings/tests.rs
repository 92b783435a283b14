use std::path::Path;

use super::{super::groups, *};
use crate::workspace;

fn place() -> Place {
    let at = |text: &str| text.parse().unwrap();
    Place {
        listen: vec![at("198.19.1.2:25"), at("[2001:db8:19:1::2]:25"), at("198.19.1.3:25")],
        alt: Some(at("198.19.1.3:25")),
        backend: at("127.0.0.1:20001"),
        resolver: at("127.0.0.1:5353"),
        folder: PathBuf::from("/w/g"),
        log: PathBuf::from("/w/log"),
        certificate: PathBuf::from("/w/c.pem"),
        key: PathBuf::from("/w/k.pem"),
        mapped: Vec::new(),
    }
}

/// The files for one of the project's own groups: the configuration, parsed, and the tables.
fn made(group: &str, place: &Place) -> (Table, Vec<String>) {
    let scenarios = workspace::root().join("tests/oracle/scenarios");
    let groups = groups::load(&scenarios, &[group.to_owned()]).unwrap();
    let mut files = files(&groups[0].config, place).into_iter();
    let (path, text) = files.next().unwrap();
    assert_eq!(path, Path::new("/w/g/mxscreen.toml"));
    (text.parse().unwrap(), files.map(|(_, text)| text).collect())
}

fn get<'a>(table: &'a Table, key: &str) -> &'a Value {
    let mut parts = key.split('.');
    let first = &table[parts.next().unwrap()];
    parts.fold(first, |value, part| &value[part])
}

fn list(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

#[test]
fn every_group_of_the_project_has_a_configuration() {
    let scenarios = workspace::root().join("tests/oracle/scenarios");
    for group in groups::load(&scenarios, &[]).unwrap() {
        for (file, text) in files(&group.config, &place()) {
            assert!(!text.is_empty(), "{}", file.display());
        }
    }
}

#[test]
fn scalars_keep_their_meaning() {
    let (toml, _) = made("long-wait-custom-teaser", &place());
    assert_eq!(get(&toml, "layout").as_str(), Some("front"));
    assert_eq!(get(&toml, "pregreet.wait").as_str(), Some("6s"));
    assert_eq!(get(&toml, "pregreet.banner").as_str(), Some("--- please hold ---"));
    assert_eq!(get(&toml, "limits.client_prefix.ipv6").as_integer(), Some(128));
    assert_eq!(get(&toml, "cache.backend").as_str(), Some("memory"));
    assert_eq!(list(get(&toml, "listen")), ["198.19.1.2:25", "[2001:db8:19:1::2]:25", "198.19.1.3:25"]);
    assert!(!toml.contains_key("proxy_protocol.from"));
}

#[test]
fn the_access_list_becomes_tables_around_the_own_networks_and_ends_where_it_ends() {
    let (toml, tables) = made("access-drop", &place());
    assert_eq!(
        list(get(&toml, "access.list")),
        ["cidr:/w/g/access-0.cidr", "permit_mynetworks", "cidr:/w/g/access-1.cidr"]
    );
    assert_eq!(tables[0], "198.18.18.20 permit\n198.18.18.16/28 reject\n198.18.18.48/29 dunno\n");
    assert_eq!(
        tables[1], "198.18.18.64/27 reject\n2001:db8:18:12::a:0/112 reject\n2001:db8:18:12::b:1 permit\n",
        "the reject of everybody stands after the end of the list"
    );
    assert_eq!(list(get(&toml, "access.mynetworks")), ["127.0.0.0/8", "198.18.18.72/30", "2001:db8:18:12::a:8/128"]);
    assert_eq!(get(&toml, "access.denylist_action").as_str(), Some("drop"));
}

#[test]
fn on_the_loopback_net_the_clients_are_not_among_the_own_networks() {
    let mut place = place();
    place.mapped =
        vec![("198.18.".to_owned(), "127.18.".to_owned()), ("127.0.0.0/8".to_owned(), "127.0.0.0/16".to_owned())];
    let (toml, tables) = made("access-drop", &place);
    assert_eq!(list(get(&toml, "access.mynetworks")), ["127.0.0.0/16", "127.18.18.72/30", "2001:db8:18:12::a:8/128"]);
    assert!(tables[0].starts_with("127.18.18.20 permit\n"));
}

#[test]
fn sites_are_written_as_postfix_writes_them() {
    let (toml, _) = made("dnsbl-filters", &place());
    let sites = list(get(&toml, "dnsbl.sites"));
    assert_eq!(sites[0], "bl-a.dnsbl.test=127.[0;9].[0..3].[1;3;5..7]*10");
    assert!(sites.contains(&"wl-a.dnswl.test=127.0.0.[0..255]*-10"));
    let (toml, _) = made("dnsbl-public-names", &place());
    assert_eq!(list(get(&toml, "dnsbl.sites")), ["k3y-4242.paid.dnsbl.test*2", "bl-a.dnsbl.test"]);
    // The zone's dots are part of the key.
    assert_eq!(
        get(&toml, "dnsbl.reply_map").as_table().unwrap()["k3y-4242.paid.dnsbl.test"].as_str(),
        Some("paid.dnsbl.test")
    );
}

#[test]
fn forbidden_commands_and_rewriting_keep_their_expressions() {
    let (toml, _) = made("engine-forbidden", &place());
    assert_eq!(list(get(&toml, "non_smtp_command.forbidden")), ["FROB", "/^x-/i", "HELP"]);
    let (toml, _) = made("engine-rewrite", &place());
    let rules = get(&toml, "smtp.command_rewrite").as_array().unwrap();
    assert_eq!(list(&rules[1]), ["/^ehlo\\s+broken/", "HELO broken.client.test"]);
}

#[test]
fn keywords_by_client_are_a_table_of_networks() {
    let (toml, _) = made("engine-ehlo-filter", &place());
    let by_client = get(&toml, "smtp.discard_ehlo_keywords_by_client").as_table().unwrap();
    assert_eq!(list(&by_client["198.18.36.64/27"]), ["vrfy", "etrn", "size", "dsn"]);
    assert_eq!(list(get(&toml, "smtp.discard_ehlo_keywords")), ["chunking", "smtputf8"]);
}

#[test]
fn a_footer_keeps_its_escapes_for_the_gate_to_read() {
    let (toml, _) = made("engine-footer", &place());
    let footer = get(&toml, "smtp.reject_footer").as_str().unwrap();
    assert!(footer.contains(r"\nIt is $localtime now"), "{footer}");
}

#[test]
fn stress_has_its_own_times() {
    let (toml, _) = made("stress-command-time", &place());
    assert_eq!(get(&toml, "smtp.command_time_limit").as_str(), Some("8s"));
    assert_eq!(get(&toml, "smtp.stress_command_time_limit").as_str(), Some("2s"));
}

#[test]
fn tls_has_its_certificate_and_no_session_if_its_engine_is_away() {
    let (toml, _) = made("tls-may", &place());
    assert_eq!(get(&toml, "tls.certificate").as_str(), Some("/w/c.pem"));
    assert!(!get(&toml, "tls").as_table().unwrap().contains_key("sessions"));
    let (toml, _) = made("tls-unavailable", &place());
    assert_eq!(get(&toml, "tls.level").as_str(), Some("may"));
    assert_eq!(get(&toml, "tls.sessions").as_integer(), Some(0));
}

#[test]
fn a_proxy_in_front_is_everybody() {
    let (toml, _) = made("proxy", &place());
    assert_eq!(list(get(&toml, "proxy_protocol.from")), ["0.0.0.0/0", "::/0"]);
    let (toml, _) = made("engine", &place());
    assert!(!get(&toml, "proxy_protocol").as_table().unwrap().contains_key("from"));
}

#[test]
fn only_the_second_address_is_left_out_where_a_client_can_become_known() {
    let (toml, _) = made("allowlist-interfaces", &place());
    assert_eq!(list(get(&toml, "access.allowlist_addresses")), ["!198.19.1.3", "0.0.0.0/0", "::/0"]);
    let (toml, _) = made("engine", &place());
    assert!(!get(&toml, "access").as_table().unwrap().contains_key("allowlist_addresses"));
}
