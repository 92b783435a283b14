//! The client side of SMTP, as senders of every kind speak it.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::Result;

/// How long a client waits for a connection. A SYN is sent again after one second, so that two have gone unanswered then.
const CONNECT_LIMIT: Duration = Duration::from_millis(2500);

/// How long a client waits for a reply.
const REPLY_LIMIT: Duration = Duration::from_secs(20);

/// How a client goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Waits for its turn (RFC 5321 section 3.1) and delivers a message.
    Polite,
    /// Talks at once.
    Hasty,
}

/// What became of one connection.
#[derive(Debug, Clone)]
pub(super) struct Visit {
    /// What the client got.
    pub(super) got: Got,
    /// From the first SYN to what decided it: the greeting, the refusal, or giving up.
    pub(super) after: Duration,
}

/// What a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Got {
    /// Its message was accepted with this reply.
    Delivered(String),
    /// It was refused with this reply.
    Refused(String),
    /// Nobody answered its SYN.
    NoConnection,
    /// The connection was refused by a reset.
    Reset,
    /// The connection ended without a reply.
    Ended,
}

/// Connects to a server and behaves.
pub(super) fn visit(server: SocketAddr, manner: Manner) -> Result<Visit> {
    let begin = Instant::now();
    let stream = match connect(server) {
        Ok(stream) => stream,
        Err(got) => return Ok(Visit { got, after: begin.elapsed() }),
    };
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    if manner == Manner::Hasty {
        stream.write_all(b"EHLO hurry.example\r\nMAIL FROM:<>\r\n")?;
    }
    let Some(greeting) = reply(&mut lines) else { return Ok(Visit { got: Got::Ended, after: begin.elapsed() }) };
    let after = begin.elapsed();
    if !greeting.starts_with("220") || manner == Manner::Hasty {
        return Ok(Visit { got: Got::Refused(greeting), after });
    }
    let commands = [
        "EHLO sender.example\r\n",
        "MAIL FROM:<somebody@sender.example>\r\n",
        "RCPT TO:<postmaster@mx.example.test>\r\n",
        "DATA\r\n",
        "Subject: hello\r\nFrom: somebody@sender.example\r\nTo: postmaster@mx.example.test\r\n\r\nHello.\r\n.\r\n",
    ];
    let mut last = greeting;
    for command in commands {
        stream.write_all(command.as_bytes())?;
        let Some(answer) = reply(&mut lines) else { return Ok(Visit { got: Got::Ended, after: begin.elapsed() }) };
        if !answer.starts_with(['2', '3']) {
            return Ok(Visit { got: Got::Refused(answer), after: begin.elapsed() });
        }
        last = answer;
    }
    // The message is the server's now; how the farewell goes does not matter any more.
    let _ = stream.write_all(b"QUIT\r\n");
    let _ = reply(&mut lines);
    Ok(Visit { got: Got::Delivered(last), after })
}

/// A connection that stays open, with the first line it got.
#[derive(Debug)]
pub(super) struct Held {
    /// Keeps it open.
    pub(super) stream: TcpStream,
    /// The first line of the greeting.
    pub(super) first: String,
}

/// Connects and waits for the first line, no more.
pub(super) fn hold(server: SocketAddr) -> Result<Held, Got> {
    let stream = connect(server)?;
    let mut line = String::new();
    let copy = stream.try_clone().map_err(|_| Got::Ended)?;
    match BufReader::new(copy).read_line(&mut line) {
        Ok(length) if length > 0 => Ok(Held { stream, first: line.trim_end().to_owned() }),
        Ok(_) | Err(_) => Err(Got::Ended),
    }
}

fn connect(server: SocketAddr) -> Result<TcpStream, Got> {
    let stream = TcpStream::connect_timeout(&server, CONNECT_LIMIT).map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Got::Reset,
        _ => Got::NoConnection,
    })?;
    stream.set_read_timeout(Some(REPLY_LIMIT)).map_err(|_| Got::Ended)?;
    stream.set_nodelay(true).map_err(|_| Got::Ended)?;
    Ok(stream)
}

/// The last line of the next reply (RFC 5321 section 4.2.1): the first one whose code is not followed by a hyphen.
fn reply(lines: &mut impl std::io::BufRead) -> Option<String> {
    loop {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        if line.get(3) != Some(&b'-') {
            return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_ends_with_its_first_line_without_hyphen() {
        let mut bytes: &[u8] = b"220-wait\r\n220-still\r\n220 go\r\n250 next\r\n";
        assert_eq!(reply(&mut bytes).as_deref(), Some("220 go"));
        assert_eq!(reply(&mut bytes).as_deref(), Some("250 next"));
        assert_eq!(reply(&mut bytes), None);
    }

    #[test]
    fn a_code_may_change_within_a_greeting() {
        let mut bytes: &[u8] = b"220-wait\r\n521 5.5.1 Protocol error\r\n";
        assert_eq!(reply(&mut bytes).as_deref(), Some("521 5.5.1 Protocol error"));
    }
}
