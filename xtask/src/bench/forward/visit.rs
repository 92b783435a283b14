//! A well-behaved client with one message, from its connect to the answer that decides.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::bench::{ground::SERVER, postscreen::DESTINATION};

/// A server that does not answer for so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a visit ended, and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    /// The message was taken: the time from the connect to the answer.
    Taken(Duration),
    /// The recipient was refused for now: the time from the connect to the answer to QUIT, as the client can only go.
    ToComeAgain(Duration),
}

impl Visit {
    /// Makes a visit from this address. Must run where the clients are.
    ///
    /// # Errors
    /// When the server answers anything but success, or 450 to the recipient.
    pub(super) fn make(from: Ipv4Addr) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).context("no socket")?;
        socket.bind(&SocketAddr::from((from, 0)).into()).context("no address")?;
        let begin = Instant::now();
        socket.connect(&SERVER.into()).context("can't connect")?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).context("no time limit")?;
        let mut talk = Talk { replies: BufReader::new(&stream), stream: &stream };
        talk.expect(220, "the connect")?;
        talk.say("EHLO client.example.test", 250)?;
        talk.say("MAIL FROM:<sender@client.example.test>", 250)?;
        let recipient = format!("RCPT TO:<user@{DESTINATION}>");
        match talk.ask(&recipient)? {
            250 => {}
            450 => {
                talk.say("QUIT", 221)?;
                return Ok(Self::ToComeAgain(begin.elapsed()));
            }
            other => bail!("{other} to {recipient}"),
        }
        talk.say("DATA", 354)?;
        talk.say("Subject: short\r\n\r\nHello.\r\n.", 250)?;
        let taken = begin.elapsed();
        talk.say("QUIT", 221)?;
        Ok(Self::Taken(taken))
    }
}

struct Talk<'a> {
    replies: BufReader<&'a TcpStream>,
    stream: &'a TcpStream,
}

impl Talk<'_> {
    fn say(&mut self, text: &str, code: u16) -> Result<()> {
        self.stream.write_all(format!("{text}\r\n").as_bytes()).context("can't send")?;
        self.expect(code, text)
    }

    fn ask(&mut self, text: &str) -> Result<u16> {
        self.stream.write_all(format!("{text}\r\n").as_bytes()).context("can't send")?;
        self.reply()
    }

    fn expect(&mut self, code: u16, to: &str) -> Result<()> {
        match self.reply()? {
            reply if reply == code => Ok(()),
            reply => bail!("{reply} to {to}"),
        }
    }

    /// The code of the next reply.
    fn reply(&mut self) -> Result<u16> {
        loop {
            let mut line = String::new();
            self.replies.read_line(&mut line).context("no reply")?;
            let (code, rest) = line.split_at_checked(3).with_context(|| format!("{line:?} is no reply"))?;
            if !rest.starts_with('-') {
                return code.parse().with_context(|| format!("{line:?} is no reply"));
            }
        }
    }
}
