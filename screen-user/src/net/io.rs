//! One client's connection, plain or inside TLS, with what still has to be sent.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::tls_facts::TlsFacts;
use crate::screen::{PEEK_LIMIT, READ_LIMIT, event::Interest};

/// What came from a client.
#[derive(Debug)]
pub(super) enum Input {
    /// Looked at, not taken.
    Peeked(Vec<u8>),
    /// Taken.
    Received(Vec<u8>),
    /// The client ended or reset the connection.
    Closed,
}

/// The transport under a session.
#[derive(Debug)]
pub(super) enum Transport {
    /// The bare socket.
    Plain(TcpStream),
    /// After STARTTLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// Taken away for a handshake or a hand-over.
    Gone,
}

/// A transport and the bytes that wait to be sent over it.
#[derive(Debug)]
pub(super) struct Connection {
    /// The transport.
    pub(super) transport: Transport,
    unsent: Vec<u8>,
    unflushed: bool,
}

impl Connection {
    /// A connection that nothing was sent over.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { transport: Transport::Plain(stream), unsent: Vec::new(), unflushed: false }
    }

    /// A connection that was taken away.
    pub(super) fn gone() -> Self {
        Self { transport: Transport::Gone, unsent: Vec::new(), unflushed: false }
    }

    /// Queues bytes; [`Self::poll_send`] sends them. What a session may queue is bounded by its count of commands.
    pub(super) fn queue(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Sends what is queued without asking whether there is room, as there is in a new socket: the runtime would not know before its
    /// next look at it. What does not go out, and what went wrong, is [`Self::poll_send`]'s.
    pub(super) fn send_first(&mut self) {
        if let Transport::Plain(stream) = &self.transport
            && !self.unsent.is_empty()
            && let Ok(sent) = SockRef::from(stream).send(&self.unsent)
        {
            self.unsent.drain(..sent);
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
            }
        }
    }

    /// Sends what is queued. Ready when all of it is with the kernel.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let written = match &mut self.transport {
                Transport::Plain(stream) => ready!(Pin::new(stream).poll_write(cx, &self.unsent))?,
                Transport::Tls(stream) => ready!(Pin::new(stream).poll_write(cx, &self.unsent))?,
                Transport::Gone => return Poll::Ready(Ok(())),
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.drain(..written);
            self.unflushed = true;
        }
        if self.unflushed {
            if let Transport::Tls(stream) = &mut self.transport {
                ready!(Pin::new(stream).poll_flush(cx))?;
            }
            self.unflushed = false;
            self.unsent = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the input that `interest` names; never ready when it names none.
    pub(super) fn poll_input(&mut self, cx: &mut Context<'_>, interest: Interest) -> Poll<Input> {
        match interest {
            Interest::Nothing => Poll::Pending,
            Interest::Peek => self.poll_peek(cx),
            Interest::Read => self.poll_read(cx),
        }
    }

    fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        let mut space = [0; PEEK_LIMIT];
        let mut buffer = ReadBuf::new(&mut space);
        match &mut self.transport {
            Transport::Plain(stream) => match ready!(stream.poll_peek(cx, &mut buffer)) {
                Ok(count) if count > 0 => Poll::Ready(Input::Peeked(buffer.filled().to_vec())),
                _ => Poll::Ready(Input::Closed),
            },
            // The early phase is over before TLS begins.
            Transport::Tls(_) | Transport::Gone => Poll::Pending,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        // On the stack for the length of one poll: a waiting session holds no buffer.
        let mut space = [0; READ_LIMIT];
        let mut buffer = ReadBuf::new(&mut space);
        let result = match &mut self.transport {
            Transport::Plain(stream) => ready!(Pin::new(stream).poll_read(cx, &mut buffer)),
            Transport::Tls(stream) => ready!(Pin::new(stream).poll_read(cx, &mut buffer)),
            Transport::Gone => return Poll::Pending,
        };
        Poll::Ready(match (result, buffer.filled()) {
            (Err(_), _) | (Ok(()), []) => Input::Closed,
            (Ok(()), bytes) => Input::Received(bytes.to_vec()),
        })
    }

    /// What there is to say of TLS, if the connection is in it.
    pub(super) fn tls_facts(&self) -> Option<TlsFacts> {
        match &self.transport {
            Transport::Tls(stream) => Some(TlsFacts::of(stream.get_ref().1)),
            Transport::Plain(_) | Transport::Gone => None,
        }
    }

    /// Takes out what has not been sent.
    pub(super) fn take_unsent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unsent)
    }

    /// As [`Self::take_plain`], for somebody else: `None` also while bytes wait to be sent, which would come too late.
    pub(super) fn take_for_another(&mut self) -> Option<TcpStream> {
        if self.unsent.is_empty() { self.take_plain() } else { None }
    }

    /// Takes the bare socket out, for a handshake or a relay. `None` inside TLS.
    pub(super) fn take_plain(&mut self) -> Option<TcpStream> {
        match std::mem::replace(&mut self.transport, Transport::Gone) {
            Transport::Plain(stream) => Some(stream),
            other => {
                self.transport = other;
                None
            }
        }
    }
}
