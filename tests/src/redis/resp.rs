//! What Redis is asked and says (RESP 2): <https://redis.io/docs/reference/protocol-spec>.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A status or a string.
    Text(String),
    /// An error; it begins with its kind, in capitals.
    Error(String),
    /// A number.
    Number(i64),
    /// Several replies.
    List(Vec<Reply>),
    /// Nothing is there.
    Nothing,
}

impl Reply {
    /// The text of a reply that is one.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> &str {
        let Self::Text(text) = self else { panic!("not a text: {self:?}") };
        text
    }

    /// The number that a reply is.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn number(&self) -> i64 {
        let Self::Number(number) = self else { panic!("not a number: {self:?}") };
        *number
    }

    /// The replies in a list.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn list(&self) -> &[Self] {
        let Self::List(list) = self else { panic!("not a list: {self:?}") };
        list
    }
}

/// A connection to a server on this machine. It goes past the network, so that it is there whatever becomes of that.
#[derive(Debug)]
pub(super) struct Connection(BufReader<UnixStream>);

impl Connection {
    pub(super) fn open(socket: &Path, limit: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(limit))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(super) fn ask(&mut self, words: &[&str]) -> io::Result<Reply> {
        self.send(words)?;
        self.read()
    }

    pub(super) fn send(&mut self, words: &[&str]) -> io::Result<()> {
        let each: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        self.0.get_mut().write_all(format!("*{}\r\n{each}", words.len()).as_bytes())
    }

    fn read(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("{line:?}"));
        let (kind, rest) = line.trim_end().split_at_checked(1).ok_or_else(wrong)?;
        let number = || rest.parse::<i64>().map_err(|_| wrong());
        match kind {
            "+" => Ok(Reply::Text(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            ":" => Ok(Reply::Number(number()?)),
            "$" | "*" => {
                let Ok(length) = usize::try_from(number()?) else { return Ok(Reply::Nothing) };
                if kind == "*" {
                    return (0..length).map(|_| self.read()).collect::<io::Result<_>>().map(Reply::List);
                }
                let mut text = vec![0; length + "\r\n".len()];
                self.0.read_exact(&mut text)?;
                text.truncate(length);
                Ok(Reply::Text(String::from_utf8_lossy(&text).into_owned()))
            }
            _ => Err(wrong()),
        }
    }
}
