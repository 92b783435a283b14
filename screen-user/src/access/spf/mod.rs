//! What an SPF record says (RFC 7208), as far as it can be said by networks. Nothing is looked up here: `dns::spf` does that.

mod networks;
mod record;
#[cfg(test)]
mod tests;

pub use networks::{Claims, EVERYBODY, Networks, Widest};
pub use record::{Directive, Domain, Mechanism, Prefix, Record, RecordError, Redirect, is_record};
