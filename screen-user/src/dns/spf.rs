//! What a domain's SPF record allows, with all that it refers to followed (RFC 7208 section 4.6), as networks.
//!
//! Where RFC 7208 evaluates a record for one client, here it is evaluated for all of them: "who came this far" below are the clients
//! whom no mechanism has covered yet. An error (`permerror`) ends the evaluation for those; who was allowed before stays so.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hickory_resolver::proto::rr::{Name, RData, RecordType};
use ipnet::IpNet;
use tokio::time::{sleep, timeout};

use super::{
    SetupError,
    query::{Records, Resolver},
    report::Failure,
};
use crate::{
    access::spf::{Claims, Directive, Domain, EVERYBODY, Mechanism, Networks, Record, Redirect, Widest, is_record},
    config,
};

#[cfg(test)]
mod tests;

/// The most terms that ask DNS, of all records together (RFC 7208 section 4.6.4).
const MOST_LOOKUPS: u8 = 10;

/// The most names without an address (the same section). A name with addresses of one family only is not among them.
const MOST_VOID: u8 = 2;

/// The most mail servers of one `mx` (the same section).
const MOST_EXCHANGES: usize = 10;

/// The most networks that one domain may have; large senders have some hundred.
const MOST_NETWORKS: usize = 1_000;

/// The most that is told of what was left out.
const MOST_REMARKS: usize = 20;

/// The longest that all queries for one domain may take together.
const MOST_TIME: Duration = Duration::from_secs(60);

/// Asks domains for their networks.
#[derive(Debug)]
pub struct Spf {
    resolver: Resolver,
    widest: Widest,
}

/// What a domain publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its networks; `None` where it has no record, or none that can be understood.
    pub networks: Option<Networks>,
    /// How long that holds: the lowest TTL of all answers. Zero where one had none.
    pub ttl: Duration,
    /// What was left out, and why: in printable ASCII, a bounded number of them.
    pub remarks: Vec<String>,
}

/// DNS did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {failure}")]
pub struct Trouble {
    /// Which name was asked for.
    pub name: String,
    /// What happened.
    pub failure: Failure,
}

impl Spf {
    /// Asks the recursors of `resolver`, and leaves out what is wider than `widest`. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// No resolver is to be had.
    pub fn new(resolver: &config::Resolver, widest: Widest) -> Result<Self, SetupError> {
        Ok(Self { resolver: Resolver::new(resolver, true)?, widest })
    }

    /// Asks for everything that the record of `domain` refers to. It takes a minute at most.
    ///
    /// # Errors
    /// Some answer is missing, so that nothing is known of the domain.
    pub async fn ask(&self, domain: &Domain) -> Result<Answer, Trouble> {
        let mut walk = Walk { spf: self, lookups: 0, void: 0, ttl: Duration::MAX, remarks: Remarks::default() };
        let found = timeout(MOST_TIME, walk.begin(domain)).await;
        let found = found.unwrap_or_else(|_| Err(trouble(domain, Failure::TimedOut(MOST_TIME))))?;
        let networks = found.map(|networks| {
            let (networks, left_out) = Networks::new(&networks, MOST_NETWORKS);
            if left_out > 0 {
                walk.remarks.add(format!("{left_out} networks are left out: more than {MOST_NETWORKS}"));
            }
            networks
        });
        Ok(Answer { networks, ttl: walk.ttl, remarks: walk.remarks.into_texts() })
    }
}

/// A domain that is asked again whenever its time is over.
#[derive(Debug)]
pub struct Followed {
    spf: Arc<Spf>,
    domain: Domain,
    limits: config::Spf,
    holds: Duration,
}

impl Followed {
    /// A domain that nobody has asked yet.
    #[must_use]
    pub fn new(spf: Arc<Spf>, domain: Domain, limits: config::Spf) -> Self {
        Self { spf, domain, limits, holds: Duration::ZERO }
    }

    /// The domain's answer: the first at once, others when the time of the one before is over.
    ///
    /// # Errors
    /// DNS did not answer; it is asked again after the shortest time.
    pub async fn next(&mut self) -> Result<Answer, Trouble> {
        sleep(self.holds).await;
        let answer = self.spf.ask(&self.domain).await;
        let (least, most) = (self.limits.min_ttl, self.limits.max_ttl);
        self.holds = answer.as_ref().map_or(least, |answer| answer.ttl.min(most).max(least));
        answer
    }

    /// How long the last answer holds.
    #[must_use]
    pub const fn holds(&self) -> Duration {
        self.holds
    }
}

fn trouble(name: &impl ToString, failure: Failure) -> Trouble {
    Trouble { name: name.to_string(), failure }
}

/// What was left out, for the operator.
#[derive(Debug, Default)]
struct Remarks {
    texts: Vec<String>,
    more: usize,
}

impl Remarks {
    fn add(&mut self, text: String) {
        if self.texts.contains(&text) {
            return;
        }
        if self.texts.len() < MOST_REMARKS {
            self.texts.push(text);
        } else {
            self.more += 1;
        }
    }

    fn into_texts(mut self) -> Vec<String> {
        if self.more > 0 {
            self.texts.push(format!("{} more is left out", self.more));
        }
        self.texts
    }
}

/// Whom a mechanism covers, or a record allows.
#[derive(Debug, Default)]
struct Covered {
    networks: Vec<IpNet>,
    /// Whether there are more than `networks`, nobody knows which.
    partial: bool,
    /// Whether there was an error: nobody who came this far is allowed, not by the records that refer to this one either.
    ended: bool,
}

impl Covered {
    fn ended() -> Self {
        Self { ended: true, ..Self::default() }
    }
}

/// The way through the records of one domain.
struct Walk<'a> {
    spf: &'a Spf,
    lookups: u8,
    void: u8,
    ttl: Duration,
    remarks: Remarks,
}

impl Walk<'_> {
    async fn begin(&mut self, domain: &Domain) -> Result<Option<Vec<IpNet>>, Trouble> {
        let Some(record) = self.record(domain).await? else { return Ok(None) };
        Ok(Some(self.evaluate(domain, &record).await?.networks))
    }

    /// The record of `domain`; without one that can be used, a remark says why.
    async fn record(&mut self, domain: &Domain) -> Result<Option<Record>, Trouble> {
        let texts = self.records(name(domain)?, RecordType::TXT).await?.into_iter().filter_map(|data| match data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        });
        let mut records = texts.filter(|text| is_record(text));
        let record = match (records.next(), records.next()) {
            (None, _) => Err("it has no SPF record".to_owned()),
            (Some(_), Some(_)) => Err("it has more than one SPF record".to_owned()),
            (Some(text), None) => {
                Record::parse(&text).map_err(|error| format!("its SPF record can't be understood: {error}"))
            }
        };
        Ok(record.map_err(|why| self.remarks.add(format!("{domain}: {why}"))).ok())
    }

    /// Whom `record` allows, term by term (RFC 7208 sections 4.6.2 and 6.1).
    async fn evaluate(&mut self, domain: &Domain, record: &Record) -> Result<Covered, Trouble> {
        let mut claims = Claims::default();
        let (mut partial, mut ended, mut nobody_left) = (false, false, false);
        for directive in &record.directives {
            let mut covered = self.cover(domain, directive).await?;
            if directive.allows {
                covered.partial |= self.leave_out_the_widest(domain, directive, &mut covered.networks);
                partial |= covered.partial;
            } else if covered.partial {
                // Whom it takes out is not known, and could be anybody.
                self.remarks.add(format!("{domain}: what stands behind {} is left out with it", directive.text));
                covered.ended = true;
            }
            claims.add(covered.networks, directive.allows);
            ended = covered.ended;
            nobody_left = ended || directive.mechanism == Mechanism::All;
            if nobody_left {
                break;
            }
        }
        match &record.redirect {
            Some(Redirect::To(target)) if !nobody_left => {
                let text = format!("redirect={target}");
                let allowed = if self.may_ask(domain, &text) {
                    self.refer(domain, target, &text).await?
                } else {
                    Covered::ended()
                };
                claims.add(allowed.networks, true);
                partial |= allowed.partial;
                ended = allowed.ended;
            }
            Some(Redirect::Unknowable(text)) if !nobody_left => {
                self.remarks.add(format!("{domain}: {text} is left out: it holds a macro"));
                partial = true;
            }
            _ => {}
        }
        Ok(Covered { networks: claims.allowed(), partial, ended })
    }

    /// Whom a mechanism covers.
    async fn cover(&mut self, domain: &Domain, directive: &Directive) -> Result<Covered, Trouble> {
        let text = directive.text.as_str();
        if directive.mechanism.asks() && !self.may_ask(domain, text) {
            return Ok(Covered::ended());
        }
        match &directive.mechanism {
            Mechanism::All => Ok(Covered { networks: EVERYBODY.to_vec(), ..Covered::default() }),
            Mechanism::Network(net) => Ok(Covered { networks: vec![*net], ..Covered::default() }),
            Mechanism::Include(target) => self.refer(domain, target, text).await,
            Mechanism::Addresses(target, prefix) => {
                let addresses = self.addresses(name(target.as_ref().unwrap_or(domain))?).await?;
                let ended = addresses.is_empty() && !self.may_be_void(domain, text);
                let networks = addresses.into_iter().map(|address| prefix.around(address)).collect();
                Ok(Covered { networks, partial: false, ended })
            }
            Mechanism::Exchanges(target, prefix) => {
                let exchanges = self.exchanges(target.as_ref().unwrap_or(domain)).await?;
                if exchanges.len() > MOST_EXCHANGES {
                    let many = exchanges.len();
                    self.remarks.add(format!(
                        "{domain}: {text} and what follows it is left out: {many} mail servers, more than {MOST_EXCHANGES}"
                    ));
                    return Ok(Covered::ended());
                }
                let mut covered =
                    Covered { ended: exchanges.is_empty() && !self.may_be_void(domain, text), ..Covered::default() };
                for exchange in exchanges {
                    let addresses = self.addresses(exchange).await?;
                    covered.ended |= addresses.is_empty() && !self.may_be_void(domain, text);
                    covered.networks.extend(addresses.into_iter().map(|address| prefix.around(address)));
                }
                Ok(covered)
            }
            Mechanism::Unknowable(why) => {
                self.remarks.add(format!("{domain}: {text} is left out: {why}"));
                Ok(Covered { partial: true, ..Covered::default() })
            }
        }
    }

    /// Whom the record of `target` allows; without a record that is an error (RFC 7208 sections 5.2 and 6.1).
    async fn refer(&mut self, domain: &Domain, target: &Domain, text: &str) -> Result<Covered, Trouble> {
        match self.record(target).await? {
            // Boxed, as it comes back here: at most as often as terms may ask.
            Some(record) => Box::pin(self.evaluate(target, &record)).await,
            None => {
                self.remarks.add(format!("{domain}: {text} and what follows it is left out"));
                Ok(Covered::ended())
            }
        }
    }

    /// Takes what is too wide out of `networks`; whether anything was.
    fn leave_out_the_widest(&mut self, domain: &Domain, directive: &Directive, networks: &mut Vec<IpNet>) -> bool {
        // What another record allows was looked at there, and may have been joined to wider networks since.
        if matches!(directive.mechanism, Mechanism::Include(_)) {
            return false;
        }
        let widest = self.spf.widest;
        let too_wide: Vec<IpNet> = networks.extract_if(.., |net| !widest.takes(*net)).collect();
        for net in &too_wide {
            let text = &directive.text;
            self.remarks.add(format!("{domain}: {text} is left out: {net} is wider than access.spf.widest permits"));
        }
        !too_wide.is_empty()
    }

    /// Counts a term that asks; without room for it the evaluation ends.
    fn may_ask(&mut self, domain: &Domain, text: &str) -> bool {
        self.lookups += 1;
        let may = self.lookups <= MOST_LOOKUPS;
        if !may {
            self.remarks.add(format!(
                "{domain}: {text} and what follows it is left out: more than {MOST_LOOKUPS} terms ask DNS (RFC 7208 section 4.6.4)"
            ));
        }
        may
    }

    /// Counts a name without an address; one too many ends the evaluation.
    fn may_be_void(&mut self, domain: &Domain, text: &str) -> bool {
        self.void = self.void.saturating_add(1);
        let may = self.void <= MOST_VOID;
        if !may {
            self.remarks.add(format!(
                "{domain}: what follows {text} is left out: more than {MOST_VOID} names are not there (RFC 7208 section 4.6.4)"
            ));
        }
        may
    }

    async fn exchanges(&mut self, domain: &Domain) -> Result<Vec<Name>, Trouble> {
        let records = self.records(name(domain)?, RecordType::MX).await?;
        let exchanges = records.into_iter().filter_map(|data| match data {
            // The root means that there is none (RFC 7505).
            RData::MX(exchange) if !exchange.exchange.is_root() => Some(exchange.exchange),
            _ => None,
        });
        Ok(exchanges.collect())
    }

    /// The addresses of `name`, of both families.
    async fn addresses(&mut self, name: Name) -> Result<Vec<IpAddr>, Trouble> {
        let mut records = self.records(name.clone(), RecordType::A).await?;
        records.append(&mut self.records(name, RecordType::AAAA).await?);
        let addresses = records.into_iter().filter_map(|data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        });
        Ok(addresses.collect())
    }

    async fn records(&mut self, name: Name, kind: RecordType) -> Result<Vec<RData>, Trouble> {
        let answer = self.spf.resolver.records(name.clone(), kind).await;
        let Records { data, ttl } =
            answer.map_err(|failure| trouble(&name.to_ascii().trim_end_matches('.'), failure))?;
        self.ttl = self.ttl.min(ttl.unwrap_or_default());
        Ok(data)
    }
}

/// The dot at the end keeps search domains away.
fn name(domain: &Domain) -> Result<Name, Trouble> {
    Name::from_ascii(format!("{domain}.")).map_err(|_| trouble(domain, Failure::BadResponse))
}
