//! What the fuzz targets share: a policy to change, and a session that is watched.

mod watched;

use std::{path::Path, sync::OnceLock, time::Duration};

use screen_user::{
    config,
    screen::{
        Screen, TlsState,
        event::Now,
        policy::{DeepTest, Policy},
    },
};

pub use watched::Watched;

/// Unix time when the screen's clock stands at zero.
const UNIX: u64 = 1_700_000_000;

/// The policy of a configuration that says next to nothing, read once.
///
/// # Panics
/// When it is refused.
#[must_use]
pub fn policy() -> Policy {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    let text = r#"
        hostname = "mx.example.test"
        layout = "front"
        forward.to = ["127.0.0.1:10025"]
        kernel.mode = "off"
        cache.backend = "memory"
    "#;
    let loaded = || config::load_text(text, Path::new("fuzz.toml"), &[]).expect("a good configuration").config.policy;
    POLICY.get_or_init(loaded).clone()
}

/// A screen with a certificate, and with a clock that stands still until it is told otherwise.
#[derive(Debug)]
pub struct World {
    /// What all sessions share.
    pub screen: Screen,
    /// The monotonic clock.
    pub now: Duration,
    line_length_limit: usize,
}

impl World {
    /// A screen that goes by `policy`.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let line_length_limit = policy.smtp.line_length_limit;
        let mut screen = Screen::new(policy);
        screen.set_tls(TlsState::Usable);
        screen.set_time_zone(jiff::tz::TimeZone::UTC);
        Self { screen, now: Duration::from_secs(1000), line_length_limit }
    }

    /// Both clocks.
    #[must_use]
    pub fn clock(&self) -> Now {
        Now { monotonic: self.now, unix_millis: (UNIX + self.now.as_secs()) * 1000 }
    }

    /// The most that one session may keep of its client's input: lines, names, addresses, and what failed which test.
    #[must_use]
    pub fn most_kept(&self) -> usize {
        8 * self.line_length_limit + 4096
    }

    /// No session is left, and nothing is counted.
    ///
    /// # Panics
    /// When something is.
    pub fn assert_empty(&self) {
        let snapshot = self.screen.snapshot();
        assert_eq!((snapshot.checking, snapshot.forwarding, snapshot.clients), (0, 0, 0));
    }
}

/// The three tests of the dummy engine.
pub fn deep_tests(policy: &mut Policy) -> [&mut DeepTest; 3] {
    [&mut policy.pipelining, &mut policy.non_smtp_command, &mut policy.bare_newline]
}
