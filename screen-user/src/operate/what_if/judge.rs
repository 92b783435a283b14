//! One configuration, as the judge of sessions that are over. The rules are those of the gate: its access list, its screener.

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use serde::Serialize;

use crate::{
    access::{AccessList, Verdict as ListVerdict, spf::Networks},
    config::Config,
    journal::Entry,
    screen::{
        Screen,
        event::Standing,
        found::{Found, Memory, Stood},
        outcome::{Reason, Verdict},
        policy::{Action, Policy},
        record::Test,
        retrial::{Gap, retry},
    },
};

/// How the access list names networks that a domain publishes.
const SPF: &str = "spf:";

/// On which side of the gate a client ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Side {
    /// It goes to the mail server.
    Passed,
    /// It is turned away.
    Refused,
    /// It has to come back.
    Deferred,
    /// It has left before anything was decided.
    Left,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::Deferred => "deferred",
            Self::Left => "left",
        })
    }
}

impl From<Verdict> for Side {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Forwarded => Self::Passed,
            Verdict::Rejected => Self::Refused,
            Verdict::Deferred => Self::Deferred,
            Verdict::HungUp | Verdict::Aborted => Self::Left,
        }
    }
}

/// A side, and what decides on it.
pub(super) type Sentence = (Side, Reason);

/// Why there is no sentence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Doubt {
    /// The session has not found it out.
    Gap(Gap),
    /// The kernel turned the client away before anything could be found.
    Kernel,
    /// It was turned away for having failed before, which would perhaps not have happened.
    Failure,
    /// An earlier pass would last for another time.
    Ttl(Test),
    /// Another limit on connections would apply.
    Limit,
    /// It is not known which networks this domain published.
    Spf(String),
    /// The entry does not say what was found.
    Nothing,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap(Gap::Record) => f.write_str("it was not looked up what was known of the client"),
            Self::Gap(Gap::Pregreet) => f.write_str("the client did not take the pregreet test"),
            Self::Gap(Gap::Wait) => f.write_str("the greet wait is longer than the client was watched"),
            Self::Gap(Gap::Zone(zone)) => write!(f, "the zone {zone} was not asked"),
            Self::Gap(Gap::Answer(zone)) => write!(f, "the zone {zone} had not answered when the session went on"),
            Self::Gap(Gap::Deep) => f.write_str("the client did not take the tests after the greeting"),
            Self::Gap(Gap::Cut) => f.write_str("the client said more than is kept"),
            Self::Gap(Gap::End) => f.write_str("the session ended before the client could say more"),
            Self::Gap(Gap::Tls) => f.write_str("the client would have gone on with TLS, or without"),
            Self::Kernel => f.write_str("the kernel turned the client away before a test"),
            Self::Failure => f.write_str("the client was turned away for a failure before, which might not count"),
            Self::Ttl(test) => write!(f, "an earlier pass of the {test} test would have lasted for another time"),
            Self::Limit => f.write_str("another limit on connections applies"),
            Self::Spf(domain) => write!(f, "spf:{domain} was not asked"),
            Self::Nothing => f.write_str("it is not kept what was found"),
        }
    }
}

/// A configuration, and a screener that goes by it.
#[derive(Debug)]
pub(super) struct Judge {
    config: Config,
    screen: Screen,
    /// What is in force while the journal is written.
    present: Arc<Config>,
    /// The domains whose networks were known then.
    asked: BTreeSet<String>,
}

impl Judge {
    /// Judges for the present configuration and for another one.
    pub(super) fn of_both(present: Config, new: Config) -> (Self, Self) {
        let asked: BTreeSet<String> = present.access.published().map(|(domain, _)| domain.to_string()).collect();
        let shared = Arc::new(present.clone());
        let judge = |config: Config| Self {
            screen: Screen::new(config.policy.clone()),
            config,
            present: Arc::clone(&shared),
            asked: asked.clone(),
        };
        (judge(present), judge(new))
    }

    /// What did happen.
    pub(super) fn what_happened(entry: &Entry) -> Sentence {
        (entry.verdict.into(), entry.reason)
    }

    /// How the session would end.
    pub(super) fn judge(&mut self, entry: &Entry) -> Result<Sentence, Doubt> {
        let found = entry.found.as_deref().ok_or(Doubt::Nothing)?;
        if entry.kernel.is_some() && entry.objection.unwrap_or(entry.reason) == Reason::TooManyConnections {
            let limit = |config: &Config| config.policy.limits.client_connections;
            let same = limit(&self.config) == limit(&self.present);
            let sentence = self.unless_dry(Side::Deferred, Reason::TooManyConnections);
            return if same { Ok(sentence) } else { Err(Doubt::Limit) };
        }
        let standing = self.standing(&found.stood, entry.client.ip())?;
        if entry.kernel.is_some() {
            return self.before_a_session(&standing);
        }
        let case = entry.case().ok_or(Doubt::Nothing)?;
        let retrial = retry(&mut self.screen, &case, standing);
        if let Some(gap) = retrial.gap {
            return Err(Doubt::Gap(gap));
        }
        if let Some(test) = self.lasts_otherwise(found, entry.time) {
            return Err(Doubt::Ttl(test));
        }
        Ok((retrial.verdict.into(), retrial.reason))
    }

    /// What the lists say of a client of whom `stood` is known.
    fn standing(&self, stood: &Stood, client: IpAddr) -> Result<Standing, Doubt> {
        if *stood == Stood::AllowEntry {
            return Ok(Standing::Allowed);
        }
        let verdict = self.listed(stood, client)?;
        if verdict == ListVerdict::Permit {
            return Ok(Standing::Allowed);
        }
        match stood {
            Stood::DenyEntry | Stood::Imported(_) => Ok(Standing::Barred),
            Stood::Failed(test) if !self.bars(*test) => Err(Doubt::Failure),
            Stood::Failed(_) => Ok(Standing::Barred),
            Stood::Unlisted | Stood::AllowEntry | Stood::Permitted(_) | Stood::Rejected(_) => Ok(match verdict {
                ListVerdict::Permit => Standing::Allowed,
                ListVerdict::Reject => Standing::Denied,
                ListVerdict::Undecided => Standing::Unlisted,
            }),
        }
    }

    fn listed(&self, stood: &Stood, client: IpAddr) -> Result<ListVerdict, Doubt> {
        let access = &self.config.access;
        let mut domains = access.published().map(|(domain, _)| domain).peekable();
        if domains.peek().is_none() {
            return Ok(access.decide(client).verdict);
        }
        let by_domain = match stood {
            Stood::Permitted(rule) => rule.strip_prefix(SPF),
            _ => None,
        };
        let mut unknown = None;
        let mut with_domain: Option<AccessList> = None;
        for domain in domains {
            let name = domain.to_string();
            if by_domain == Some(&name) {
                // All that is known of its networks is that the client is in one.
                let (networks, _) = Networks::new(&vec![client.into()], 1);
                with_domain.get_or_insert_with(|| access.clone()).publish(domain, &Arc::new(networks));
            } else if !self.asked.contains(&name) {
                unknown = Some(name);
            }
        }
        let verdict = with_domain.as_ref().unwrap_or(access).decide(client).verdict;
        match unknown {
            Some(domain) if verdict != ListVerdict::Permit => Err(Doubt::Spf(domain)),
            _ => Ok(verdict),
        }
    }

    /// Whether a failure of `test` is remembered as it is now.
    fn bars(&self, test: Option<Test>) -> bool {
        let drops = |policy: &Policy, test: Test| {
            policy.enables(test) && policy.action(test) == Action::Drop && !policy.remember_failures.is_zero()
        };
        let (policy, present) = (&self.config.policy, &self.present.policy);
        match test {
            Some(test) => drops(policy, test),
            None => Test::ALL.into_iter().all(|test| drops(policy, test) == drops(present, test)),
        }
    }

    /// A client that the kernel turned away, or would have but for a dry run.
    fn before_a_session(&self, standing: &Standing) -> Result<Sentence, Doubt> {
        match standing {
            Standing::Allowed => Ok((Side::Passed, Reason::Allowlisted)),
            Standing::Barred => Ok(self.unless_dry(Side::Refused, Reason::Barred)),
            Standing::Denied if self.config.policy.denylist_action == Action::Drop => {
                Ok(self.unless_dry(Side::Refused, Reason::Denied))
            }
            Standing::Denied | Standing::Unlisted => Err(Doubt::Kernel),
        }
    }

    /// What becomes of a client that the kernel turns away; a dry run lets it in.
    fn unless_dry(&self, side: Side, reason: Reason) -> Sentence {
        if self.config.policy.dry_run { (Side::Passed, Reason::None) } else { (side, reason) }
    }

    /// A test whose pass was valid and would not be, or the other way round.
    fn lasts_otherwise(&self, found: &Found, time: u64) -> Option<Test> {
        let Some(Memory::Record(stamps) | Memory::OtherSession(stamps)) = &found.known else { return None };
        let lives = |policy: &Policy, test: Test| match test {
            Test::Dnsbl => [policy.dnsbl.min_ttl, policy.dnsbl.max_ttl],
            other => [policy.ttl(other); 2],
        };
        let (policy, present) = (&self.config.policy, &self.present.policy);
        Test::ALL.into_iter().zip(**stamps).find_map(|(test, stamp)| {
            let (new, old) = (lives(policy, test), lives(present, test));
            let longer = new.iter().zip(&old).any(|(new, old)| new > old);
            let shorter = new.iter().zip(&old).any(|(new, old)| new < old);
            let valid = stamp.is_valid(time);
            let differs = if valid { shorter } else { longer && stamp.is_pass() };
            (policy.enables(test) && differs).then_some(test)
        })
    }
}
