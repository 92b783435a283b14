use std::{path::Path, time::Duration};

use proptest::prelude::*;

use super::{DRY_RUN, Imported, import, main_cf::words};
use crate::{
    access::Verdict,
    config::{Loaded, load_text},
    screen::policy::{Action, TlsLevel},
};

fn imported(main_cf: &str) -> Imported {
    import(main_cf, Path::new("/etc/postfix/main.cf"), false)
}

/// The import's result, loaded.
fn loaded(main_cf: &str) -> (Loaded, Vec<String>) {
    let Imported { toml, warnings } = imported(main_cf);
    let loaded = load_text(&toml, Path::new("x.toml"), &[]).unwrap_or_else(|problems| panic!("{problems}\n{toml}"));
    (loaded, warnings)
}

#[test]
fn a_usual_main_cf_is_carried_over() {
    let text = "\
# postscreen\nmyhostname = mx.example.test\nmynetworks = 127.0.0.0/8, [::1]/128\n   192.0.2.0/24\n\
smtpd_banner = $myhostname ESMTP $mail_name\npostscreen_greet_action = enforce\npostscreen_greet_wait = ${stress?{3}:{9}}s\n\
postscreen_greet_ttl = 2\npostscreen_dnsbl_sites = zen.test*3 bl.test=127.0.0.[2..11]*2,\n wl.test*-4\n\
postscreen_dnsbl_threshold = 3\npostscreen_dnsbl_action = enforce\npostscreen_dnsbl_whitelist_threshold = -2\npostscreen_dnsbl_ttl = 30m\n\
postscreen_dnsbl_reply_map = inline:{ { zen.test = public.test } }\npostscreen_blacklist_action = drop\n\
postscreen_access_list = permit_mynetworks, cidr:{{192.0.2.9 permit}, {198.51.100.0/24 reject}}\n\
postscreen_bare_newline_enable = yes\npostscreen_bare_newline_action = continue\ndisable_vrfy_command = yes\n\
default_process_limit = 200\nsmtpd_discard_ehlo_keywords = dsn, etrn\npostscreen_cache_map =\nrespectful_logging = no\n\
postscreen_reject_footer = \\c. See $server_name\npostscreen_command_filter = pcre:{ {/^helo$$/ HELO nobody} }\n";
    let (Loaded { config, .. }, warnings) = loaded(text);
    let policy = &config.policy;
    assert_eq!(warnings, [] as [&str; 0]);
    assert_eq!(policy.hostname, "mx.example.test");
    assert_eq!(policy.banner, "mx.example.test ESMTP Postfix");
    assert_eq!(policy.pregreet.teaser, "mx.example.test ESMTP Postfix");
    assert_eq!(policy.pregreet.wait.normal, Duration::from_secs(9));
    assert_eq!(policy.pregreet.wait.stress, Duration::from_secs(3));
    assert_eq!(policy.pregreet.ttl, Duration::from_secs(2 * 86_400));
    assert_eq!((policy.pregreet.action, policy.denylist_action), (Action::Enforce, Action::Drop));
    assert_eq!((policy.dnsbl.threshold, policy.dnsbl.allowlist_threshold), (3, -2));
    assert_eq!(policy.dnsbl.max_ttl, Duration::from_secs(1800));
    assert!(policy.bare_newline.enabled && policy.smtp.disable_vrfy && !policy.remember_results);
    assert_eq!(policy.bare_newline.action, Action::Ignore);
    assert_eq!((policy.limits.pre_queue, policy.limits.post_queue), (200, 200));
    assert_eq!(policy.smtp.discard_ehlo_keywords, ["DSN", "ETRN"]);
    assert_eq!(policy.smtp.reject_footer, "\\c. See $server_name");
    assert_eq!(policy.smtp.command_rewrite.len(), 1);
    let verdict = |address: &str| config.access.decide(address.parse().unwrap()).verdict;
    assert_eq!(verdict("192.0.2.1"), Verdict::Permit);
    assert_eq!(verdict("198.51.100.1"), Verdict::Reject);
    assert_eq!(verdict("203.0.113.1"), Verdict::Undecided);
    let toml = imported(text).toml;
    assert!(toml.contains("reply_map = { \"zen.test\" = \"public.test\" }"), "{toml}");
    assert!(toml.contains("sites = [\"zen.test*3\", \"bl.test=127.0.0.[2..11]*2\", \"wl.test*-4\"]"), "{toml}");
}

#[test]
fn an_empty_main_cf_leaves_all_defaults() {
    let (_, warnings) = loaded("");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("mynetworks: is not set"), "{warnings:?}");
}

#[test]
fn text_files_behind_tables_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().display();
    std::fs::write(directory.path().join("access"), "192.0.2.7 reject\n# no\n192.0.2 permit\n").unwrap();
    std::fs::write(directory.path().join("zones"), "secret.bl.test bl.test\n").unwrap();
    std::fs::write(directory.path().join("list.cidr"), "198.51.100.0/24 reject\n").unwrap();
    let text = format!(
        "mynetworks = 127.0.0.0/8\npostscreen_access_list = hash:{at}/access cidr:{at}/list.cidr cidr:{at}/missing mysql:/x\n\
         postscreen_dnsbl_reply_map = texthash:{at}/zones\npostscreen_dnsbl_sites = secret.bl.test\n"
    );
    let (Loaded { config, .. }, warnings) = loaded(&text);
    let verdict = |address: &str| config.access.decide(address.parse().unwrap()).verdict;
    assert_eq!(verdict("192.0.2.7"), Verdict::Reject);
    assert_eq!(verdict("198.51.100.7"), Verdict::Reject);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(imported(&text).toml.contains("reply_map = { \"secret.bl.test\" = \"bl.test\" }"));
}

#[test]
fn patterns_name_the_zones_that_are_configured() {
    let text = "mynetworks = 127.0.0.0/8\npostscreen_dnsbl_sites = key.zen.test=127.0.0.2*3, other.test\n\
                postscreen_dnsbl_reply_map = pcre:{ {/^[a-z]+\\.(zen\\.test)$$/ $$1} }\n";
    assert!(imported(text).toml.contains("reply_map = { \"key.zen.test\" = \"zen.test\" }"), "{}", imported(text).toml);
}

#[test]
fn what_does_not_fit_is_a_comment_and_a_warning() {
    let text = "mynetworks = 127.0.0.0/8\npostscreen_greet_action = explode\npostscreen_greet_wait = soon\npostscreen_pre_queue_limit = 3\n\
                postscreen_reject_footer_maps = hash:/x\npostscreen_new_thing = 7\nsmtpd_tls_security_level = may\nsmtpd_tls_cert_file = /nonexistent/c.pem\n\
                postscreen_greet_banner = $postscreen_greet_banner\nnot a parameter\n";
    let (Loaded { config, .. }, warnings) = loaded(text);
    assert_eq!(config.policy.tls, TlsLevel::None);
    let toml = imported(text).toml;
    for name in [
        "pregreet.action",
        "postscreen_greet_wait",
        "limits.pre_queue",
        "reject_footer_maps",
        "new_thing",
        "tls.certificate",
        "greet_banner",
        "line 10",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(name)), "{name}: {warnings:?}");
        assert!(toml.lines().any(|line| line.starts_with('#') && line.contains(name)), "{name}: {toml}");
    }
}

#[test]
fn every_form_of_reference_is_followed() {
    for (value, expected) in [
        ("$a", "one"),
        ("${a}", "one"),
        ("$(a)", "one"),
        ("${a?x$b}", "xtwo"),
        ("${a:x}", ""),
        ("${none:x}", "x"),
        ("${none?x}", ""),
        ("${none?{x}:{y ${b}}}", "y two"),
        ("${a?{x}:{y}}", "x"),
        ("a$$b", "a$b"),
    ] {
        let text = format!("mynetworks = 127.0.0.0/8\na = one\nb = two\npostscreen_greet_banner = {value}\n");
        let (loaded, warnings) = loaded(&text);
        assert_eq!(warnings, [] as [&str; 0]);
        assert_eq!(loaded.config.policy.pregreet.teaser, expected, "{value}");
    }
    let (_, warnings) = loaded("mynetworks = 127.0.0.0/8\na = $b$b\nb = $a$a\nsmtpd_banner = $a\n");
    assert!(warnings.iter().any(|warning| warning.contains("refers to itself")), "{warnings:?}");
}

#[test]
fn a_long_chain_of_doublings_is_cut_off() {
    let mut text = String::from("mynetworks = 127.0.0.0/8\na0 = xxxxxxxxxx\n");
    for level in 1..45 {
        text.push_str(&format!("a{level} = $a{0}$a{0}\n", level - 1));
    }
    text.push_str("smtpd_banner = $a44\n");
    for text in [text.clone(), text.replace("xxxxxxxxxx", "")] {
        let (_, warnings) = loaded(&text);
        assert!(warnings.iter().any(|warning| warning.starts_with("smtpd_banner: ")), "{warnings:?}");
    }
}

#[test]
fn a_dry_run_is_the_same_configuration_but_for_that() {
    let text = "myhostname = mx.example.test\npostscreen_greet_action = enforce\npostscreen_upstream_proxy_protocol = haproxy\n";
    let watching = import(text, Path::new("/etc/postfix/main.cf"), true);
    let Loaded { config, .. } = load_text(&watching.toml, Path::new("x.toml"), &[]).unwrap();
    assert!(config.policy.dry_run);
    let Imported { toml, warnings } = imported(text);
    assert_eq!((watching.toml.replace(DRY_RUN, ""), watching.warnings), (toml, warnings));
}

#[test]
fn braces_hold_words_together() {
    assert_eq!(words("a, b\tc:{ {d e}, f } ,,g"), ["a", "b", "c:{ {d e}, f }", "g"]);
}

proptest! {
    #[test]
    fn any_text_gives_a_configuration_that_loads(text in "((postscreen_(greet_(wait|banner|ttl|action)|access_list|dnsbl_(sites|ttl|threshold)|command_filter)|mynetworks|smtpd_banner|a) ?= ?(\\PC{0,12}|[$a{}():?,]{0,12}|[0-9]{1,4}[smhdw]?|inline:\\{[a-z0-9.= {},]{0,20}\\})\n){0,6}") {
        prop_assume!(!text.contains('/'));
        let imported = imported(&text);
        prop_assert!(load_text(&imported.toml, Path::new("x"), &[]).is_ok(), "{}", imported.toml);
    }

    #[test]
    fn any_bytes_are_imported_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let imported = imported(&String::from_utf8_lossy(&bytes));
        prop_assert!(imported.warnings.iter().all(|warning| !warning.contains('\n')));
    }
}
