//! The session core, fed with events in any order.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use screen_fuzz::{Watched, World, deep_tests, policy};
use screen_user::screen::{
    PEEK_LIMIT, READ_LIMIT,
    dnsbl::Sites,
    event::{DnsblAnswer, Event, ForwardResult, Standing, ZoneReply},
    policy::{Action, Policy, TlsLevel},
};

#[derive(Arbitrary, Debug)]
struct Story<'a> {
    rules: Rules,
    standing: u8,
    happenings: Vec<Happening<'a>>,
}

#[derive(Arbitrary, Debug)]
struct Rules {
    teaser: bool,
    zones: bool,
    pipelining: bool,
    non_smtp_command: bool,
    bare_newline: bool,
    helo_required: bool,
    disable_vrfy: bool,
    soft_bounce: bool,
    footer: bool,
    replays: bool,
    tls: u8,
    early: u8,
    listed: u8,
    deep: u8,
    limit: u8,
    allow: i8,
    bar: bool,
}

#[derive(Arbitrary, Debug)]
enum Happening<'a> {
    Peek(&'a [u8]),
    Read(&'a [u8]),
    Words(Vec<u8>),
    Filler(u16),
    Recipient(&'a [u8]),
    Close,
    WriteFails,
    Timer,
    Answer(u8, Option<bool>, u16),
    Tls,
    Forwarded(u8),
    Wait(u16),
    Connect(u8),
    Abort,
    Swap,
}

const WORDS: [&str; 24] = [
    "HELO a\r\n",
    "EHLO b\r\n",
    "MAIL FROM:<a@b>\r\n",
    "RCPT TO:<c@d>\r\n",
    "DATA\r\n",
    "BDAT 9 LAST\r\n",
    "STARTTLS\r\n",
    "QUIT\r\n",
    "NOOP\n",
    "RSET\r\n",
    "GET / HTTP/1.1\r\n",
    "Subject: x\r\n",
    "VRFY \"x\r\n",
    "ETRN x\r\n",
    "AUTH PLAIN\r\n",
    "HELP\r\n",
    "RCPT",
    "MAIL FROM:",
    "\r",
    "\n",
    "\0",
    ":",
    "<\"\\",
    " ",
];

fn action(number: u8) -> Action {
    [Action::Ignore, Action::Enforce, Action::Drop][usize::from(number % 3)]
}

fn policy_of(rules: &Rules) -> Policy {
    let mut policy = policy();
    if !rules.teaser {
        policy.pregreet.teaser.clear();
    }
    policy.pregreet.action = action(rules.early);
    if rules.zones {
        let sites = ["a.test", "b.test=127.0.0.2*2", "c.test*-3"];
        policy.dnsbl.sites = Sites::parse(&sites, &Default::default()).expect("good sites").into();
        policy.dnsbl.allowlist_threshold = i32::from(rules.allow % 4);
        policy.dnsbl.action = action(rules.listed);
    }
    let enabled = [rules.pipelining, rules.non_smtp_command, rules.bare_newline];
    for (test, enabled) in deep_tests(&mut policy).into_iter().zip(enabled) {
        test.enabled = enabled;
        test.action = action(rules.deep);
    }
    policy.tls = [TlsLevel::None, TlsLevel::May, TlsLevel::Encrypt][usize::from(rules.tls % 3)];
    policy.replays = rules.replays;
    policy.smtp.helo_required = rules.helo_required;
    policy.smtp.disable_vrfy = rules.disable_vrfy;
    policy.smtp.soft_bounce = rules.soft_bounce;
    if rules.footer {
        policy.smtp.reject_footer = "\\c, see $server_name\\nat $localtime from $client_address".into();
    }
    policy.limits.client_connections = u32::from(rules.limit % 4);
    policy.limits.pre_queue = u32::from(rules.limit % 4) * 2;
    policy.limits.post_queue = u32::from(rules.limit % 4);
    policy.remember_failures = Duration::from_secs(if rules.bar { 600 } else { 0 });
    policy
}

fn answer(zone: u8, listed: Option<bool>, ttl: u16) -> DnsblAnswer {
    let ttl = Some(Duration::from_secs(ttl.into()));
    let reply = match listed {
        Some(true) => ZoneReply::Listed { codes: vec![[127, 0, 0, 2].into()], ttl },
        Some(false) => ZoneReply::NotListed { ttl },
        None => ZoneReply::Failed,
    };
    DnsblAnswer { zone: usize::from(zone % 4), reply }
}

fn play(world: &mut World, watched: &mut Watched, happening: &Happening<'_>) {
    let head = |bytes: &mut Vec<u8>| bytes.truncate(READ_LIMIT);
    match happening {
        Happening::Peek(bytes) => {
            watched.tell(world, Event::Peeked(&bytes[..bytes.len().min(PEEK_LIMIT)]));
        }
        Happening::Read(bytes) => {
            watched.tell(world, Event::Received(&bytes[..bytes.len().min(READ_LIMIT)]));
        }
        Happening::Words(words) => {
            let mut text: Vec<u8> =
                words.iter().flat_map(|&word| WORDS[usize::from(word) % WORDS.len()].bytes()).collect();
            head(&mut text);
            watched.tell(world, Event::Received(&text));
        }
        Happening::Filler(length) => {
            watched.tell(world, Event::Received(&vec![b'x'; usize::from(*length).min(READ_LIMIT)]));
        }
        Happening::Recipient(recipient) => watched.offer_recipient(world, &recipient[..recipient.len().min(1000)]),
        Happening::Close => drop(watched.tell(world, Event::PeerClosed)),
        Happening::WriteFails => drop(watched.tell(world, Event::WriteFailed)),
        Happening::Timer => drop(watched.tell(world, Event::TimerFired)),
        Happening::Answer(zone, listed, ttl) => drop(watched.tell(world, Event::Dnsbl(&answer(*zone, *listed, *ttl)))),
        Happening::Tls => drop(watched.tell(world, Event::TlsEstablished)),
        Happening::Forwarded(result) => {
            let results =
                [ForwardResult::Accepted, ForwardResult::Unreachable, ForwardResult::Failed, ForwardResult::ClientLeft];
            watched.tell(world, Event::Forwarded(results[usize::from(result % 4)]));
        }
        Happening::Wait(time) => drop(watched.wait(world, Duration::from_secs((time % 512).into()))),
        Happening::Abort => watched.abort(world),
        Happening::Connect(_) | Happening::Swap => {}
    }
}

fuzz_target!(|story: Story<'_>| {
    let mut world = World::new(policy_of(&story.rules));
    let standing = [Standing::Unlisted, Standing::Allowed, Standing::Denied, Standing::Barred]
        [usize::from(story.standing % 4)]
    .clone();
    let mut sessions = vec![Watched::connect(&mut world, "192.0.2.9:33115", standing)];
    let mut current = 0;
    for happening in &story.happenings {
        match happening {
            Happening::Connect(host) if sessions.len() < 16 => {
                let client = format!("192.0.2.{}:{}", host % 3, 1000 + sessions.len());
                current = sessions.len();
                sessions.push(Watched::connect(&mut world, &client, Standing::Unlisted));
            }
            Happening::Swap => current = (current + 1) % sessions.len(),
            happening => play(&mut world, &mut sessions[current], happening),
        }
    }
    for watched in &mut sessions {
        watched.run_out(&mut world);
    }
    world.assert_empty();
});
