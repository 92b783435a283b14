use std::{path::Path, time::Duration};

use proptest::prelude::*;

use super::{
    Backend, CacheBackend, ClientAddress, Config, Host, KernelReply, Layout, Loaded, LogTarget, Mode, Steer,
    format_duration,
    keys::{self, Default as KeyDefault, KEYS},
    load, load_text, manual, markdown, parse_duration, reference,
};
use crate::{
    access::Verdict,
    screen::{
        policy::{Action, PoolCredit, TlsLevel},
        record::Test,
    },
};

const FILE: &str = "/etc/mxscreen/mxscreen.toml";

fn read(text: &str) -> Loaded {
    load_text(text, Path::new(FILE), &[]).unwrap_or_else(|problems| panic!("{problems}"))
}

mod redis;

fn config(text: &str) -> Config {
    read(text).config
}

fn problems(text: &str) -> Vec<String> {
    problems_with(text, &[])
}

fn problems_with(text: &str, overrides: &[(&str, &str)]) -> Vec<String> {
    match load_text(text, Path::new(FILE), &pairs(overrides)) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
    }
}

fn pairs(overrides: &[(&str, &str)]) -> Vec<(String, String)> {
    overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn an_empty_file_has_the_documented_defaults() {
    let config = config("");
    let policy = &config.policy;
    assert_eq!((config.ports.as_slice(), config.layout), ([25].as_slice(), Layout::InPlace));
    assert_eq!(config.listen, ["127.0.0.1:2526".parse().unwrap(), "[::1]:2526".parse().unwrap()]);
    assert_eq!(policy.pregreet.wait.normal, Duration::from_secs(6));
    assert_eq!(policy.pregreet.wait.stress, Duration::from_secs(2));
    assert_eq!(policy.pregreet.teaser, format!("{} ESMTP", policy.hostname));
    assert_eq!(policy.banner, policy.pregreet.teaser);
    assert_eq!(policy.pregreet.ttl, Duration::from_secs(86_400));
    assert_eq!((policy.dnsbl.threshold, policy.dnsbl.allowlist_threshold), (1, 0));
    assert_eq!((policy.dnsbl.min_ttl, policy.dnsbl.max_ttl), (Duration::from_secs(60), Duration::from_secs(3600)));
    assert_eq!(config.resolver.timeout, Duration::from_secs(10));
    assert_eq!(policy.pipelining.action, Action::Enforce);
    assert_eq!(policy.non_smtp_command.action, Action::Drop);
    assert_eq!(policy.bare_newline.action, Action::Ignore);
    assert!(!policy.pipelining.enabled && !policy.non_smtp_command.enabled && !policy.bare_newline.enabled);
    assert_eq!(policy.bare_newline.ttl, Duration::from_secs(30 * 86_400));
    assert_eq!(policy.smtp.message_size_limit, 10_240_000);
    assert_eq!((policy.smtp.command_count_limit, policy.smtp.line_length_limit), (20, 2048));
    assert_eq!(policy.smtp.command_time_limit.normal, Duration::from_secs(300));
    assert_eq!(policy.smtp.command_time_limit.stress, Duration::from_secs(10));
    assert_eq!(policy.tls, TlsLevel::None);
    let limits = policy.limits;
    assert_eq!((limits.client_connections, limits.pre_queue, limits.post_queue), (50, 100_000, 10_000));
    assert_eq!((limits.client_prefix.ipv4, limits.client_prefix.ipv6), (32, 64));
    assert_eq!(config.cache.backend, CacheBackend::Embedded);
    assert_eq!(config.cache.retention, Duration::from_secs(7 * 86_400));
    assert!(policy.remember_results);
    assert_eq!(policy.pool_credit, PoolCredit::default());
    assert_eq!(policy.remember_failures, Duration::from_secs(600));
    assert_eq!(config.forward.to, [Backend::Local]);
    assert_eq!(config.forward.client_address, ClientAddress::Kernel);
    assert!(config.kernel.enabled);
    assert_eq!((config.kernel.steer, config.kernel.deny_reply), (Steer::Auto, KernelReply::Reject));
    assert_eq!(config.control_socket, Path::new("/run/mxscreen/control.sock"));
    assert_eq!(config.access.decide("127.0.0.1".parse().unwrap()).verdict, Verdict::Permit);
    assert_eq!(config.access.decide("192.0.2.1".parse().unwrap()).verdict, Verdict::Undecided);
    assert!(policy.allowlist_addresses.contains("2001:db8::1".parse().unwrap()));
    let get = |verb: &[u8]| policy.forbidden.patterns.iter().any(|pattern| pattern.is_match(verb));
    assert!(get(b"123") && get(b"\xff") && !get(b"x") && !get(b"X"));
}

#[test]
fn every_key_can_be_given_its_own_default() {
    let text = reference();
    let loaded = read(&text);
    assert_eq!(loaded.config.policy.pregreet.wait.normal, Duration::from_secs(6));
    for key in KEYS {
        assert!(text.contains(key.path.rsplit('.').next().unwrap()), "{}", key.path);
        if let KeyDefault::Value(value) = key.default {
            assert_eq!(problems_with("", &[(key.path, value)]), [] as [&str; 0], "{}", key.path);
        }
    }
}

#[test]
fn the_configuration_page_is_the_one_made_from_the_keys() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    if std::env::var_os("MXSCREEN_WRITE_DOCS").is_some() {
        std::fs::write(&page, markdown()).unwrap();
    }
    let written = std::fs::read_to_string(&page).unwrap();
    assert!(written == markdown(), "docs/configuration.md differs: run this test with MXSCREEN_WRITE_DOCS=1");
}

#[test]
fn all_problems_come_at_once_with_their_lines() {
    let text = "hostnam = \"x\"\n\n[pregreet]\nwiat = \"6s\"\naction = \"dorp\"\nttl = 5\n\n[dnsbl]\nthreshold = 0\nwait = \"1s\"\n\n[pregret]\nwait = \"6s\"\n";
    assert_eq!(
        problems(text),
        [
            "/etc/mxscreen/mxscreen.toml:1: unknown key \"hostnam\"; did you mean \"hostname\"?",
            "/etc/mxscreen/mxscreen.toml:4: unknown key \"pregreet.wiat\"; did you mean \"pregreet.wait\"?",
            "/etc/mxscreen/mxscreen.toml:5: pregreet.action: \"dorp\" is not one of \"ignore\", \"enforce\", \"drop\"; did you mean \"drop\"?",
            "/etc/mxscreen/mxscreen.toml:6: pregreet.ttl: must be a duration, not a number; for seconds write \"5s\"",
            "/etc/mxscreen/mxscreen.toml:9: dnsbl.threshold: 0 is out of range: 1 to 2147483647",
            "/etc/mxscreen/mxscreen.toml:10: unknown key \"dnsbl.wait\"; did you mean \"pregreet.wait\"?",
            "/etc/mxscreen/mxscreen.toml:12: unknown key \"pregret\"; did you mean \"pregreet\"?",
        ]
    );
}

#[test]
fn a_syntax_error_has_line_and_column() {
    let found = problems("layout = \"front\"\nports = [25\nhostname = \"x\"\n");
    assert!(found[0].starts_with("/etc/mxscreen/mxscreen.toml:3:"), "{found:?}");
    assert!(found.iter().all(|line| !line.contains('\n') && line.contains("syntax:")), "{found:?}");
    let twice = problems("ports = [25]\nports = [26]\n");
    assert!(twice[0].starts_with("/etc/mxscreen/mxscreen.toml:2:1: syntax: duplicate key"), "{twice:?}");
}

#[test]
fn wrong_types_and_sections_are_named() {
    let cases = [
        ("pregreet = 5", "\"pregreet\" is a section, not a key; its keys are written like \"pregreet.wait\""),
        ("ports = 25", "ports: must be a list, not a number; write [25]"),
        ("ports = []", "ports: at least one port is needed"),
        ("ports = [25, 0]", "ports: 0 is no port: 1 to 65535"),
        ("ports = [25, 25]", "ports: 25 is listed twice"),
        ("dry_run = \"yes\"", "dry_run: must be true or false, not a text; write true"),
        ("hostname = \"a b\"", "hostname: \"a b\" is no host name"),
        ("listen = [\"127.0.0.1\"]", "listen: \"127.0.0.1\" has no port; write \"127.0.0.1:25\""),
        ("listen = []", "listen: at least one address is needed"),
        ("limits.client_prefix.ipv4 = 33", "limits.client_prefix.ipv4: 33 is out of range: 0 to 32"),
        ("limits = { client_prefix = { ipv6 = -1 } }", "limits.client_prefix.ipv6: -1 is out of range: 0 to 128"),
        ("access.list = [\"spf:localhost\"]", "access.list: \"localhost\" is no domain that can be asked for"),
        (
            "access.list = [\"spf:%{d}.example.org\"]",
            "access.list: \"%{d}.example.org\" is no domain that can be asked for",
        ),
        ("access.spf.widest.ipv4 = 33", "access.spf.widest.ipv4: 33 is out of range: 0 to 32"),
        (
            "access.spf = { min_ttl = \"1h\", max_ttl = \"1m\" }",
            "access.spf.max_ttl: must not be shorter than access.spf.min_ttl",
        ),
        ("cache.pool_credit = { ipv4 = 15 }", "cache.pool_credit.ipv4: 15 is out of range: 16 to 32"),
        (
            "cache.pool_credit.ipv6 = 65",
            "cache.pool_credit.ipv6: must not be longer than limits.client_prefix.ipv6, 64",
        ),
        ("limits.pre_queue = 9", "limits.pre_queue: 9 is out of range: 0 (no limit), or at least 10"),
        ("pregreet.wait = \"0s\"", "pregreet.wait: must be at least 1ms"),
        (
            "pregreet.wait = \"6 s\"",
            "pregreet.wait: \"6 s\" is no duration: a whole number and a unit are needed (ms, s, m, h, d, w), as in \"6s\" or \"30d\"",
        ),
        (
            "pregreet.banner = \"$host\"",
            "pregreet.banner: unknown name after \"$\" in \"$host\"; only $hostname is known; a dollar sign is written \"$$\"",
        ),
        ("smtp.banner = \"a\\nb\"", "smtp.banner: must be one line without control characters"),
        ("smtp.discard_ehlo_keywords = [\"dns\"]", "smtp.discard_ehlo_keywords: \"DNS\" is not one of"),
        ("smtp.command_rewrite = [[\"(\", \"x\"]]", "smtp.command_rewrite: bad pattern \"(\": unclosed group"),
        ("smtp.command_rewrite = [\"x\"]", "smtp.command_rewrite: must be a list of pairs such as"),
        ("non_smtp_command.forbidden = [\"GET POST\"]", "non_smtp_command.forbidden: \"GET POST\" is not one word"),
        (
            "access.mynetworks = [\"192.0.2.1/24\"]",
            "access.mynetworks: non-null host address bits in \"192.0.2.1/24\", perhaps you should use \"192.0.2.0/24\" instead",
        ),
        ("access.list = [\"permit_mynetwork\"]", "did you mean \"permit_mynetworks\"?"),
        (
            "access.list = [\"hash:/etc/x\"]",
            "access.list: tables of type \"hash\" are not known; a table is written \"cidr:/path/of/a/file\"",
        ),
        (
            "access.list = [\"cidr:/nonexistent/x\"]",
            "access.list: can't read /nonexistent/x: No such file or directory",
        ),
        (
            "access.list = [{ cidr = [\"192.0.2.0/33 reject\"] }]",
            "access.list: bad mask value in \"192.0.2.0/33\": at most 32: skipping this rule",
        ),
        ("proxy_protocol.from = [\"lo\"]", "proxy_protocol.from: bad address pattern \"lo\""),
        ("kernel.interfaces = [\"a/b\"]", "kernel.interfaces: \"a/b\" is no name of an interface"),
        ("kernel.pin_path = \"pins\"", "kernel.pin_path: \"pins\" is no absolute path"),
        ("log.target = \"file:\"", "log.target: a path must follow \"file:\""),
        ("log.target = \"sdterr\"", "did you mean \"stderr\"?"),
        ("log.name = \"mx screen\"", "log.name: 1 to 48 letters, digits or signs, without spaces, colons and brackets"),
        ("forward.to = [\"mx\"]", "forward.to: \"mx\" is no address with a port; write it like"),
        ("forward.to = []", "forward.to: at least one mail server is needed"),
        ("forward.to = [\"192.0.2.1:25*x\"]", "forward.to: bad weight \"x\": 0 to 65535"),
        ("forward.to = [\"192.0.2.1:25*65536\"]", "forward.to: bad weight \"65536\": 0 to 65535"),
        ("forward.to = [\"192.0.2.1*2\"]", "forward.to: \"192.0.2.1\" has no port"),
        ("forward.to = [\"192.0.2.1:25\", \"192.0.2.1:25*2\"]", "forward.to: 192.0.2.1:25 is listed twice"),
        ("forward.to = [\"192.0.2.1:25*0\"]", "forward.to: all mail servers have weight 0"),
        ("state.directory = \"\"", "state.directory: must not be empty"),
    ];
    for (text, expected) in cases {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(
            found[0].starts_with("/etc/mxscreen/mxscreen.toml:1: ") && found[0].contains(expected),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn layouts_need_what_they_need() {
    let off = problems("kernel.mode = \"off\"");
    assert!(
        off[0].contains("it is the kernel that gives strangers to the screener; set layout = \"front\""),
        "{off:?}"
    );
    assert!(problems("layout = \"front\"")[0].contains("forward.to: must be given"));
    assert!(problems("layout = \"front\"\nforward.to = [\"local\"]")[0].contains("would lead back to the screener"));
    let off = "layout = \"front\"\nforward.to = [\"127.0.0.1:10025\"]\nkernel.mode = \"off\"\n";
    assert!(problems(&format!("{off}forward.client_address = \"kernel\""))[0].contains("needs the kernel"));
    assert!(problems(&format!("{off}forward.steer = \"on\""))[0].contains("needs the kernel"));

    let loaded = read("layout = \"front\"\nports = [25, 587]\nforward.to = [\"127.0.0.1:10025\"]\n");
    assert_eq!(loaded.config.listen, ["[::]:25".parse().unwrap(), "[::]:587".parse().unwrap()]);
    assert_eq!(loaded.config.forward.client_address, ClientAddress::Kernel);
    let far = "layout = \"front\"\nforward.to = [\"192.0.2.1:25\"]\n";
    assert_eq!(config(far).forward.client_address, ClientAddress::ProxyV2);
    assert!(problems(&format!("{far}forward.client_address = \"kernel\""))[0].contains("on this host only"));
    assert_eq!(config(&format!("{off}forward.client_address = \"none\"")).forward.client_address, ClientAddress::None);
}

#[test]
fn a_dry_run_leaves_out_tests_that_nobody_passes_without_coming_back() {
    let deep = "dry_run = true\npipelining.enable = true\n";
    let goes_on = read(deep);
    assert!(goes_on.config.policy.enables(Test::Pipelining));
    assert_eq!(goes_on.notices, ["dry_run: nobody is turned away"]);
    let comes_back = read(&format!("{deep}forward.after_deep_tests = \"reconnect\""));
    assert!(!comes_back.config.policy.enables(Test::Pipelining));
    assert!(comes_back.notices[1].contains("the deep tests are left out"), "{:?}", comes_back.notices);
}

#[test]
fn a_socket_goes_to_one_service_and_says_itself_who_the_client_is() {
    let path = "/var/spool/postfix/private/smtpd";
    let postfix = |to: &str| format!("forward.mode = \"postfix\"\nforward.to = {to}\n");
    let list = postfix(&format!("[{path:?}]"));
    for text in [list.clone(), postfix(&format!("{path:?}")), format!("{list}layout = \"front\"\n")] {
        let forward = config(&text).forward;
        assert_eq!(forward.to, [Backend::Socket(path.into())], "{text}");
        assert_eq!((forward.mode, forward.client_address), (Mode::Postfix, ClientAddress::None), "{text}");
        assert_eq!((forward.replay_to, forward.steer_to), (None, None), "{text}");
    }
    let long = format!("\"/{}\"", "x".repeat(107));
    for (text, complaint) in [
        ("forward.mode = \"postfix\"".to_owned(), "must be the path of the socket"),
        (postfix("[]"), "must be the path of the socket"),
        (postfix("[\"local\"]"), "must be the path of the socket"),
        (postfix("[\"private/smtpd\"]"), "must be the path of the socket"),
        (postfix("[\"/a\", \"/b\"]"), "must be the path of the socket"),
        (postfix(&long), "at most 107 bytes"),
        (format!("{list}forward.client_address = \"none\""), "goes along with its socket"),
        (format!("{list}forward.steer_to = \"127.0.0.1:25\""), "protected port"),
        (format!("{list}forward.replay_to = \"mx\""), "is no address with a port"),
        ("forward.replay_to = \"127.0.0.1:10025\"".to_owned(), "replayed to forward.to"),
    ] {
        let found = problems(&text);
        assert!(found.len() == 1 && found[0].contains(complaint), "{text}: {found:?}");
    }
    let near = format!("{list}forward.replay_to = \"127.0.0.1:10025\"\n");
    assert_eq!(config(&near).forward.replay_to, Some("127.0.0.1:10025".parse().unwrap()));
    assert_eq!(config(&near).forward.client_address, ClientAddress::Kernel);
    let told = config(&format!("{near}forward.client_address = \"proxy-v1\"")).forward.client_address;
    assert_eq!(told, ClientAddress::ProxyV1);
    let far = config(&format!("{list}forward.replay_to = \"192.0.2.1:25\"")).forward.client_address;
    assert_eq!(far, ClientAddress::ProxyV2);
    let front = format!("{list}layout = \"front\"\nforward.steer_to = \"127.0.0.1:10025\"\n");
    assert_eq!(config(&front).forward.steer_to, Some("127.0.0.1:10025".parse().unwrap()));
}

#[test]
fn clients_go_on_unless_they_are_to_come_back() {
    assert!(config("bare_newline.enable = true").policy.replays);
    assert!(!config("bare_newline.enable = true\nforward.after_deep_tests = \"reconnect\"").policy.replays);

    let postfix = "bare_newline.enable = true\nforward.mode = \"postfix\"\nforward.to = \"/smtpd\"\n";
    let notices = read(postfix).notices;
    assert!(notices.len() == 1 && notices[0].contains("are asked to come back"), "{notices:?}");
    assert!(!config(postfix).policy.replays);
    assert_eq!(read(&format!("{postfix}forward.after_deep_tests = \"reconnect\"")).notices, [] as [&str; 0]);
    let wanted = problems(&format!("{postfix}forward.after_deep_tests = \"continue\""));
    assert!(wanted.len() == 1 && wanted[0].contains("needs forward.replay_to"), "{wanted:?}");
    let near = config(&format!("{postfix}forward.replay_to = \"127.0.0.1:10025\""));
    assert!(near.policy.replays);
    assert_eq!(*near.forward.relayed_to(), [Backend::At("127.0.0.1:10025".parse().unwrap())]);
}

#[test]
fn certificates_come_with_their_keys() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pem");
    std::fs::write(&file, "x").unwrap();
    let file = file.display();
    assert!(problems("tls.level = \"may\"")[0].contains("needs a certificate and a key"));
    assert!(problems(&format!("tls.certificate = \"{file}\""))[0].contains("a certificate needs its key"));
    assert!(problems(&format!("tls.key = \"{file}\""))[0].contains("a key needs its certificate"));
    let missing =
        problems(&format!("tls.certificate = \"/nonexistent\"\ntls.key = \"{}\"", directory.path().display()));
    assert!(missing[0].contains("tls.certificate: can't read /nonexistent"), "{missing:?}");
    assert!(missing[1].contains("is not a file"), "{missing:?}");
    let both = config(&format!("tls.certificate = \"{file}\"\ntls.key = \"{file}\"\ntls.level = \"encrypt\""));
    assert_eq!(both.policy.tls, TlsLevel::Encrypt);
}

#[test]
fn overrides_win_and_errors_name_them() {
    let set = pairs(&[
        ("pregreet.wait", "4s"),
        ("ports", "2525"),
        ("limits.client_prefix", "{ipv4=24, ipv6=48}"),
        ("cache.pool_credit", "{ipv4=22}"),
        ("hostname", "mx.example.test"),
        ("pregreet.banner", ""),
        ("log.target", "file:/tmp/log"),
        ("pregreet.wait", "5s"),
        ("access.mynetworks", "[\"192.0.2.0/24\"]"),
        ("dnsbl.resolvers", "127.0.0.1"),
    ]);
    let config = load_text("[pregreet]\nwait = \"wrong\"\n", Path::new(FILE), &set).unwrap().config;
    assert_eq!(config.policy.pregreet.wait.normal, Duration::from_secs(5));
    assert_eq!(config.ports, [2525]);
    assert_eq!(config.policy.limits.client_prefix.ipv6, 48);
    assert_eq!(config.policy.pool_credit, PoolCredit { ipv4: Some(22), ipv6: None });
    assert_eq!(config.policy.hostname, "mx.example.test");
    assert_eq!(config.policy.pregreet.teaser, "");
    assert_eq!(config.policy.banner, "mx.example.test ESMTP");
    assert_eq!(config.log.target, LogTarget::File("/tmp/log".into()));
    assert_eq!(config.resolver.servers, ["127.0.0.1:53".parse().unwrap()]);
    assert_eq!(config.access.decide("192.0.2.9".parse().unwrap()).verdict, Verdict::Permit);
    assert_eq!(
        problems_with("", &[("pregreet.wait", "0s"), ("pregreet.wiat", "1s")]),
        [
            "--set pregreet.wait=0s: pregreet.wait: must be at least 1ms",
            "--set pregreet.wiat=1s: unknown key \"pregreet.wiat\"; did you mean \"pregreet.wait\"?"
        ]
    );
    assert!(problems_with("", &[("ports", "[25")])[0].starts_with("--set ports=[25: syntax: "));
}

#[test]
fn tables_are_read_from_files_and_in_place() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("list.cidr"),
        "192.0.2.0/24 reject\n192.0.2.1/24 reject\n198.51.100.1 maybe\n",
    )
    .unwrap();
    let path = directory.path().join("mxscreen.toml");
    std::fs::write(
        &path,
        "[access]\nlist = [\n  { cidr = [\n    \"192.0.2.7 permit\",\n  ] },\n  \"cidr:list.cidr\",\n]\n",
    )
    .unwrap();
    let loaded = load(&Host::here(), &path, &[]).unwrap();
    let decide = |address: &str| loaded.config.access.decide(address.parse().unwrap());
    assert_eq!(decide("192.0.2.7").verdict, Verdict::Permit);
    assert_eq!(decide("192.0.2.7").rule.unwrap().to_string(), format!("{}:4", path.display()));
    assert_eq!(decide("192.0.2.8").verdict, Verdict::Reject);
    let table = directory.path().join("list.cidr").display().to_string();
    assert_eq!(decide("192.0.2.8").rule.unwrap().to_string(), format!("{table}:1"));
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].starts_with(&format!("{table}:2: non-null host address bits")), "{warnings:?}");
    assert!(warnings[1].starts_with(&format!("{table}:3: unknown word \"maybe\"")), "{warnings:?}");
}

#[test]
fn files_that_are_no_text_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.toml");
    std::fs::write(&path, b"ports = [25]\nhostname = \"\xff\"\n").unwrap();
    assert_eq!(
        load(&Host::here(), &path, &[]).unwrap_err().to_string(),
        format!("{}:2: the text is not UTF-8", path.display())
    );
    let missing = directory.path().join("missing.toml");
    assert!(load(&Host::here(), &missing, &[]).unwrap_err().to_string().contains("can't read the configuration"));
}

#[test]
fn sites_are_checked_one_by_one() {
    let text = "[dnsbl]\nsites = [\n  \"zen.test=127.0.0.[2..11]*3\",\n  \"bl.test*x\",\n  \"wl.test=300.0.0.1\",\n]\n";
    let found = problems(text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("/etc/mxscreen/mxscreen.toml:4: dnsbl.sites: "), "{found:?}");
    assert!(found[1].starts_with("/etc/mxscreen/mxscreen.toml:5: dnsbl.sites: "), "{found:?}");
    let sites = config("dnsbl.sites = [\"a.test, b.test*2\", \"a.test=127.0.0.2*-1\"]").policy.dnsbl.sites;
    assert_eq!(sites.zones().len(), 2);
}

#[test]
fn networks_of_a_table_keep_the_order_of_the_file() {
    let config = config(
        "[smtp.discard_ehlo_keywords_by_client]\n\"192.0.2.9\" = [\"dsn\"]\n\"192.0.2.0/24\" = [\"vrfy\", \"ETRN\"]\n\"10.0.0.0/8\" = []\n",
    );
    let lists = &config.policy.smtp.discard_ehlo_keywords_by_client;
    let shown: Vec<_> = lists.iter().map(|(net, words)| format!("{net} {}", words.join(","))).collect();
    assert_eq!(shown, ["192.0.2.9/32 DSN", "192.0.2.0/24 VRFY,ETRN", "10.0.0.0/8 "]);
}

#[test]
fn names_in_texts_are_replaced() {
    let config = config(
        "hostname = \"mx.test\"\nsmtp.banner = \"$hostname ${hostname} $$5\"\nsmtp.reject_footer = '\\c, see $server_name'\n",
    );
    assert_eq!(config.policy.banner, "mx.test mx.test $5");
    assert_eq!(config.policy.smtp.reject_footer, "\\c, see $server_name");
}

#[test]
fn durations_have_units() {
    for (text, millis) in [
        ("250ms", 250),
        ("6s", 6000),
        ("5m", 300_000),
        ("2h", 7_200_000),
        ("30d", 2_592_000_000),
        ("1w", 604_800_000),
        ("0s", 0),
    ] {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        assert_eq!(format_duration(Duration::from_millis(millis)), text);
    }
    for wrong in ["", "s", "6", "6 s", "-6s", "6.5s", "6S", "99999999999999999999s", "9999999999999999w", "6sm"] {
        assert!(parse_duration(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_key_is_its_own_best_suggestion() {
    for key in KEYS {
        let mut slip = key.path.to_owned();
        slip.push('x');
        assert_eq!(keys::suggest(&slip).as_deref(), Some(key.path));
    }
    assert_eq!(keys::suggest("something.else.entirely"), None);
}

proptest! {
    #[test]
    fn any_text_is_a_site_or_refused(site in "[a-z.]{0,8}=?[\\[\\]0-9.;]{0,16}\\*?-?[0-9N]{0,12}|\\PC{0,24}") {
        let value = format!("[{site:?}]");
        if let Err(problems) = load_text("", Path::new(FILE), &pairs(&[("dnsbl.sites", &value)])) {
            prop_assert!(problems.0.iter().all(|problem| !problem.to_string().contains('\n')));
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes);
        if let Err(problems) = load_text(&text, Path::new(FILE), &[]) {
            prop_assert!(!problems.0.is_empty());
            prop_assert_eq!(problems.to_string().lines().count(), problems.0.len());
        }
    }

    #[test]
    fn any_value_of_any_key_is_read_or_refused_in_one_line(
        key in prop::sample::select(KEYS),
        value in prop_oneof![
            "\\PC{0,20}",
            prop::sample::select(vec!["1", "-1", "[]", "{}", "[[]]", "[{}]", "true", "\"\"", "\"0s\"", "1.5", "2026-01-01", "{a={}}", "[\"\\n\"]", "\"/\"", "[\"/(/\"]"]).prop_map(str::to_owned),
        ],
    ) {
        // Files named by chance must not be opened.
        prop_assume!(!value.contains('/') || !key.path.starts_with("access."));
        if let Err(problems) = load_text("", Path::new(FILE), &pairs(&[(key.path, &value)])) {
            prop_assert!(problems.0.iter().all(|problem| !problem.to_string().contains('\n')));
        }
    }
}

#[test]
fn reply_texts_are_one_line_with_an_enhanced_status_code() {
    let texts =
        read("kernel.reply_texts = { operator = \"5.7.1 See https://example.org/\" }").config.kernel.reply_texts;
    assert_eq!(texts["operator"], "5.7.1 See https://example.org/");
    for bad in ["no code", "4.7.1 later", "5.7 short", "5.7.1 \\n", &format!("5.7.1 {}", "x".repeat(80))] {
        let found = problems(&format!("kernel.reply_texts = {{ operator = \"{bad}\" }}"));
        assert!(found.len() == 1 && found[0].contains("printable ASCII"), "{bad}: {found:?}");
    }
}

#[test]
fn known_good_clients_are_steered_to_a_server_on_this_host() {
    let front = "layout = \"front\"\nforward.to = [\"127.0.0.1:10025\"]\n";
    let steer_to = |text: &str| config(text).forward.steer_to.map(|address| address.to_string());
    assert_eq!(steer_to(""), None, "in place it is the protected port");
    assert_eq!(steer_to(front).as_deref(), Some("127.0.0.1:10025"));
    assert_eq!(steer_to(&format!("{front}forward.client_address = \"proxy-v2\"")), None, "it expects a header");
    let given = format!("{front}forward.client_address = \"proxy-v2\"\nforward.steer_to = \"127.0.0.1:10026\"");
    assert_eq!(steer_to(&given).as_deref(), Some("127.0.0.1:10026"));
    for (bad, why) in [
        ("forward.steer_to = \"127.0.0.1:25\"".to_owned(), "protected port"),
        (format!("{front}forward.steer_to = \"192.0.2.99:25\""), "not on this host"),
        ("forward.steer_user = \"nobody-of-that-name\"".to_owned(), "no user"),
    ] {
        let found = problems(&bad);
        assert!(found.len() == 1 && found[0].contains(why), "{bad}: {found:?}");
    }
}

#[test]
fn several_mail_servers_come_in_order_or_by_weight() {
    let forward = |to: &str| config(&format!("layout = \"front\"\nforward.to = {to}\n")).forward;
    let in_order = forward(r#"["192.0.2.1:25", "[2001:db8::1]:25"]"#);
    assert_eq!(in_order.to.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1:25", "[2001:db8::1]:25"]);
    assert_eq!((in_order.weights.as_slice(), in_order.most_connections), ([].as_slice(), 0));
    let weighted = forward(r#"["192.0.2.1:25*3", "192.0.2.2:25", "[2001:db8::1]:25*0"]"#);
    assert_eq!((weighted.to.len(), weighted.weights.as_slice()), (3, [3, 1, 0].as_slice()));
    assert_eq!(config("forward.to = [\"local*2\"]").forward.weights, [2]);
    let by_path = forward(r#"["/run/smtpd*3", "127.0.0.1:10025"]"#);
    assert_eq!((by_path.to[0].clone(), by_path.weights[0]), (Backend::Socket("/run/smtpd".into()), 3));
    assert_eq!((by_path.client_address, by_path.steer_to), (ClientAddress::ProxyV2, None));
    let shown = problems("forward.to = [\"/run/smtpd\"]\nforward.client_address = \"kernel\"");
    assert!(shown.len() == 1 && shown[0].contains("can't show a client on the Unix socket /run/smtpd"), "{shown:?}");
    let long = problems(&format!("forward.to = [\"/{}\"]", "x".repeat(108)));
    assert!(long.len() == 1 && long[0].contains("the path of a socket has at most 107 bytes"), "{long:?}");
    assert_eq!(config("limits.backend_connections = 20").forward.most_connections, 20);
    // The kernel steers to one server: which of several takes the next client is decided here.
    assert_eq!(forward(r#"["127.0.0.1:10025*2"]"#).steer_to, Some("127.0.0.1:10025".parse().unwrap()));
    assert_eq!(forward(r#"["127.0.0.1:10025", "127.0.0.1:10026"]"#).steer_to, None);
}

#[test]
fn the_manual_page_has_every_key() {
    let page = manual();
    for key in KEYS {
        assert!(page.contains(&format!("\\fB{}\\fR (", key.path)), "{}", key.path);
    }
    assert!(!page.contains('`'), "{page}");
}
