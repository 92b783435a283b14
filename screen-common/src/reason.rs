//! Why the kernel did what it did, by name.

/// A reason: the key of the map `totals` and the kind of an event. bpftool prints the variant's name.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A SYN that nothing speaks against.
    Admitted = 0,
    /// A SYN from a deny-listed source.
    Denied = 1,
    /// A SYN of a client at its limit.
    Limited = 2,
    /// A SYN of a client with too many unanswered ones; it is let in when it comes again.
    Unproven = 3,
    /// A packet that is not what its headers say; passed.
    Malformed = 4,
    /// A connection of a client that passed the tests, given to the mail server.
    PassOld = 5,
    /// A connection of an allowed client, given to the mail server.
    Allowed = 6,
    /// A look-up for a stranger, answered with the screener's listener.
    ToScreener = 7,
    /// A look-up for a stranger while no screener listens.
    ScreenerDown = 8,
    /// A look-up for a connection of the relay itself.
    Relayed = 9,
    /// A connection that was not counted because `clients` is full.
    ClientsFull = 10,
    /// A SYN that was turned away and answered with a cookie.
    Challenged = 11,
    /// A cookie that came back and was answered with a text and a FIN.
    Refused = 12,
    /// A SYN that would have been turned away, and passed, as this is a dry run.
    Spared = 13,
    /// A connection of a denied client, given to the mail server in a dry run.
    LetIn = 14,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Admitted,
        Self::Denied,
        Self::Limited,
        Self::Unproven,
        Self::Malformed,
        Self::PassOld,
        Self::Allowed,
        Self::ToScreener,
        Self::ScreenerDown,
        Self::Relayed,
        Self::ClientsFull,
        Self::Challenged,
        Self::Refused,
        Self::Spared,
        Self::LetIn,
    ];

    /// The reason with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u32 == number)
    }

    /// Its name in status output, lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Denied => "denied",
            Self::Limited => "limited",
            Self::Unproven => "unproven",
            Self::Malformed => "malformed",
            Self::PassOld => "pass_old",
            Self::Allowed => "allowed",
            Self::ToScreener => "to_screener",
            Self::ScreenerDown => "screener_down",
            Self::Relayed => "relayed",
            Self::ClientsFull => "clients_full",
            Self::Challenged => "challenged",
            Self::Refused => "refused",
            Self::Spared => "spared",
            Self::LetIn => "let_in",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_reasons_are_one_to_one() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
            assert_eq!(Reason::from_number(reason as u32), Some(reason));
        }
        assert_eq!(Reason::from_number(Reason::ALL.len() as u32), None);
    }
}
