//! A client that speaks SMTP, or whatever else a test wants it to say.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use crate::{net::Host, wait::SOON};

/// How long a SYN that is silently dropped is waited for: one retransmission is in it.
const HANDSHAKE: Duration = Duration::from_millis(1800);

/// An open connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    local: SocketAddr,
    unread: Vec<u8>,
}

impl Client {
    /// Connects from an address, which the host gets if it has not got it, to port 25 of the edge.
    ///
    /// # Panics
    ///
    /// When the handshake fails.
    #[must_use]
    #[track_caller]
    pub fn connect(host: &Host, from: IpAddr) -> Self {
        match Self::try_connect(host, from, host.edge(from), SOON) {
            Ok(client) => client,
            Err(error) => panic!("{from} could not connect: {error}"),
        }
    }

    /// Connects from an address, which the host gets if it has not got it, to a server.
    ///
    /// # Errors
    ///
    /// When the handshake fails; `TimedOut` when it gets no answer within `limit`.
    pub fn try_connect(host: &Host, from: IpAddr, to: SocketAddr, limit: Duration) -> io::Result<Self> {
        host.adopt(from);
        let stream = host.namespace.enter(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
            socket.connect_timeout(&SockAddr::from(to), limit)?;
            Ok::<_, io::Error>(TcpStream::from(socket))
        })?;
        Self::take(stream)
    }

    /// Speaks on a connection that somebody else has made.
    ///
    /// # Panics
    ///
    /// When it is broken.
    #[must_use]
    pub fn on(stream: TcpStream) -> Self {
        Self::take(stream).expect("a connection")
    }

    fn take(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(SOON))?;
        let local = stream.local_addr()?;
        Ok(Self { stream, local, unread: Vec::new() })
    }

    /// Has its SYNs to port 25 of the edge silently dropped.
    ///
    /// # Panics
    ///
    /// When the handshake completes, or is refused aloud.
    #[track_caller]
    pub fn assert_dropped(host: &Host, from: IpAddr) {
        match Self::try_connect(host, from, host.edge(from), HANDSHAKE) {
            Ok(client) => panic!("{} got a connection", client.name()),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{from}: {error}"),
        }
    }

    /// Its own address and port as log lines write them: `[ADDRESS]:PORT`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("[{}]:{}", self.local.ip(), self.local.port())
    }

    /// Its own address and port.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    ///
    /// When the connection is broken.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.stream.write_all(bytes.as_ref()) {
            panic!("{}: write: {error}", self.name());
        }
    }

    /// Sends bytes as they are, if the connection can still take them.
    ///
    /// # Errors
    ///
    /// When it is broken.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Reads one line, without its line end; none at the end of the connection.
    ///
    /// # Errors
    ///
    /// As `read`; `TimedOut` when the line does not come within `limit`.
    pub fn try_line(&mut self, limit: Duration) -> io::Result<Option<String>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()));
            }
            if !self.read_more(deadline)? {
                return Ok(None);
            }
        }
    }

    fn read_more(&mut self, deadline: Instant) -> io::Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.unread.extend(&buffer[..length]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
            // A read with a time limit is not taken up again by the system.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Reads one line.
    ///
    /// # Panics
    ///
    /// When none comes.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.try_line(SOON) {
            Ok(Some(line)) => line,
            Ok(None) => panic!("{}: the server closed", self.name()),
            Err(error) => panic!("{}: read: {error}", self.name()),
        }
    }

    /// Reads a whole reply, of one or more lines, joined by `\n`.
    ///
    /// # Panics
    ///
    /// When none comes.
    #[track_caller]
    pub fn reply(&mut self) -> String {
        let mut reply = self.line();
        while last_line(&reply).as_bytes().get(3) == Some(&b'-') {
            reply.push('\n');
            reply.push_str(&self.line());
        }
        reply
    }

    /// Sends a command and reads its reply, which has to begin with `code`.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn command(&mut self, command: &str, code: &str) -> String {
        self.send(format!("{command}\r\n"));
        let reply = self.reply();
        assert!(reply.starts_with(code), "{}: \"{command}\" got \"{reply}\", not {code}", self.name());
        reply
    }

    /// Says EHLO and delivers one message to postmaster@example.test. `body` has `\r\n` line ends and needs no dot-stuffing.
    ///
    /// # Panics
    ///
    /// When the server refuses any of it.
    #[track_caller]
    pub fn deliver(&mut self, body: &str) {
        self.command("EHLO client.example.test", "250");
        self.command("MAIL FROM:<sender@client.example.test>", "250");
        self.command("RCPT TO:<inbox@example.test>", "250");
        self.command("DATA", "354");
        self.send(body);
        self.command(".", "250");
    }

    /// Says QUIT and waits for the end.
    ///
    /// # Panics
    ///
    /// When the server does not close.
    #[track_caller]
    pub fn quit(mut self) {
        self.command("QUIT", "221");
        self.wait_closed();
    }

    /// Reads and discards until the server has closed or reset the connection.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn wait_closed(&mut self) {
        let deadline = Instant::now() + SOON;
        loop {
            match self.read_more(deadline) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    panic!("{}: the server does not close", self.name())
                }
                Err(_) => return,
            }
        }
    }

    /// All bytes until the server closes.
    ///
    /// # Panics
    ///
    /// When the connection is reset, or does not end.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + SOON;
        loop {
            match self.read_more(deadline) {
                Ok(true) => {}
                Ok(false) => return std::mem::take(&mut self.unread),
                Err(error) => panic!("{}: read: {error}", self.name()),
            }
        }
    }

    /// Asks the other end whether it is still there after `idle` without a word from it.
    ///
    /// # Panics
    ///
    /// When the system refuses.
    pub fn keep_alive(&self, idle: Duration) {
        let alive = TcpKeepalive::new().with_time(idle).with_interval(idle);
        socket2::SockRef::from(&self.stream).set_tcp_keepalive(&alive).expect("SO_KEEPALIVE");
    }

    /// Closes the sending side.
    ///
    /// # Panics
    ///
    /// When it is closed already.
    pub fn end_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shutdown");
    }

    /// Resets the connection.
    ///
    /// # Panics
    ///
    /// When the system refuses.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }
}

fn last_line(reply: &str) -> &str {
    reply.rsplit('\n').next().unwrap_or(reply)
}
