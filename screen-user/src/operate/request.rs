//! What `mxscreen SUBCOMMAND` says to a running gate, and what it hears: one JSON line each way.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::IpAddr,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    cli::Which,
    exit::{Code, Failure},
};

/// The most bytes that follow a request. Of a list's addresses that is 16 million IPv4 ranges, or 4 million of IPv6.
const IMPORT_BYTES: u64 = 128 << 20;

/// How long a command waits for the gate's answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request to the gate.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Everything `status` shows.
    Status,
    /// What `top` shows: a [`super::top::snapshot::Snapshot`].
    Top,
    /// Visit the mail servers as a client that they don't know: [`crate::forward::examine::Examined`] for each.
    Examine,
    /// Everything known of one client.
    Explain {
        /// The client.
        address: IpAddr,
    },
    /// Deny a network.
    Deny(Entry),
    /// Allow a network.
    Allow(Entry),
    /// Forget what was entered for, or learned of, a network.
    Forget {
        /// The network.
        net: IpNet,
    },
    /// The gate's lists.
    List {
        /// One of them; all if left out.
        which: Option<Which>,
    },
    /// Put a block list in place of the one of its name.
    BlocklistImport(Import),
    /// The imported lists.
    Blocklists,
    /// The networks of an imported list.
    BlocklistExport {
        /// Which.
        name: String,
    },
    /// Remove an imported list.
    BlocklistRemove {
        /// Which.
        name: String,
    },
    /// What is known, in one of the parts that all hosts divide it into.
    CacheExport {
        /// Which part.
        shard: u8,
    },
    /// Take over what lines of a file say.
    CacheImport(CacheImport),
    /// Hold the kernel's counts of connections against its sockets.
    Recount,
    /// Read configuration and tables again.
    Reload,
    /// Let another version of the program take over.
    Upgrade,
    /// Drain and stop.
    Stop {
        /// Take the kernel's programs off as well.
        detach: bool,
    },
}

/// A run-time entry that is asked for.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The network.
    pub net: IpNet,
    /// How long it holds, in seconds; without it, until it is forgotten.
    pub seconds: Option<u64>,
    /// Why.
    pub reason: String,
}

/// A block list to be imported. The line holds the length of the addresses; they follow it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// Its name.
    pub name: String,
    /// How long it holds, in seconds; without it, until it is removed or replaced.
    pub seconds: Option<u64>,
    /// What its clients are told behind the code 521, if that is not what everybody is told.
    pub reply: Option<String>,
    /// Import it although it does harm.
    pub force: bool,
    /// Say what would change, and change nothing.
    pub dry_run: bool,
    /// As [`crate::access::blocklist::Addresses::to_bytes`] writes them.
    #[serde(with = "length")]
    pub addresses: Vec<u8>,
}

/// What lines of a file are to be read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheForm {
    /// What `mxscreen cache export` prints.
    Mxscreen,
    /// What `postmap -s` prints of postscreen's cache.
    Postscreen,
}

/// Lines that are to be taken over. The request's line holds their length; they follow it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheImport {
    /// What they are.
    pub form: CacheForm,
    /// The number of the first one in its file.
    pub first_line: u64,
    /// Only say what would become of them.
    pub dry_run: bool,
    /// The lines.
    #[serde(with = "length")]
    pub lines: Vec<u8>,
}

/// Bytes that follow a line, in the line: their number alone.
mod length {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::IMPORT_BYTES;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(bytes.len() as u64)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let length = u64::deserialize(deserializer)?;
        if length > IMPORT_BYTES {
            return Err(serde::de::Error::custom(format!("more than {} MiB", IMPORT_BYTES >> 20)));
        }
        Ok(vec![0; usize::try_from(length).map_err(serde::de::Error::custom)?])
    }
}

impl Request {
    /// Where what follows the request's line is, or is to be put.
    pub(super) fn payload(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Self::BlocklistImport(import) => Some(&mut import.addresses),
            Self::CacheImport(import) => Some(&mut import.lines),
            _ => None,
        }
    }
}

/// The gate's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done; what was asked for.
    Done(Value),
    /// Not done.
    Refused {
        /// The exit status for it.
        code: u8,
        /// Why.
        message: String,
    },
}

impl Answer {
    /// A refusal that the client command turns into its exit status.
    #[must_use]
    pub fn refused(failure: &Failure) -> Self {
        Self::Refused { code: failure.code as u8, message: failure.message.clone() }
    }
}

/// Sends `request` to the gate behind `control` and waits for its answer.
///
/// # Errors
/// No gate listens there (exit 69), this user may not talk to it (77), or it refused (its own code).
pub fn ask(control: &Path, request: &Request) -> Result<Value, Failure> {
    ask_within(control, request, PATIENCE)
}

/// As [`ask`], of one who waits for `patience` only.
///
/// # Errors
/// As there.
pub fn ask_within(control: &Path, request: &Request, patience: Duration) -> Result<Value, Failure> {
    let failed = |error: &io::Error| {
        let path = control.display();
        if error.kind() == io::ErrorKind::PermissionDenied {
            Failure::no_permission(format!("{path}: {error}: talking to the gate needs root or its group"))
        } else {
            Failure::unavailable(format!("{path}: {error}: is mxscreen running? (--control names another socket)"))
        }
    };
    let mut stream = UnixStream::connect(control).map_err(|error| failed(&error))?;
    stream.set_read_timeout(Some(patience)).map_err(|error| failed(&error))?;
    let mut line = serde_json::to_string(request).map_err(Failure::bug)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(|error| failed(&error))?;
    let payload: &[u8] = match request {
        Request::BlocklistImport(import) => &import.addresses,
        Request::CacheImport(import) => &import.lines,
        _ => &[],
    };
    // A gate that refuses the line closes before it has read what follows: its answer says why.
    let _ = stream.write_all(payload);
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).map_err(|error| failed(&error))?;
    match serde_json::from_str(&reply) {
        Ok(Answer::Done(value)) => Ok(value),
        Ok(Answer::Refused { code, message }) => Err(Failure { code: Code::from_number(code), message }),
        Err(_) => Err(Failure::unavailable(format!("{}: the gate ended before it answered", control.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_socket() {
        let request = Request::Deny(Entry {
            net: "192.0.2.0/24".parse().unwrap(),
            seconds: Some(3600),
            reason: "it \"hammers\"\nus".into(),
        });
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
    }

    #[test]
    fn nobody_there_is_exit_69() {
        let failure = ask(Path::new("/nonexistent/control.sock"), &Request::Status).unwrap_err();
        assert_eq!(failure.code, Code::Unavailable);
        assert!(failure.message.contains("/nonexistent/control.sock"), "{failure}");
    }
}
