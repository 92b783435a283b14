//! Every key that a configuration may have: its default and what it means. The one place where they stand.

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Texts,
    Boolean,
    Number,
    Numbers,
    Duration,
    Action,
    /// One of these words.
    Word(&'static [&'static str]),
    File,
    Address,
    Addresses,
    /// Names of the operator's choice with values.
    Table,
    /// Lists within a list.
    Pairs,
}

impl Kind {
    /// For the reference.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Texts => "list of texts".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Numbers => "list of numbers".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Action => "action".to_owned(),
            Self::Word(words) => words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", "),
            Self::File => "path".to_owned(),
            Self::Address => "address with port".to_owned(),
            Self::Addresses => "list of addresses".to_owned(),
            Self::Table => "table".to_owned(),
            Self::Pairs => "list of pairs".to_owned(),
        }
    }
}

/// What counts where a key is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Default {
    /// This TOML value.
    Value(&'static str),
    /// Something that depends on the host or on other keys: an example in TOML, and the rule in words.
    Depends(&'static str, &'static str),
}

/// A key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// With its sections, dotted.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Default,
    /// One or two sentences.
    pub(super) doc: &'static str,
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default: Default::Value(default), doc }
}

const fn depends(path: &'static str, kind: Kind, example: &'static str, rule: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default: Default::Depends(example, rule), doc }
}

/// The key with this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether some key stands in the section of this path.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The key or section that was perhaps meant by `path`; keys of other sections are thought of too.
pub(super) fn suggest(path: &str) -> Option<String> {
    let candidates = KEYS.iter().flat_map(|key| {
        let sections = key.path.match_indices('.').filter_map(|(at, _)| key.path.get(..at));
        std::iter::once(key.path).chain(sections)
    });
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    let written = path.rsplit('.').next().unwrap_or(path);
    candidates
        .map(|candidate| {
            let whole = strsim::damerau_levenshtein(path, candidate);
            // The same name in another section, or without any, is nearly as good as a slip of the finger.
            let name = strsim::damerau_levenshtein(written, last(candidate)) + 1;
            (whole.min(name), whole, candidate)
        })
        .min()
        .filter(|(cost, _, candidate)| *cost <= 1.max(last(candidate).len().min(written.len()) / 3))
        .map(|(_, _, candidate)| candidate.to_owned())
}

const LAYOUTS: Kind = Kind::Word(&["in-place", "front"]);
const SWITCH: Kind = Kind::Word(&["auto", "on", "off"]);
const REPLIES: Kind = Kind::Word(&["reject", "drop"]);

/// All keys, in the order of the reference; keys without a section come first.
pub(super) const KEYS: &[Key] = &[
    depends("hostname", Kind::Text, "\"mx.example.com\"", "the host's full name", "The name in greetings and replies."),
    key("ports", Kind::Numbers, "[25]", "The protected ports."),
    key(
        "layout",
        LAYOUTS,
        "\"in-place\"",
        "`in-place`: the mail server keeps its port and the kernel gives strangers to the screener. `front`: the screener owns the port and the mail server listens elsewhere.",
    ),
    depends(
        "listen",
        Kind::Addresses,
        "[\"127.0.0.1:2526\", \"[::1]:2526\"]",
        "in place `[\"127.0.0.1:2526\", \"[::1]:2526\"]`, front `[\"[::]:PORT\"]` for each of `ports`",
        "Where the screener listens; `[::]` takes IPv4 too.",
    ),
    key(
        "user",
        Kind::Text,
        "\"mxscreen\"",
        "The account that the screener runs as. Where it does not exist: `nobody`, with a warning.",
    ),
    key("dry_run", Kind::Boolean, "false", "Decide and log everything, block nothing."),
    key(
        "access.mynetworks",
        Kind::Texts,
        "[\"127.0.0.0/8\", \"::1/128\"]",
        "What `permit_mynetworks` stands for: addresses, networks, `/file/name`; `!` excludes, the first match counts.",
    ),
    key(
        "access.list",
        Kind::Texts,
        "[\"permit_mynetworks\"]",
        "The permanent list, in order: `permit_mynetworks`, `permit`, `reject`, `dunno` (the list ends here), `cidr:FILE` (a table in Postfix's syntax; a relative name is looked for beside this file), a table in place: `{ cidr = [\"192.0.2.0/24 reject\"] }`, or `spf:DOMAIN` (permit for the networks of the domain's SPF record).",
    ),
    key(
        "access.spf.min_ttl",
        Kind::Duration,
        "\"1m\"",
        "What an `spf:` entry has found holds at least this long, whatever its DNS TTLs. A look-up that failed is tried again so soon.",
    ),
    key(
        "access.spf.max_ttl",
        Kind::Duration,
        "\"1d\"",
        "The same holds at most this long; then the domain is asked again.",
    ),
    key(
        "access.spf.widest.ipv4",
        Kind::Number,
        "17",
        "The shortest IPv4 prefix that an `spf:` entry may permit: wider networks of the record are left out, and named in the log and in `mxscreen status`.",
    ),
    key("access.spf.widest.ipv6", Kind::Number, "33", "The shortest IPv6 prefix that an `spf:` entry may permit."),
    key("access.denylist_action", Kind::Action, "\"ignore\"", "What clients get that the list rejects."),
    key(
        "access.allowlist_addresses",
        Kind::Texts,
        "[\"all\"]",
        "The server's addresses where a client can earn a pass; `!ADDRESS` excludes one (a backup MX).",
    ),
    key(
        "blocklists.max_share",
        Kind::Number,
        "5",
        "The largest share of the IPv4 or IPv6 address space, in percent, that an imported list may deny: a list that denies more is refused, unless `--force` is given.",
    ),
    depends(
        "blocklists.directory",
        Kind::File,
        "\"/etc/mxscreen/blocklists.d\"",
        "none",
        "A watched directory: each file in it, whatever its ending, is the block list of its name, for as long as it is there. A relative name is looked for beside this file.",
    ),
    key("pregreet.wait", Kind::Duration, "\"6s\"", "How long a new client must wait for the greeting."),
    key("pregreet.stress_wait", Kind::Duration, "\"2s\"", "The same while the screener is under stress."),
    key(
        "pregreet.banner",
        Kind::Text,
        "\"$hostname ESMTP\"",
        "The teaser, sent at once as `220-TEXT`. Empty: no teaser and no pregreet test.",
    ),
    key("pregreet.action", Kind::Action, "\"ignore\"", "What clients get that talk before the greeting."),
    key("pregreet.ttl", Kind::Duration, "\"1d\"", "How long a pass lasts."),
    key(
        "dnsbl.sites",
        Kind::Texts,
        "[]",
        "The DNSBL and DNSWL zones, each written `domain=filter*weight` as in Postfix. Empty: no DNSBL test.",
    ),
    key("dnsbl.threshold", Kind::Number, "1", "Scores from here on fail; at least 1."),
    key(
        "dnsbl.allowlist_threshold",
        Kind::Number,
        "0",
        "A score down here skips all other tests; only a negative number has an effect.",
    ),
    key("dnsbl.action", Kind::Action, "\"ignore\"", "What clients get whose score fails."),
    key("dnsbl.timeout", Kind::Duration, "\"10s\"", "The limit on one look-up."),
    key("dnsbl.min_ttl", Kind::Duration, "\"60s\"", "A result lasts at least this long, whatever its DNS TTL."),
    key("dnsbl.max_ttl", Kind::Duration, "\"1h\"", "A result lasts at most this long; this limit wins over the other."),
    key(
        "dnsbl.reply_map",
        Kind::Table,
        "{}",
        "Zone name to the name that clients are shown, for zone names that hold a secret key.",
    ),
    depends(
        "dnsbl.resolvers",
        Kind::Addresses,
        "[\"127.0.0.1:53\"]",
        "the system's",
        "The recursors to ask, for `spf:` entries of `access.list` too; port 53 where none is given.",
    ),
    key("pipelining.enable", Kind::Boolean, "false", "Whether new clients take the pipelining test."),
    key("pipelining.action", Kind::Action, "\"enforce\"", "What clients get that send several commands at once."),
    key("pipelining.ttl", Kind::Duration, "\"30d\"", "How long a pass lasts."),
    key("non_smtp_command.enable", Kind::Boolean, "false", "Whether new clients take the non-SMTP command test."),
    key(
        "non_smtp_command.action",
        Kind::Action,
        "\"drop\"",
        "What clients get that send commands of another protocol.",
    ),
    key("non_smtp_command.ttl", Kind::Duration, "\"30d\"", "How long a pass lasts."),
    key(
        "non_smtp_command.forbidden",
        Kind::Texts,
        "[\"CONNECT\", \"GET\", \"POST\", \"/^[^A-Z]/\"]",
        "The verbs that count as non-SMTP: whole words, or `/regex/` tried on the verb; both without regard to case.",
    ),
    key("bare_newline.enable", Kind::Boolean, "false", "Whether new clients take the bare newline test."),
    key(
        "bare_newline.action",
        Kind::Action,
        "\"ignore\"",
        "What clients get that end lines without a carriage return.",
    ),
    key("bare_newline.ttl", Kind::Duration, "\"30d\"", "How long a pass lasts."),
    key("smtp.banner", Kind::Text, "\"$hostname ESMTP\"", "The screener's own greeting, behind `220 `."),
    key("smtp.helo_required", Kind::Boolean, "false", "Whether MAIL and ETRN need HELO or EHLO first."),
    key("smtp.disable_vrfy", Kind::Boolean, "false", "VRFY answers 502 and is not announced."),
    key("smtp.discard_ehlo_keywords", Kind::Texts, "[]", "EHLO keywords that are not announced."),
    key(
        "smtp.discard_ehlo_keywords_by_client",
        Kind::Table,
        "{}",
        "Client network to a list of EHLO keywords, which replaces the general one; the first network that matches counts.",
    ),
    key(
        "smtp.message_size_limit",
        Kind::Number,
        "10240000",
        "Announced by SIZE, in bytes; 0 announces SIZE without a number.",
    ),
    key("smtp.smtputf8", Kind::Boolean, "true", "Announce SMTPUTF8, and check command lines for valid UTF-8."),
    key("smtp.command_count_limit", Kind::Number, "20", "Commands in one session."),
    key("smtp.command_time_limit", Kind::Duration, "\"300s\"", "The time to receive one whole command line."),
    key("smtp.stress_command_time_limit", Kind::Duration, "\"10s\"", "The same while the screener is under stress."),
    key("smtp.line_length_limit", Kind::Number, "2048", "Bytes of one line, its end included; at least 12."),
    key(
        "smtp.reject_footer",
        Kind::Text,
        "\"\"",
        "Appended to 4xx and 5xx replies, as postscreen_reject_footer: `\\n` separates lines, `\\c` in front continues the reply's own line, `$client_address`, `$client_port`, `$server_name` and `$localtime` stand for what they say. Best written in single quotes.",
    ),
    key("smtp.soft_bounce", Kind::Boolean, "false", "Turn 5xx replies into 4xx ones."),
    key(
        "smtp.command_rewrite",
        Kind::Pairs,
        "[]",
        "Pairs of a regular expression and a replacement, tried in order on every command line without regard to case. The first that matches replaces the whole line; `$1` or `${1}` is what the first group matched.",
    ),
    key(
        "smtp.session_time_limit",
        Kind::Duration,
        "\"1h\"",
        "The longest that one session with the screener may take in all.",
    ),
    key(
        "smtp.session_byte_limit",
        Kind::Number,
        "1048576",
        "The most bytes that a client may send to the screener in one session.",
    ),
    key(
        "tls.level",
        Kind::Word(&["none", "may", "encrypt"]),
        "\"none\"",
        "`may` offers STARTTLS, `encrypt` demands it before mail.",
    ),
    depends(
        "tls.certificate",
        Kind::File,
        "\"/etc/ssl/certs/mx.pem\"",
        "none",
        "The certificate chain, PEM; a path or `credential:NAME`.",
    ),
    depends(
        "tls.key",
        Kind::File,
        "\"/etc/ssl/private/mx.pem\"",
        "none",
        "The private key, PEM; a path or `credential:NAME`.",
    ),
    key(
        "tls.sessions",
        Kind::Number,
        "10000",
        "TLS sessions with the screener at a time. Further clients are answered 454 and may go on without; 0 answers everybody so.",
    ),
    key("limits.client_connections", Kind::Number, "50", "Connections of one client at a time; 0 is no limit."),
    key(
        "limits.pre_queue",
        Kind::Number,
        "100000",
        "Clients being screened at a time: 0 (no limit) or at least 10. Stress begins when nine tenths are in use.",
    ),
    key(
        "limits.post_queue",
        Kind::Number,
        "10000",
        "Clients waiting for the mail server at a time: 0 (no limit) or at least 5.",
    ),
    key(
        "limits.backend_connections",
        Kind::Number,
        "0",
        "Relayed connections to one mail server at a time; 0 is no limit. A client that finds all of them full waits for a place.",
    ),
    key(
        "limits.client_prefix.ipv4",
        Kind::Number,
        "32",
        "The IPv4 prefix length that counts as one client, in limits and in the cache.",
    ),
    key("limits.client_prefix.ipv6", Kind::Number, "64", "The IPv6 prefix length that counts as one client."),
    key(
        "proxy_protocol.from",
        Kind::Texts,
        "[]",
        "Peers whose PROXY header, version 1 or 2, is read and required; others are taken as they are.",
    ),
    key("proxy_protocol.timeout", Kind::Duration, "\"5s\"", "How long a whole header may take."),
    key(
        "cache.backend",
        Kind::Word(&["embedded", "memory", "none", "redis"]),
        "\"embedded\"",
        "Where results are kept: `embedded` (a file under the state directory), `memory` (nothing outlives the process), `none` (every session is new), `redis`.",
    ),
    key(
        "cache.retention",
        Kind::Duration,
        "\"7d\"",
        "How long expired results are kept, so that their clients are not new.",
    ),
    depends(
        "cache.pool_credit.ipv4",
        Kind::Number,
        "24",
        "off",
        "A client that has passed all tests spares the IPv4 clients in its network of this prefix length the deep tests; 16 to 32, not longer than `limits.client_prefix.ipv4`.",
    ),
    depends(
        "cache.pool_credit.ipv6",
        Kind::Number,
        "48",
        "off",
        "The same for IPv6; 32 to 128, not longer than `limits.client_prefix.ipv6`.",
    ),
    depends(
        "cache.redis.urls",
        Kind::Texts,
        "[\"redis://192.0.2.5:6379/0\"]",
        "none",
        "One URL; several for a cluster; `redis+sentinel://HOST:PORT,HOST:PORT/MASTER` for sentinels. `rediss` and `rediss+sentinel` encrypt.",
    ),
    key(
        "cache.redis.prefix",
        Kind::Text,
        "\"mxscreen\"",
        "What names of keys begin with: letters, digits, `.`, `_`, `:` and `-`.",
    ),
    depends(
        "cache.redis.user",
        Kind::Text,
        "\"mxscreen\"",
        "Redis's default user",
        "The user whose ACL permits commands.",
    ),
    depends(
        "cache.redis.password_file",
        Kind::Text,
        "\"/etc/mxscreen/redis-password\"",
        "none",
        "The file whose first line is the password, or `credential:NAME` for one that systemd hands over.",
    ),
    depends(
        "cache.redis.ca_file",
        Kind::Text,
        "\"/etc/mxscreen/redis-ca.pem\"",
        "the usual authorities of the web",
        "Who signs the servers' certificates, PEM; a path or `credential:NAME`.",
    ),
    depends(
        "cache.redis.certificate",
        Kind::Text,
        "\"/etc/mxscreen/redis-client.pem\"",
        "none",
        "The certificate chain of this host for servers that ask for one, PEM; a path or `credential:NAME`.",
    ),
    depends(
        "cache.redis.key",
        Kind::Text,
        "\"/etc/mxscreen/redis-client.key\"",
        "none",
        "Its private key, PEM; a path or `credential:NAME`.",
    ),
    key(
        "cache.redis.lookup_timeout",
        Kind::Duration,
        "\"20ms\"",
        "The longest that a new client waits for what other hosts know of it.",
    ),
    depends(
        "cache.redis.host",
        Kind::Text,
        "\"mx1.example.org\"",
        "`hostname`",
        "What this host is called in what it tells others; each host needs a name of its own.",
    ),
    key(
        "journal.max_size",
        Kind::Number,
        "67108864",
        "Bytes that the journal of sessions may take under the state directory, for `mxscreen explain` and `what-if`; the oldest sessions make room. 0 keeps none, else at least 1048576.",
    ),
    key("journal.retention", Kind::Duration, "\"7d\"", "How long sessions stay in the journal, if there is room."),
    key(
        "forward.mode",
        Kind::Word(&["relay", "postfix"]),
        "\"relay\"",
        "`relay`: over TCP or a Unix socket. `postfix`: the live socket goes to smtpd's `pass` service.",
    ),
    depends(
        "forward.to",
        Kind::Texts,
        "[\"local\"]",
        "in place `[\"local\"]`; front, and in mode `postfix`: must be given",
        "The mail servers, in order of preference: addresses with ports, paths of Unix stream sockets, or `local`, the address and port that the client meant. With weights, `ADDR:PORT*WEIGHT`, each gets its share; weight 0 takes nobody new. In mode `postfix`: the path of smtpd's `pass` socket, such as `[\"/var/spool/postfix/private/smtpd\"]`.",
    ),
    depends(
        "forward.client_address",
        Kind::Word(&["kernel", "proxy-v2", "proxy-v1", "none"]),
        "\"kernel\"",
        "`kernel` for servers on this host that have an address, else `proxy-v2`",
        "How the mail server learns the true client: `kernel` (its own getpeername says so), a PROXY header, or not at all.",
    ),
    depends(
        "forward.replay_to",
        Kind::Address,
        "\"127.0.0.1:10025\"",
        "none: these clients are asked to come back, with a 450",
        "Mode `postfix`: the server that sessions are replayed to which went through deep tests, as their sockets can't be handed over any more. `forward.client_address` is about this server then.",
    ),
    key(
        "forward.steer",
        SWITCH,
        "\"auto\"",
        "Whether known-good clients go to the mail server's own listening socket in the kernel: where it works, always (fail if it can't), or never.",
    ),
    depends(
        "forward.steer_to",
        Kind::Address,
        "\"127.0.0.1:25\"",
        "in place: the protected port; front: `forward.to`, if it is one server on this host that learns the client's address from the kernel",
        "Layout front: the mail server's own listener, on this host, that known-good clients are given to. On any of its addresses: this one, loopback, or all.",
    ),
    key(
        "forward.steer_user",
        Kind::Text,
        "\"root\"",
        "Whose listening sockets are taken for the mail server's, besides root's: nobody else on this host may take the mail. Most servers bind their port as root.",
    ),
    key(
        "forward.after_deep_tests",
        Kind::Word(&["continue", "reconnect"]),
        "\"continue\"",
        "`continue` replays the session to the mail server; `reconnect` asks the client to come back with a 450, as postscreen does.",
    ),
    key(
        "kernel.mode",
        Kind::Word(&["auto", "off"]),
        "\"auto\"",
        "`auto` takes the best way that works and says which; `off` uses none.",
    ),
    depends(
        "kernel.interfaces",
        Kind::Texts,
        "[\"eth0\"]",
        "those with a global address",
        "The interfaces of the gate. They must be there at start; later they may come and go.",
    ),
    key(
        "kernel.xdp",
        Kind::Word(&["auto", "native", "generic", "tc"]),
        "\"auto\"",
        "How the gate attaches to an interface. `auto` takes the best way that it takes: native XDP, generic XDP, TC.",
    ),
    key("kernel.deny_reply", REPLIES, "\"reject\"", "What a denied client gets: a 521, or silence."),
    key("kernel.limit_reply", REPLIES, "\"reject\"", "What a client over its limit gets: a 421, or silence."),
    key(
        "kernel.reply_texts",
        Kind::Table,
        "{}",
        "What a denied client is told behind the code 521, by the list that denies it: `access list`, `operator`, `failed test`, or the name of an imported list, whose own text (`--reply`) it replaces. For example `{ operator = \"5.7.1 See https://example.org/blocked\" }`; one line of printable ASCII, 82 characters at most. Without it: `5.3.2 Service currently unavailable`.",
    ),
    key(
        "kernel.remember_failures",
        Kind::Duration,
        "\"10m\"",
        "How long a client that failed a test with `drop` is denied in the kernel; after a DNSBL failure it is as long as the listing lasts (`dnsbl.min_ttl`, `dnsbl.max_ttl`), and then the zones are asked again. `0s` screens it again every time.",
    ),
    key(
        "kernel.repeat_limit",
        Kind::Duration,
        "\"1d\"",
        "A client that fails again, other than by being listed, is denied for twice as long as the last time, but not longer than this. `0s`: always as long.",
    ),
    key(
        "kernel.on_screener_down",
        Kind::Word(&["refuse", "pass"]),
        "\"refuse\"",
        "What unknown clients get while no screener runs.",
    ),
    key(
        "kernel.pin_path",
        Kind::File,
        "\"/sys/fs/bpf/mxscreen\"",
        "Where maps and links are pinned; a second gate uses another place.",
    ),
    key(
        "kernel.debug",
        Kind::Boolean,
        "false",
        "Load the kernel programs with their debug messages, and log them. Costs time for every packet: not for busy hosts.",
    ),
    key("state.directory", Kind::File, "\"/var/lib/mxscreen\"", "Files that outlive the process."),
    key(
        "control.socket",
        Kind::File,
        "\"/run/mxscreen/control.sock\"",
        "The socket that `mxscreen status` and others talk to.",
    ),
    key("log.target", Kind::Text, "\"stderr\"", "`stderr`, `journald`, `syslog`, or `file:PATH`."),
    key(
        "log.name",
        Kind::Text,
        "\"mxscreen\"",
        "What the program is called in its log: `postfix/postscreen` for tools that look for Postfix's names.",
    ),
    key(
        "log.style",
        Kind::Word(&["respectful", "classic"]),
        "\"respectful\"",
        "`respectful` logs ALLOWLISTED and DENYLISTED, `classic` WHITELISTED and BLACKLISTED.",
    ),
    depends(
        "metrics.listen",
        Kind::Addresses,
        "[\"127.0.0.1:9125\", \"[::1]:9125\"]",
        "none",
        "Where Prometheus finds `/metrics` (docs/metrics.md); `[::]` takes IPv4 too. Whoever reaches it may read it. A reload leaves it as it is.",
    ),
];
