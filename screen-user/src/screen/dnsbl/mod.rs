//! DNSBL sites, filters and scores (spec 3.4, 3.5).

mod filter;
mod sites;
mod tally;
#[cfg(test)]
mod tests;

pub use self::{
    filter::{Filter, FilterError},
    sites::{SiteError, Sites, Weighing, Zone},
    tally::{Hit, Judgement, Tally, judge},
};
